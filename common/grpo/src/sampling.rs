//! Sampling parameters. Leases include them, workers apply them, and log-probabilities refer to them.

/// Sampling parameters of a completion.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divisor of the logits. 0 is greedy, with log-probabilities at temperature 1.
    pub temperature: f64,
    /// Sample from the smallest set of most likely tokens that has this probability; 1 is all tokens.
    pub top_p: f64,
    /// Sample from this many most likely tokens; 0 is all tokens. Applied before `top_p`.
    pub top_k: usize,
    /// Always the most likely token, the lowest id among equals.
    pub greedy: bool,
    /// Longest completion, in tokens.
    pub max_new_tokens: usize,
    /// Tokens that end a completion and are part of it.
    pub stop_token_ids: Vec<u32>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_p: 1.0,
            top_k: 0,
            greedy: false,
            max_new_tokens: 128,
            stop_token_ids: Vec::new(),
        }
    }
}

/// A sampling parameter outside its range.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// The temperature is not finite or is negative.
    #[error("temperature is {0}, expected a finite number that is not negative")]
    Temperature(f64),
    /// `top_p` is not a probability above 0.
    #[error("top_p is {0}, expected more than 0 and at most 1")]
    TopP(f64),
    /// The maximum number of tokens is 0.
    #[error("max_new_tokens is 0, expected at least 1")]
    MaxNewTokens,
}

impl Sampling {
    /// Checks the ranges of the parameters.
    pub fn check(&self) -> Result<(), Error> {
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return Err(Error::Temperature(self.temperature));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(Error::TopP(self.top_p));
        }
        if self.max_new_tokens == 0 {
            return Err(Error::MaxNewTokens);
        }
        Ok(())
    }

    /// Returns whether sampling always selects the most likely token.
    pub fn is_greedy(&self) -> bool {
        self.greedy || self.temperature == 0.0
    }

    /// Returns whether tokens are sampled from a truncated distribution; they then have a second
    /// log-probability.
    pub fn is_truncated(&self) -> bool {
        !self.is_greedy() && (self.top_p < 1.0 || self.top_k > 0)
    }

    /// Returns the divisor of the logits for log-probabilities. The learner recomputes them with the same
    /// divisor.
    pub fn scoring_temperature(&self) -> f64 {
        if self.temperature == 0.0 { 1.0 } else { self.temperature }
    }
}

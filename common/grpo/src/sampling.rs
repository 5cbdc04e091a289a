//! How tokens are sampled: the one set of parameters that leases carry, workers apply and log-probabilities refer to.

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
    /// The temperature divides logits.
    #[error("temperature is {0}, expected a finite number that is not negative")]
    Temperature(f64),
    /// A probability.
    #[error("top_p is {0}, expected more than 0 and at most 1")]
    TopP(f64),
    /// A completion has at least one token.
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

    /// Whether each token is the most likely one.
    pub fn is_greedy(&self) -> bool {
        self.greedy || self.temperature == 0.0
    }

    /// Whether tokens come from less than the full distribution, which is when they have a second log-probability.
    pub fn is_truncated(&self) -> bool {
        !self.is_greedy() && (self.top_p < 1.0 || self.top_k > 0)
    }

    /// Returns the divisor of the logits for log-probabilities, with which the learner recomputes them.
    pub fn scoring_temperature(&self) -> f64 {
        if self.temperature == 0.0 { 1.0 } else { self.temperature }
    }
}

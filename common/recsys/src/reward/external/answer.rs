//! The answer of a program: one value for each completion of the request.

use serde::Deserialize;
use serde_json::Value;

use super::request::Request;

/// Number of characters of an answer that errors show.
const SHOWN_CHARACTERS: usize = 200;

/// An answer that cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// It is not JSON of this form.
    #[error(
        "the answer {answer:?} is invalid ({cause}): expected {{\"id\": \"{id}\", \"rewards\": [NUMBER, …]}}"
    )]
    Invalid {
        /// Its beginning.
        answer: String,
        /// The cause.
        cause: String,
        /// Id of the request.
        id: String,
    },
    /// It answers another request.
    #[error("the answer has the id {found:?}: expected {expected:?}, that of the request")]
    Id {
        /// Its id.
        found: String,
        /// Id of the request.
        expected: String,
    },
    /// It has another number of values than the request has completions.
    #[error("the answer has {found} rewards: expected {expected}, one for each completion of the request")]
    Count {
        /// Number of values.
        found: usize,
        /// Number of completions.
        expected: usize,
    },
    /// A value is not a number in the declared range.
    #[error("reward {place} of the answer is {value}: expected a number from {min} to {max}")]
    Value {
        /// Its position in the answer, from 0.
        place: usize,
        /// The value.
        value: String,
        /// Lowest permitted value.
        min: f64,
        /// Highest permitted value.
        max: f64,
    },
}

/// The form of an answer; other keys are ignored.
#[derive(Deserialize)]
struct Answer {
    id: String,
    rewards: Vec<Value>,
}

/// Reads the answer to a request and returns its values, in the order of the completions. `hide`: replaces secrets in
/// texts of the program, before errors show their beginning.
pub fn read(answer: &[u8], request: &Request, hide: impl Fn(&str) -> String) -> Result<Vec<f64>, Error> {
    let shown = |text: &str| hide(text).chars().take(SHOWN_CHARACTERS).collect::<String>();
    let Request { id, min, max, completions, .. } = request;
    let invalid = |cause: serde_json::Error| Error::Invalid {
        answer: shown(&String::from_utf8_lossy(answer)),
        // Quotes texts of the answer.
        cause: shown(&cause.to_string()),
        id: id.clone(),
    };
    let Answer { id: found, rewards } = serde_json::from_slice(answer).map_err(invalid)?;
    if found != *id {
        return Err(Error::Id { found: shown(&found), expected: id.clone() });
    }
    if rewards.len() != completions.len() {
        return Err(Error::Count { found: rewards.len(), expected: completions.len() });
    }
    let value = |(place, value): (usize, &Value)| {
        let number = value.as_f64().filter(|number| number.is_finite() && (*min..=*max).contains(number));
        number.ok_or_else(|| {
            let value = shown(&value.to_string());
            Error::Value { place, value, min: *min, max: *max }
        })
    };
    rewards.iter().enumerate().map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ItemId, UserId};
    use crate::reward::RequestCompletion;

    fn request() -> Request {
        let completion = |index| RequestCompletion {
            index,
            text: "[ITEM_4]".into(),
            reasoning: None,
            ranking: vec![ItemId(4)],
            target_rank: Some(1),
        };
        Request {
            id: "a1".into(),
            reward: "judge".into(),
            min: -1.0,
            max: 1.0,
            step: 0,
            index: 0,
            attempt: 0,
            user: UserId(7),
            system: None,
            prompt: "?".into(),
            history: vec![],
            candidates: vec![],
            target: ItemId(4),
            completions: [0, 2].map(completion).into(),
        }
    }

    #[test]
    fn only_one_number_in_range_for_each_completion_is_accepted() {
        let read = |answer: &str| {
            read(answer.as_bytes(), &request(), str::to_owned).map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"id": "a1", "rewards": [1, -0.25], "note": 3}"#), Ok(vec![1.0, -0.25]));
        for (answer, told) in [
            ("busy", "\"busy\" is invalid"),
            ("", "is invalid"),
            (r#"{"id": "a1"}"#, "missing field `rewards`"),
            (r#"{"id": "a1", "rewards": [NaN, 0]}"#, "is invalid"),
            (r#"{"id": "a1", "rewards": [0.5"#, "is invalid"),
            (r#"{"id": "a2", "rewards": [0, 0]}"#, "the id \"a2\": expected \"a1\""),
            (r#"{"id": "a1", "rewards": [0]}"#, "1 rewards: expected 2"),
            (r#"{"id": "a1", "rewards": [0, null]}"#, "reward 1 of the answer is null"),
            (r#"{"id": "a1", "rewards": ["1", 0]}"#, "reward 0 of the answer is \"1\""),
            (
                r#"{"id": "a1", "rewards": [0, 1.5]}"#,
                "reward 1 of the answer is 1.5: expected a number from -1 to 1",
            ),
            (r#"{"id": "a1", "rewards": [1e400, 0]}"#, "is invalid"),
        ] {
            let error = read(answer).unwrap_err();
            assert!(error.contains(told), "{answer}: {error}");
        }
    }

    #[test]
    fn a_secret_is_hidden_before_a_text_is_cut() {
        let secret = "sk-very-secret";
        let text = format!("{}{secret}", "x".repeat(195));
        for answer in [
            text.clone(),
            format!("{}{secret}", " ".repeat(195)),
            format!(r#"{{"id": "{text}", "rewards": [0, 0]}}"#),
            format!(r#"{{"id": "a1", "rewards": ["{text}", 0]}}"#),
            format!(r#"{{"id": "a1", "rewards": "{text}"}}"#),
        ] {
            let error =
                read(answer.as_bytes(), &request(), |text| text.replace(secret, "[key]")).unwrap_err();
            assert!(!error.to_string().contains("sk"), "{error}");
        }
    }
}

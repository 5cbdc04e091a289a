//! Answers of external rewards, by the slot and the request that they belong to.

use super::error::Error;
use super::tables::REWARD_ANSWERS;
use super::{Store, json};

impl Store {
    /// Stores the answer to a request for the group of a slot: the values of the term `name`.
    pub fn put_reward_answer(
        &self,
        (step, index): (u64, u32),
        request: &[u8; 32],
        name: &str,
        values: &[f64],
    ) -> Result<(), Error> {
        let bytes = json(&(name, values));
        self.database.write(|transaction| {
            let mut answers = transaction.open_table(REWARD_ANSWERS)?;
            answers.insert((step, index, request.as_slice()), bytes.as_slice())?;
            Ok(())
        })
    }

    /// Returns the stored answer to a request for the group of a slot.
    pub fn reward_answer(
        &self,
        (step, index): (u64, u32),
        request: &[u8; 32],
        name: &str,
    ) -> Result<Option<Vec<f64>>, Error> {
        let bytes = self.database.read(|transaction| {
            let answers = transaction.open_table(REWARD_ANSWERS)?;
            Ok(answers.get((step, index, request.as_slice()))?.map(|value| value.value().to_vec()))
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let (stored, values): (String, Vec<f64>) =
            self.read_json("an answer of an external reward", &bytes)?;
        Ok((stored == name).then_some(values))
    }
}

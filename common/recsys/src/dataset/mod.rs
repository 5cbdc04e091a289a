//! Data sets in the folder format of MLLMRec-R1: interactions, titles, captions and reasoning.
//!
//! ```text
//! <dir>/train.tsv, test.tsv          user id TAB item ids separated by spaces, oldest first; the last is the target
//! <dir>/validation.tsv               the same; may be absent: see [`Validation`]
//! <dir>/<name>_titles.csv            header; item id, title
//! <dir>/<name>_captions.json         {"<item id>": {"title": …, "caption": …}}; may be absent
//! <dir>/<name>_reasoning.json        [{"line_idx": n, "user_id": …, "reasoning": …}]; may be absent
//! <dir>/<name>_deepseek_cot.json     the same, with the file name of the released code
//! <dir>/<name>_negatives.tsv         user id TAB item ids: for `candidates.negatives = "supplied"`; may be absent
//! ```
//!
//! Lines may end in CRLF and files may start with a byte order mark. A row that cannot be read is rejected or skipped,
//! as configured in [`Options::bad_rows`]. Reasoning is keyed by user, and only that of training users is loaded: no
//! text about a user of the validation or test part can reach a prompt.

mod catalogue;
pub mod delimited;
mod interactions;
mod reasoning;
mod rows;
mod split;
mod texts;
mod user;
pub mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use catalogue::{Catalogue, Item};
pub use rows::{BadRows, Error, Location, Problem, Report, RowPolicy};
pub use split::{HeldOut, Split, Validation, ValidationSource};
pub use user::User;

use split::{Parts, only_trained};

use crate::ids::{ItemId, UserId};

/// Location and reading of the data set: `[data]` of the run file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Options {
    /// Folder of the data set. Without it the embedded data set is generated from `[world]` into the output folder.
    pub dir: Option<PathBuf>,
    /// Prefix of the files in the folder. Without it: the name of the folder.
    pub name: Option<String>,
    /// Minimum number of interactions of a user; users with fewer are excluded. At least 2.
    pub min_interactions: usize,
    /// Maximum number of history items in a prompt, the newest before the target. Without it: `min_interactions − 1`,
    /// which gives all prompts the same number.
    pub max_history: Option<usize>,
    /// Target items of training.
    pub training_targets: TrainingTargets,
    /// Handling of rows that cannot be read.
    pub bad_rows: RowPolicy,
    /// Separation of training and held-out data.
    pub split: Split,
    /// Origin of the validation users.
    pub validation: Validation,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            dir: None,
            name: None,
            min_interactions: 10,
            max_history: None,
            training_targets: TrainingTargets::Last,
            bad_rows: RowPolicy::Refuse,
            split: Split::Users,
            validation: Validation::Auto,
        }
    }
}

/// Items of a training user that are targets. Held-out users always have their last item as the only target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TrainingTargets {
    /// The last item: one training case per user.
    Last,
    /// Every item except the first, in a random order per epoch: a user with `n` items has `n − 1` training cases.
    /// Users with more data contribute more cases. Reasoning is about the last item and is shown only with that one.
    Every,
}

/// A catalogue and the users of its three parts.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Prefix of the files in the folder.
    pub name: String,
    /// The items.
    pub catalogue: Catalogue,
    /// Users to train on, in file order.
    pub train: Vec<User>,
    /// Users by which a run chooses its best version and when to end, in file order.
    pub validation: Vec<User>,
    /// Where the validation users come from.
    pub validation_source: ValidationSource,
    /// Users whose results are quoted, in file order. No choice of a run depends on their targets.
    pub test: Vec<User>,
    /// Reasoning to imitate, for training users only.
    pub reasoning: BTreeMap<UserId, String>,
    /// Supplied negatives by user, outside the user's history.
    pub negatives: BTreeMap<UserId, Vec<ItemId>>,
    /// Minimum number of items of a user, including the target.
    pub min_interactions: usize,
    /// Maximum number of history items in a prompt.
    pub max_history: usize,
    /// Target items of training.
    pub training_targets: TrainingTargets,
    /// Rows and users excluded while reading.
    pub report: Report,
}

impl Dataset {
    /// Reads the folder `dir`.
    pub fn load(dir: &Path, options: &Options) -> Result<Self, Error> {
        if options.min_interactions < 2 {
            return Err(Error::MinInteractions(options.min_interactions));
        }
        if options.max_history == Some(0) {
            return Err(Error::NoHistory);
        }
        let name = match &options.name {
            Some(name) => name.clone(),
            None => dir
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .ok_or_else(|| Error::Nameless(dir.to_path_buf()))?,
        };
        let mut report = Report::default();
        let policy = options.bad_rows;

        let mut catalogue = texts::titles(&dir.join(format!("{name}_titles.csv")), policy, &mut report)?;
        let captions = dir.join(format!("{name}_captions.json"));
        if captions.exists() {
            texts::captions(&captions, &mut catalogue, policy, &mut report)?;
        }
        report.items_without_caption = catalogue.items().iter().filter(|item| item.caption.is_none()).count();

        let files =
            interactions::Files { catalogue: &catalogue, min_interactions: options.min_interactions, policy };
        let parts = parts(dir, &files, options, &mut report)?;
        let may_reason = only_trained(&parts.train, [&parts.validation, &parts.test]);
        let reasoning = [format!("{name}_reasoning.json"), format!("{name}_deepseek_cot.json")]
            .map(|file| dir.join(file))
            .into_iter()
            .find(|file| file.exists())
            .map(|file| reasoning::read(&file, &may_reason, policy, &mut report))
            .transpose()?
            .unwrap_or_default();

        let negatives = dir.join(format!("{name}_negatives.tsv"));
        let negatives = if negatives.exists() {
            let users = parts.train.iter().chain(&parts.validation).chain(&parts.test);
            files.negatives(&negatives, users, &mut report)?
        } else {
            BTreeMap::new()
        };
        let Parts { train, validation, test, source } = parts;
        catalogue.count_interactions(&train);
        let min_interactions = options.min_interactions;
        Ok(Self {
            name,
            catalogue,
            train,
            validation,
            validation_source: source,
            test,
            reasoning,
            negatives,
            min_interactions,
            max_history: options.max_history.unwrap_or(min_interactions - 1),
            training_targets: options.training_targets,
            report,
        })
    }

    /// Reads the reasoning of training users from `file` and reports excluded rows. Reasoning of held-out users is
    /// counted and not read.
    pub fn read_reasoning(
        &self,
        file: &Path,
        policy: RowPolicy,
    ) -> Result<(BTreeMap<UserId, String>, Report), Error> {
        let mut report = Report::default();
        let users = self.only_trained();
        Ok((reasoning::read(file, &users, policy, &mut report)?, report))
    }

    /// Returns the users of a held-out part, in file order.
    pub fn held_out(&self, part: HeldOut) -> &[User] {
        match part {
            HeldOut::Validation => &self.validation,
            HeldOut::Test => &self.test,
        }
    }

    /// Returns the training users who are in no held-out part: reasoning may be about them.
    pub fn only_trained(&self) -> BTreeSet<UserId> {
        only_trained(&self.train, [&self.validation, &self.test])
    }

    /// The items that a prompt shows of `user` before their last one, oldest first.
    pub fn history<'a>(&self, user: &'a User) -> &'a [ItemId] {
        user.history(self.max_history)
    }
}

/// Reads the users of the three parts and checks their separation.
fn parts(
    dir: &Path,
    files: &interactions::Files<'_>,
    options: &Options,
    report: &mut Report,
) -> Result<Parts, Error> {
    let (train, train_short) = files.users(&dir.join("train.tsv"), report)?;
    let file = dir.join("validation.tsv");
    let is_read = match options.validation {
        Validation::Auto => file.exists(),
        Validation::File if !file.exists() => return Err(Error::NoValidation(file)),
        Validation::File => true,
        Validation::None => false,
    };
    let (validation, validation_short) = if is_read { files.users(&file, report)? } else { (Vec::new(), 0) };
    let (test, test_short) = files.users(&dir.join("test.tsv"), report)?;
    let source = if is_read { ValidationSource::File } else { ValidationSource::Nowhere };
    let mut parts = Parts { train, validation, test, source };
    parts.check(options.split)?;
    report.train_users_too_short = train_short;
    report.validation_users_too_short = validation_short;
    report.test_users_too_short = test_short;
    if options.validation == Validation::Auto && !is_read {
        report.train_users_too_short += parts.take_validation(options.split, options.min_interactions)?;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_the_newest_items_before_the_target() {
        let user = User { id: UserId(1), items: [1, 2, 3, 4].map(ItemId).into() };
        assert_eq!(user.target(), ItemId(4));
        assert_eq!(user.history(2), [ItemId(2), ItemId(3)]);
        assert_eq!(user.history(9), [ItemId(1), ItemId(2), ItemId(3)]);
    }
}

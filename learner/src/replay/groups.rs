//! Recorded groups: reads them, checks them row by row, and assigns them to steps.

use std::path::{Path, PathBuf};

use podium_files::json_lines;
use podium_grpo::group::Allowed;
use podium_grpo::options::Aggregation;
use podium_grpo::plan::{self, ItemError};
use podium_grpo::recorded::{RecordedCompletion, RecordedGroup};
use podium_grpo::{Completion, Group, GroupId, Options, Step};
use podium_model::{Config, GroupTokens, Packed, packed};
use podium_tokenizer::Tokenizer;

use crate::batch::Share;

const EXPECTED: &str = "an object with prompt_ids and completions, each with ids and reward";

/// The reasons why recorded groups cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rows cannot be read.
    #[error(transparent)]
    Rows(#[from] json_lines::Error),
    /// The file has fewer groups than one step.
    #[error("{} holds {found} groups: expected at least {expected}, the groups of one step", path.display())]
    TooFew {
        /// The file.
        path: PathBuf,
        /// Number of groups.
        found: usize,
        /// Groups per step.
        expected: usize,
    },
    /// A row is invalid.
    #[error("{place}: {field} {found}: expected {expected}")]
    Row {
        /// File and line.
        place: String,
        /// The field.
        field: &'static str,
        /// The error.
        found: String,
        /// The expected value.
        expected: &'static str,
    },
    /// A group's size differs from the settings.
    #[error(
        "{place}: a group of {found} completions: expected {expected}, as rollout.group_size (grpo.num_generations) \
         is set; remove the setting, or correct it"
    )]
    GroupSize {
        /// File and line.
        place: String,
        /// Number of completions.
        found: usize,
        /// The setting.
        expected: usize,
    },
    /// A completion's listed items do not fit its tokens.
    #[error("{place}: {source}")]
    Items {
        /// File and line.
        place: String,
        /// The cause.
        source: ItemError,
    },
    /// A row does not fit the policy.
    #[error("{place} does not fit the model")]
    Policy {
        /// File and line.
        place: String,
        /// The cause.
        source: packed::Error,
    },
    /// The file and the tokenizer do not identify truncated completions.
    #[error(
        "{place}: a completion has no finish_reason: grpo.mask_truncated_completions needs it, or a model folder whose \
         tokenizer defines the end-of-turn tokens"
    )]
    Ends {
        /// File and line.
        place: String,
        /// The tokenizer's error.
        source: podium_tokenizer::Error,
    },
}

/// Assignment of rows to steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Groups per step.
    pub(super) per_step: usize,
    /// Completions per group, if the settings define it.
    pub(super) group_size: Option<usize>,
}

/// Groups in the order of their steps.
#[derive(Debug)]
pub(super) struct Recording {
    groups: Vec<Group>,
    reward_weights: Vec<Vec<f64>>,
    lines: Vec<usize>,
    path: PathBuf,
    per_step: usize,
}

impl Recording {
    /// Reads a file whose rows form steps of this shape; rows that do not fill a step are dropped.
    pub(super) fn read(path: &Path, shape: Shape, model: &Path, options: &Options) -> Result<Self, Error> {
        let mut rows: Vec<json_lines::Row<RecordedGroup>> = json_lines::read(path, EXPECTED)?;
        let (found, per_step) = (rows.len(), shape.per_step.max(1));
        if found < per_step {
            return Err(Error::TooFew { path: path.to_owned(), found, expected: per_step });
        }
        let first = rows[0].value.clone();
        if let (count, Some(expected)) = (first.completions.len(), shape.group_size)
            && count != expected
        {
            let place = place(path, rows[0].line);
            return Err(Error::GroupSize { place, found: count, expected });
        }
        for row in &rows {
            check(&row.value, &first, options, &place(path, row.line))?;
        }
        let kept = found - found % per_step;
        if kept < found {
            tracing::warn!(
                "the last {} groups of {} do not fill a step and are ignored",
                found - kept,
                path.display()
            );
            rows.truncate(kept);
        }
        let stops = stop_token_ids(&rows, path, model, options)?;
        let is_cut = |ids: &[u32]| {
            stops.as_ref().is_some_and(|stops| ids.last().is_some_and(|last| !stops.contains(last)))
        };
        let mut recording = Self {
            groups: Vec::new(),
            reward_weights: Vec::new(),
            lines: Vec::new(),
            path: path.to_owned(),
            per_step,
        };
        for (number, mut row) in rows.into_iter().enumerate() {
            let (step, index) = (Step((number / per_step) as u64), (number % per_step) as u32);
            recording.lines.push(row.line);
            recording.reward_weights.push(std::mem::take(&mut row.value.reward_weights));
            recording.groups.push(row.value.into_group(GroupId::first(step, index), is_cut));
        }
        Ok(recording)
    }

    /// Number of steps.
    pub(super) const fn steps(&self) -> u64 {
        (self.groups.len() / self.per_step) as u64
    }

    /// Tokens of the longest completion.
    pub(super) fn longest(&self) -> u32 {
        let completions = self.groups.iter().flat_map(|group| &group.completions);
        completions.map(Completion::len).max().unwrap_or(0).max(1) as u32
    }

    /// Checks that a model of this configuration can read every group; the error names the group.
    pub(super) fn check(&self, config: &Config) -> Result<(), Error> {
        for (group, line) in self.groups.iter().zip(&self.lines) {
            let completions = group.completions.iter().map(|one| one.token_ids.as_slice()).collect();
            let packed = Packed::new(&[GroupTokens { prompt: &group.prompt_ids, completions }]);
            let fits = packed.and_then(|packed| packed.check(config));
            fits.map_err(|source| Error::Policy { place: place(&self.path, *line), source })?;
        }
        Ok(())
    }

    /// The groups of a step, as the share of the only rank.
    pub(super) fn share(&self, step: u64) -> Share {
        let first = step as usize * self.per_step;
        let groups = self.groups[first..first + self.per_step].to_vec();
        let tokens = groups.iter().flat_map(|group| &group.completions).map(|one| one.len() as u64).sum();
        Share {
            step: Step(step),
            step_rewards: groups.iter().map(Into::into).collect(),
            reward_weights: self.reward_weights[first].clone(),
            groups,
            tokens_in_step: tokens,
        }
    }
}

fn check(row: &RecordedGroup, first: &RecordedGroup, options: &Options, place: &str) -> Result<(), Error> {
    let refuse =
        |field, found: String, expected| Err(Error::Row { place: place.to_owned(), field, found, expected });
    if row.prompt_ids.is_empty() {
        return refuse("prompt_ids", "is empty".to_owned(), "at least one token");
    }
    let count = row.completions.len();
    if count == 0 || count != first.completions.len() {
        let expected = "as many as in the first row, at least one";
        return refuse("completions", format!("has {count} entries"), expected);
    }
    let (terms, weights) = (row.reward_terms.len(), row.reward_weights.len());
    if row.reward_weights != first.reward_weights || row.reward_weights.iter().any(|w| !w.is_finite()) {
        return refuse("reward_weights", "differ".to_owned(), "finite numbers, the same in every row");
    }
    let separate = options.multi_objective_aggregation == Aggregation::NormalizeThenSum;
    if (terms > 0 || weights > 0 || separate) && (terms != weights || terms == 0) {
        let found = format!("has {weights} entries");
        return refuse(
            "reward_weights",
            found,
            "one for each of reward_terms, which normalize_then_sum needs",
        );
    }
    for completion in &row.completions {
        check_completion(completion, terms, first, options, place)?;
    }
    Ok(())
}

fn check_completion(
    completion: &RecordedCompletion,
    terms: usize,
    first: &RecordedGroup,
    options: &Options,
    place: &str,
) -> Result<(), Error> {
    let refuse =
        |field, found: String, expected| Err(Error::Row { place: place.to_owned(), field, found, expected });
    let finite = |numbers: &[f64]| numbers.iter().all(|number| number.is_finite());
    if completion.terms.len() != terms || !finite(&completion.terms) {
        let found = format!("are {:?}", completion.terms);
        return refuse("terms", found, "a finite number for each of reward_terms");
    }
    let length = completion.ids.len();
    plan::check_items(&completion.ranks, length)
        .map_err(|source| Error::Items { place: place.to_owned(), source })?;
    let names = |allowed: &Allowed| {
        let token = completion.ids.get(allowed.position as usize);
        token.is_some_and(|token| allowed.token_ids.contains(token))
    };
    let ascending = completion.allowed.windows(2).all(|pair| pair[0].position < pair[1].position);
    if !ascending || !completion.allowed.iter().all(names) {
        let expected = "ascending positions, each with a set that holds the token there";
        return refuse("allowed", "does not fit ids".to_owned(), expected);
    }
    let known = first.completions[0].logprobs.is_some();
    match &completion.logprobs {
        Some(logprobs) if known && logprobs.len() == length => {
            match logprobs.iter().find(|value| !value.is_finite() || **value > 1e-3) {
                Some(value) => refuse("logprobs", format!("hold {value}"), "finite numbers of at most 0"),
                None => Ok(()),
            }
        }
        Some(logprobs) if known => {
            refuse("logprobs", format!("has {} entries", logprobs.len()), "one for each of ids")
        }
        None if !known && !options.renews_old() => Ok(()),
        None if known => refuse("logprobs", "is missing".to_owned(), "it in every completion or in none"),
        None => refuse("logprobs", "is missing".to_owned(), "it, for grpo.importance_sampling_correction"),
        Some(_) => refuse("logprobs", "is there".to_owned(), "it in every completion or in none"),
    }
}

/// Returns the token ids that end completions, if rows do not mark truncation. `None` if the rows mark it, or if it
/// is unknown and not required.
fn stop_token_ids(
    rows: &[json_lines::Row<RecordedGroup>],
    path: &Path,
    model: &Path,
    options: &Options,
) -> Result<Option<Vec<u32>>, Error> {
    let open = |row: &&json_lines::Row<RecordedGroup>| {
        row.value.completions.iter().any(|completion| completion.finish_reason.is_none())
    };
    let Some(row) = rows.iter().find(open) else { return Ok(None) };
    match Tokenizer::load(model) {
        Ok(tokenizer) => Ok(Some(tokenizer.stop_token_ids().to_vec())),
        Err(source) if options.mask_truncated_completions => {
            Err(Error::Ends { place: place(path, row.line), source })
        }
        Err(_) => Ok(None),
    }
}

/// Returns a file and line as errors name them.
pub(super) fn place(path: &Path, line: usize) -> String {
    format!("{}:{line}", path.display())
}

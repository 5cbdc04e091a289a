//! `podium-curator mix`: writes the mixed-grained training file. Most completions contain only an answer; the
//! configured fraction also contains reasoning with high confidence.
//!
//! Prompts and completions come from [`Task`], with the template and format of rollouts and evaluation. The users with
//! reasoning are sampled with the seed and keyed by user, independent of any order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use podium_files::durable;
use podium_grpo::rng::Stream;
use podium_recsys::demonstration::{self, Ranking, demonstrate};
use podium_recsys::mixed::{self, Kind, Row};
use podium_recsys::{Task, UserId};
use podium_service::output_line;

use crate::assess::{ASSESSMENT, Assessment};
use crate::flags;
use crate::reasoning::users;
use crate::source::{self, Source};

/// Suffix of the training file.
pub(crate) const MIXED: &str = "mixed.jsonl";

/// An error of the command.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// Answers without reasoning would be malformed.
    #[error(
        "answer.require_thinking is true, so that a plain answer would be malformed: expected \
         answer.require_thinking = false, in this and every later stage"
    )]
    ThinkingRequired,
    /// Completions with reasoning would continue a closed think block.
    #[error(
        "the chat template of model.path closes the think block in the prompt, so that completions cannot reason: expected \
         --share 0, or a template (model.enable_thinking) that leaves the block to the completion"
    )]
    ThinkingIsOver,
    /// Too few users have reasoning with sufficient confidence.
    #[error(
        "a share of {share} requires reasoning of {wanted} of {users} users, and {found} have reasoning with a \
         confidence of at least {threshold}: lower --threshold or --share, or reason about more users"
    )]
    TooFew {
        /// The requested fraction.
        share: f64,
        /// Required number of users.
        wanted: usize,
        /// Number of training users.
        users: usize,
        /// Number of users with sufficient confidence.
        found: usize,
        /// The threshold.
        threshold: f64,
    },
}

/// Placement of the reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Placement {
    /// In the completion, to be imitated.
    Completion,
    /// In the prompt, as in the released code of MLLMRec-R1. THIS LEAKS; only for reproducing that code.
    Prompt,
}

/// Writes the mixed-grained training file.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::Arguments,
    /// Fraction of the training users whose reasoning is included.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = flags::share)]
    share: f64,
    /// Minimum confidence of included reasoning.
    #[arg(long, value_name = "C", default_value_t = 0.5, value_parser = flags::finite)]
    threshold: f64,
    /// Epochs to write; each contains every user once, with new candidates.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    epochs: u64,
    /// Placement of the reasoning.
    #[arg(long, value_enum, default_value_t = Placement::Completion)]
    placement: Placement,
    /// The scores. Default: the file in the data folder.
    #[arg(long, value_name = "FILE")]
    assessment: Option<PathBuf>,
    /// The output file. Default: a file in the data folder.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Arguments {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let source = self.source.load()?;
        if source.answer().require_thinking {
            return Err(Error::ThinkingRequired.into());
        }
        let reasoning = self.reasoning(&source)?;
        let reasoned = reasoning.len();
        let reasons = reasoned > 0 && self.placement == Placement::Completion;
        if reasons && closes_thinking(&source)? {
            return Err(Error::ThinkingIsOver.into());
        }
        let output = self.out.clone().unwrap_or_else(|| source.file(MIXED));
        if self.placement == Placement::Prompt {
            tracing::warn!(
                "--placement prompt puts reasoning into prompts: it leaks, and a policy trained on it cannot be evaluated with \
                 prompts that have none"
            );
        }
        let mut dataset = source.dataset.clone();
        dataset.reasoning = match self.placement {
            Placement::Completion => reasoning.clone(),
            Placement::Prompt => BTreeMap::new(),
        };
        let task = source.task(dataset)?;
        let mut bytes = Vec::new();
        let mut rows = 0;
        for epoch in 0..self.epochs {
            for index in task.training_order(epoch) {
                if let Some(row) = self.row(&task, &reasoning, index, epoch)? {
                    mixed::write(&mut bytes, &row)?;
                    rows += 1;
                }
            }
        }
        durable::write(&output, &bytes)?;
        output_line!(
            "{rows} rows of {} training users, {reasoned} of them with reasoning",
            task.dataset().train.len()
        );
        output_line!("wrote {}", output.display());
        Ok(ExitCode::SUCCESS)
    }

    /// Selects the reasoning: the required number of users, sampled from those with sufficient confidence.
    fn reasoning(&self, source: &Source) -> anyhow::Result<BTreeMap<UserId, String>> {
        let users = source.dataset.train.len();
        let wanted = (self.share * users as f64).round() as usize;
        if wanted == 0 {
            return Ok(BTreeMap::new());
        }
        let path = self.assessment.clone().unwrap_or_else(|| source.file(ASSESSMENT));
        let assessed: BTreeMap<UserId, _> = Assessment::read(&path)?
            .rows
            .into_iter()
            .filter(|row| row.score.confidence >= self.threshold)
            .map(|row| (row.user_id, row.reasoning))
            .collect();
        // Held-out users are excluded even if the file of scores contains them.
        let mut found: Vec<(u64, UserId)> = users::training(&source.dataset, None, source.seed())
            .into_iter()
            .filter(|user| assessed.contains_key(&user.id))
            .map(|user| (Stream::new(source.seed(), "curator/mix", &[user.id.0]).next_u64(), user.id))
            .collect();
        if found.len() < wanted {
            let (share, threshold, found) = (self.share, self.threshold, found.len());
            return Err(Error::TooFew { share, wanted, users, found, threshold }.into());
        }
        found.sort_unstable();
        found.truncate(wanted);
        let chosen = found.into_iter().map(|(_, user)| user);
        Ok(chosen.filter_map(|user| Some((user, assessed.get(&user)?.clone()))).collect())
    }

    fn row(
        &self,
        task: &Task,
        reasoning: &BTreeMap<UserId, String>,
        index: usize,
        epoch: u64,
    ) -> anyhow::Result<Option<Row>> {
        let options = demonstration::Options { reasoning_share: 1.0, ranking: Ranking::TargetFirst };
        let Some(demonstration) = demonstrate(task, &options, index, epoch)? else { return Ok(None) };
        let case = task.training_case(index, epoch)?;
        let mut prompt = demonstration.prompt;
        let kind = match (reasoning.get(&case.user), self.placement) {
            (None, _) => Kind::Plain,
            (Some(_), Placement::Completion) => Kind::Reasoned,
            (Some(text), Placement::Prompt) => {
                prompt.user = format!("{}\n\n<think>\n{text}\n</think>", prompt.user);
                Kind::LeakingPrompt
            }
        };
        Ok(Some(Row {
            user: case.user,
            epoch,
            kind,
            history: case.history,
            candidates: case.candidates,
            target: case.target,
            prompt,
            completion: demonstration.completion,
        }))
    }
}

/// Whether the policy's chat template closes the think block in the prompt.
fn closes_thinking(source: &Source) -> anyhow::Result<bool> {
    let task = source.rendered_task(source.dataset.clone())?;
    Ok(task.training_cases() > 0 && task.training_case(0, 0)?.thinking_start.is_closed())
}

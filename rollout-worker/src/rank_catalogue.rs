//! `podium-rollout-worker rank-catalogue`: ranks the whole catalogue for held-out users by likelihood, without a coordinator.
//!
//! An interrupted ranking continues after the finished users if all inputs are the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use podium_config::sections::{LikelihoodLength, LikelihoodReasoning};
use podium_config::{Override, RunFile};
use podium_evaluation::checksums;
use podium_grpo::rng::Stream;
use podium_grpo::{Completion, PolicyVersion, Sampling};
use podium_proto::convert::Slot;
use podium_recsys::completion::{self, Layout};
use podium_recsys::dataset;
use podium_recsys::ranking::{CatalogueAnswer, outside_history};
use podium_recsys::task::{self, Case, Task};
use podium_recsys::{Dataset, ItemId, User};
use podium_service::progress::Progress;
use podium_tokenizer::{Chat, Message, Variables};
use serde_json::{Value, json};

use crate::lease::{Choices, stream};
use crate::partial::{self, Partial};
use crate::policy_cache::PolicyFolders;
use crate::sampler::{self, Batch, CatalogueTexts, Completed, Opening, Sampler};
use crate::source::Source;

/// Ranks the whole catalogue for the held-out users of a run file by likelihood. `podium evaluate --rankings catalogue`
/// starts it.
#[derive(Debug, Args)]
pub struct Options {
    /// The run file with the data set, prompts, the policy and its evaluation: part, users, prompts per lease, reasoning and
    /// length of the likelihood.
    #[arg(long, value_name = "RUN.toml")]
    pub run_file: PathBuf,
    /// File to write one line per user to: rank and score of the target, number of candidates, and the first items. It
    /// appears complete at the end; an interrupted ranking continues.
    #[arg(long, value_name = "FILE.jsonl")]
    output: PathBuf,
    /// cpu, cuda, cuda:1, or auto for a GPU if there is one; default: the run file's `launch.rollout_device`.
    #[arg(long)]
    device: Option<String>,
    /// Sets a key of the run file: section.key=value. Can be repeated.
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<Override>,
}

/// The reasons why the catalogue cannot be ranked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A folder is not set.
    #[error("{key} is not set: expected {expected}")]
    NotSet {
        /// The key of the run file.
        key: &'static str,
        /// Its meaning.
        expected: &'static str,
    },
    /// The data set cannot be read.
    #[error(transparent)]
    Data(#[from] dataset::Error),
    /// Prompts cannot be written.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// The tokenizer cannot be read.
    #[error("cannot load the tokenizer in {}", folder.display())]
    Tokenizer {
        /// The folder.
        folder: PathBuf,
        /// The cause.
        source: podium_tokenizer::Error,
    },
    /// Loading or computing failed.
    #[error(transparent)]
    Sampler(#[from] sampler::Error),
    /// An input file cannot be read.
    #[error(transparent)]
    Checksums(#[from] checksums::Error),
    /// The output cannot be written.
    #[error(transparent)]
    Output(#[from] partial::Error),
}

/// Ranks the catalogue for all users.
pub(crate) fn run(run: &RunFile, options: &Options) -> Result<(), Error> {
    let expected = "the folder of a policy in Hugging Face layout";
    let model = run.model.path.clone().ok_or(Error::NotSet { key: "model.path", expected })?;
    let ranking = Ranking::new(run, options, &model)?;
    let identity = ranking.identity(run, options, &model)?;
    let users = ranking.users(run);
    if !users.is_empty() {
        let case = ranking.task.catalogue_case(run.evaluation.part, 0)?;
        tracing::info!("prompt of {}: {}", case.user, case.prompt.user);
    }
    let mut partial = Partial::open(&options.output, &identity, users)?;
    let mut texts = CatalogueTexts::new(ranking.entries());
    let mut progress = Progress::new("rank catalogue", users.len() as u64);
    let items = ranking.task.dataset().catalogue.len();
    let size = (run.evaluation.prompts_per_lease as usize).max(1);
    while partial.done.len() < users.len() {
        let first = partial.done.len();
        let count = size.min(users.len() - first);
        let answers = ranking.rank(run, first..first + count, &mut texts)?;
        partial.extend(answers)?;
        progress.show(partial.done.len() as u64, || format!("{items} items"));
    }
    progress.finish();
    partial.publish(&options.output)?;
    tracing::info!(
        "wrote rankings of {items} items for {} users to {}",
        users.len(),
        options.output.display()
    );
    Ok(())
}

/// The policy, and the task without candidate lists.
struct Ranking {
    sampler: Sampler,
    task: Task,
}

impl Ranking {
    fn new(run: &RunFile, options: &Options, model: &Path) -> Result<Self, Error> {
        let expected = "the folder of a data set; podium evaluate writes the embedded one";
        let folder = run.data.dir.as_deref().ok_or(Error::NotSet { key: "data.dir", expected })?;
        let dataset = Dataset::load(folder, &run.data)?;
        let variables = || Variables::prompt(run.model.enable_thinking, &run.model.template_variables);
        let chat = Chat::load(model, variables())
            .map_err(|source| Error::Tokenizer { folder: model.to_owned(), source })?;
        let ends = Arc::new(chat);
        let lengths = ends.clone();
        let base = options.run_file.parent().unwrap_or(Path::new(""));
        let task = Task::new(dataset, &run.task(), run.run.seed, base)?
            .ended_with(Arc::new(move |prompt| Ok(ends.generation_prompt(prompt.messages())?)))
            .measured_with(Arc::new(move |prompt| Ok(lengths.length(prompt.messages())?)));
        let device = options.device.as_ref().unwrap_or(&run.launch.rollout_device);
        let mut sampler = Sampler::new(device, &run.model, &run.rollout, variables())?;
        let version = run.lora.adapter.clone().unwrap_or_else(|| model.to_owned());
        let source = Source { version: PolicyVersion::START, content: None };
        sampler.load(source, &PolicyFolders { version, model: model.to_owned() })?;
        sampler.check_stop_tokens()?;
        Ok(Self { sampler, task })
    }

    /// Returns all inputs of the scores, by content.
    fn identity(&self, run: &RunFile, options: &Options, model: &Path) -> Result<Value, Error> {
        let base = options.run_file.parent().unwrap_or(Path::new(""));
        let template = run.prompt.template_file().map(|template| checksums::file(&base.join(template)));
        let data = run.data.dir.as_deref().unwrap_or(Path::new(""));
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "run": run.hash(),
            "model": checksums::policy(model)?,
            "adapter": run.lora.adapter.as_deref().map(checksums::policy).transpose()?,
            "data": checksums::data(data, &self.task.dataset().name)?,
            "template": template.transpose()?,
            "device": self.sampler.device_name(),
        }))
    }

    /// Returns the evaluated users, in file order.
    fn users(&self, run: &RunFile) -> &[User] {
        let all = self.task.dataset().held_out(run.evaluation.part);
        match run.evaluation.users as usize {
            0 => all,
            users => &all[..users.min(all.len())],
        }
    }

    /// Returns the text of each item as an answer lists it, in the order of the catalogue.
    fn entries(&self) -> Vec<String> {
        let (catalogue, layout) = (&self.task.dataset().catalogue, self.task.answer().layout);
        catalogue.items().iter().map(|item| completion::entry(item.id, catalogue, layout)).collect()
    }

    /// Ranks the catalogue for some users.
    fn rank(
        &self,
        run: &RunFile,
        users: std::ops::Range<usize>,
        texts: &mut CatalogueTexts,
    ) -> Result<Vec<CatalogueAnswer>, Error> {
        let part = run.evaluation.part;
        let cases: Vec<Case> =
            users.clone().map(|user| self.task.catalogue_case(part, user)).collect::<Result<_, _>>()?;
        let openings = self.openings(run, users.start, &cases)?;
        let per_token = run.evaluation.likelihood_length == LikelihoodLength::Mean;
        let scores = self.sampler.catalogue_logprobs(&openings, texts, per_token)?;
        let catalogue = &self.task.dataset().catalogue;
        let answer = |(user, scores): (&User, Vec<f64>)| {
            let candidates = outside_history(catalogue, user, run.candidates.evaluation_seed);
            let score =
                |item: &ItemId| catalogue.position(*item).map_or(f64::NAN, |position| scores[position]);
            let scores: Vec<f64> = candidates.iter().map(score).collect();
            CatalogueAnswer::of(user.id, user.target(), &candidates, &scores)
        };
        Ok(self.users(run)[users].iter().zip(scores).map(answer).collect())
    }

    /// Returns the prompts of cases with their reasoning. `first`: index of the first user.
    fn openings(&self, run: &RunFile, first: usize, cases: &[Case]) -> Result<Vec<Opening>, Error> {
        let what = |case: &Case| case.user.to_string();
        let mut prompts = Vec::with_capacity(cases.len());
        for case in cases {
            let message = |(role, content): (&str, &str)| Message::new(role, content);
            let messages: Vec<Message> = case.prompt.messages().map(message).collect();
            prompts.push(self.sampler.prompt(&messages, || what(case))?.ids);
        }
        let completions = match run.evaluation.likelihood_reasoning {
            LikelihoodReasoning::None => vec![None; cases.len()],
            LikelihoodReasoning::Sampled => {
                self.completions(run, first, &prompts)?.into_iter().map(Some).collect()
            }
        };
        let opening = |((case, prompt), completion): ((&Case, &Vec<u32>), &Option<Completion>)| {
            let choices = self.choices(case);
            let start = case.thinking_start;
            self.sampler.opening(&choices, (prompt.as_slice(), start), completion.as_ref(), || what(case))
        };
        Ok(cases.iter().zip(&prompts).zip(&completions).map(opening).collect::<Result<_, _>>()?)
    }

    /// Returns an answer's format, with one item: reasoning ends independently of the items that follow.
    fn choices(&self, case: &Case) -> Choices {
        let answer = self.task.answer();
        Choices {
            items: vec![completion::entry(case.target, &self.task.dataset().catalogue, Layout::Ids)],
            count: 1,
            lines: answer.layout == Layout::Titled,
            after_thinking: answer.require_thinking,
        }
    }

    /// Samples one completion of each prompt, as an evaluation does, but without the constraint of
    /// `rollout.constrain_answers`: there are no candidates to constrain an answer to.
    fn completions(
        &self,
        run: &RunFile,
        first: usize,
        prompts: &[Vec<u32>],
    ) -> Result<Vec<Completion>, Error> {
        let temperature = run.evaluation.temperature;
        let sampling = Sampling {
            temperature,
            greedy: temperature == 0.0,
            max_new_tokens: run.rollout.max_new_tokens as usize,
            ..Sampling::default()
        };
        let of_user = |index: usize| {
            let slot = Slot::Evaluation { version: PolicyVersion::START, index: index as u32 };
            vec![stream(run.run.seed, slot, 0)]
        };
        let streams: Vec<Vec<Stream>> = (first..first + prompts.len()).map(of_user).collect();
        let batch = Batch {
            prompts,
            streams: &streams,
            samples: 0..1,
            sampling: &sampling,
            answers: &[],
            ignore_stop: false,
        };
        // Always present, because no caller stops the sampling.
        let Completed { groups, .. } = self.sampler.complete(&batch, &|| false)?.unwrap_or_default();
        Ok(groups.into_iter().flatten().collect())
    }
}

//! `podium-rollout-worker rank-catalogue`: ranks the whole catalogue for held-out users by likelihood, without a coordinator.
//!
//! Finished users are stored in `<output>.partial`, so that an interrupted ranking continues. Its first line identifies
//! the run file, the policy and the device.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use podium_config::sections::{LikelihoodLength, LikelihoodReasoning};
use podium_config::{Override, RunFile};
use podium_files::durable;
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
    /// A file of finished users cannot be read or extended.
    #[error("cannot read or extend {}", path.display())]
    Partial {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] durable::Error),
}

/// Ranks the catalogue for all users.
pub(crate) fn run(run: &RunFile, options: &Options) -> Result<(), Error> {
    let expected = "the folder of a policy in Hugging Face layout";
    let model = run.model.path.clone().ok_or(Error::NotSet { key: "model.path", expected })?;
    let ranking = Ranking::new(run, options, &model)?;
    let identity = json!({
        "run": run.hash(),
        "model": model,
        "adapter": run.lora.adapter,
        "device": ranking.sampler.device_name(),
    });
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

/// The finished users of an output that is not complete.
struct Partial {
    path: PathBuf,
    file: File,
    done: Vec<CatalogueAnswer>,
}

impl Partial {
    /// Opens the finished users of `output`; users of another identity are dropped.
    fn open(output: &Path, identity: &Value, users: &[User]) -> Result<Self, Error> {
        if let Some(parent) = output.parent() {
            durable::create_folder(parent)?;
        }
        let mut name = output.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let failed = |source| Error::Partial { path: path.clone(), source };
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.map_err(failed)?,
        };
        let done = finished(&text, identity, users);
        // An incomplete last line is removed.
        durable::write(&path, [format!("{identity}\n"), lines(&done)].concat().as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        Ok(Self { path, file, done })
    }

    fn extend(&mut self, answers: Vec<CatalogueAnswer>) -> Result<(), Error> {
        let written = self.file.write_all(lines(&answers).as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|source| Error::Partial { path: self.path.clone(), source })?;
        self.done.extend(answers);
        Ok(())
    }

    /// Writes the output, and removes this file.
    fn publish(self, output: &Path) -> Result<(), Error> {
        durable::write(output, lines(&self.done).as_bytes())?;
        std::fs::remove_file(&self.path).map_err(|source| Error::Partial { path: self.path, source })
    }
}

/// Returns the answers to the first users in `text`, which begins with the line of its identity.
fn finished(text: &str, identity: &Value, users: &[User]) -> Vec<CatalogueAnswer> {
    let mut lines = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    if lines.next() != Some(identity.to_string().as_str()) {
        return Vec::new();
    }
    let answers = lines.map_while(|line| serde_json::from_str::<CatalogueAnswer>(line).ok());
    let same =
        |(answer, user): &(CatalogueAnswer, &User)| answer.user == user.id && answer.target == user.target();
    answers.zip(users).take_while(same).map(|(answer, _)| answer).collect()
}

fn lines(answers: &[CatalogueAnswer]) -> String {
    answers.iter().map(|answer| json!(answer).to_string() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use podium_recsys::UserId;

    use super::*;

    fn user(id: u64) -> User {
        User { id: UserId(id), items: [1, id + 2].map(ItemId).into() }
    }

    fn answer(user: &User) -> CatalogueAnswer {
        CatalogueAnswer::of(user.id, user.target(), &[user.target(), ItemId(0)], &[-1.0, -0.5])
    }

    #[test]
    fn finished_users_are_reused_up_to_an_incomplete_line() {
        let users = [0, 1, 2].map(user);
        let identity = json!({"run": "a"});
        let complete = format!("{identity}\n{}", lines(&users[..2].iter().map(answer).collect::<Vec<_>>()));
        let cut = format!("{complete}{{\"user\": 2");
        assert_eq!(finished(&cut, &identity, &users), [answer(&users[0]), answer(&users[1])]);
        assert_eq!(finished(&cut, &json!({"run": "b"}), &users), [], "another run");
        assert_eq!(finished(&complete, &identity, &[users[0].clone(), user(7)]).len(), 1, "other users");
        assert_eq!(finished("", &identity, &users), []);
    }

    #[test]
    fn an_output_appears_complete() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("answers/0.jsonl");
        let (users, identity) = ([0, 1].map(user), json!({}));
        for user in &users {
            let mut partial = Partial::open(&output, &identity, &users).unwrap();
            partial.extend(vec![answer(user)]).unwrap();
            assert!(!output.exists());
        }
        let partial = Partial::open(&output, &identity, &users).unwrap();
        assert_eq!(partial.done.len(), 2);
        partial.publish(&output).unwrap();
        assert_eq!(std::fs::read_to_string(&output).unwrap().lines().count(), 2);
        assert_eq!(
            std::fs::read_dir(output.parent().unwrap()).unwrap().count(),
            1,
            "no partial file remains"
        );
    }
}

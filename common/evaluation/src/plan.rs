//! The parts of an evaluation: their settings, names and answers' files.

use std::path::{Path, PathBuf};

use podium_config::{Override, RunFile, Stage};
use podium_files::durable;
use podium_recsys::candidates::Negatives;
use podium_recsys::dataset::HeldOut;
use podium_recsys::ranking::{CatalogueAnswer, RankedAnswer};
use podium_recsys::{Dataset, ItemId, User, synthetic};
use serde_json::{Value, json};

use crate::checksums;
use crate::error::Error;
use crate::key;
use crate::lists::Lists;
use crate::names;
use crate::protocol::Protocol;
use crate::results;
use crate::trained::Trained;

/// Number of hexadecimal digits of a digest in the name of a file.
const DIGITS: usize = 16;

/// The settings of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The evaluated part of the data set.
    pub part: HeldOut,
    /// Named protocols, which determine numbers and distribution of negatives.
    pub protocols: Vec<Protocol>,
    /// Numbers of negatives, in the order of the tables.
    pub negatives: Vec<usize>,
    /// Number of candidate samples for each user.
    pub draws: u64,
    /// Number of candidate samples that are also evaluated in reverse order.
    pub reversed: u64,
    /// Whether the generated lists are evaluated.
    pub generated: bool,
    /// Whether candidates are also ranked by likelihood.
    pub likelihood: bool,
    /// Whether policies also rank the whole catalogue by likelihood.
    pub catalogue: bool,
    /// Cutoffs of the metrics.
    pub at: Vec<usize>,
}

/// The answering programs, whose content affects answers.
#[derive(Debug, Clone, Copy)]
pub struct Programs<'a> {
    /// Path of `podium-coordinator`.
    pub coordinator: &'a Path,
    /// Path of `podium-rollout-worker`.
    pub worker: &'a Path,
}

/// An evaluated policy.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Display name: the end of its path.
    pub name: String,
    /// Folder of the policy.
    pub folder: PathBuf,
    /// Its files with their checksums.
    content: Value,
    model: Option<PathBuf>,
    adapter: Option<PathBuf>,
}

/// One evaluation by the services of a run.
#[derive(Debug, Clone)]
pub struct Part {
    /// Index of the policy.
    pub policy: usize,
    /// The candidate lists.
    pub lists: Lists,
    /// Index of the candidate sample.
    pub draw: u64,
    /// Whether the candidates are listed in reverse order.
    pub reversed: bool,
    /// The run file of its services.
    pub run: RunFile,
    /// All inputs of its answers.
    key: Value,
    /// Name of its files.
    name: String,
}

/// All parts, and their common settings.
#[derive(Debug)]
pub struct Plan {
    /// The settings.
    pub asked: Asked,
    /// The evaluated policy first, then those it is compared with.
    pub policies: Vec<Policy>,
    /// The data set with the evaluated users.
    pub dataset: Dataset,
    /// Description of the data, for display.
    pub data: Value,
    /// The run file with the data set's folder.
    pub run: RunFile,
    /// One part for each policy, number of negatives, candidate sample and order, then one for each policy's ranking of the
    /// whole catalogue.
    pub parts: Vec<Part>,
    /// Trained baselines, which rank the same lists.
    pub trained: Option<Trained>,
    out: PathBuf,
}

impl Policy {
    /// Sets the paths of the policy in `folder` in `run`: a model, an adapter of the run file's model, or both.
    pub fn set_paths(folder: &Path, run: &mut RunFile) -> Result<(), Error> {
        let (is_adapter, is_model) =
            (folder.join("adapter_config.json").is_file(), folder.join("config.json").is_file());
        if !is_adapter && !is_model {
            return Err(Error::NoPolicy { path: folder.to_owned() });
        }
        run.lora.adapter = is_adapter.then(|| folder.to_owned());
        if is_model {
            run.model.path = Some(folder.to_owned());
        }
        Ok(())
    }

    /// Creates the policy in `folder`, whose paths are set in `run`.
    pub fn new(folder: &Path, run: &RunFile) -> Result<Self, Error> {
        Ok(Self {
            name: String::new(),
            folder: folder.to_owned(),
            content: content(run)?,
            model: run.model.path.clone(),
            adapter: run.lora.adapter.clone(),
        })
    }
}

/// Returns the files of model and adapter, with their checksums.
fn content(run: &RunFile) -> Result<Value, Error> {
    let files = |path: &Option<PathBuf>| path.as_deref().map(checksums::policy).transpose();
    Ok(json!({"model": files(&run.model.path)?, "adapter": files(&run.lora.adapter)?}))
}

impl Plan {
    /// Plans the evaluation of `policies` on the data set of `run`, which was read from `run_file` with `overrides`;
    /// results are written below `out`.
    pub fn new(
        (run_file, overrides): (&Path, &[Override]),
        mut run: RunFile,
        mut policies: Vec<Policy>,
        asked: Asked,
        out: &Path,
        programs: Programs<'_>,
    ) -> Result<Self, Error> {
        if run.data.dir.is_none() {
            let folder = out.join("embedded");
            let folder =
                std::path::absolute(&folder).map_err(|source| Error::Read { path: folder, source })?;
            synthetic::write_data(&run.world, &folder)?;
            run.data = synthetic::data_options(&run.world, &folder);
        }
        let folder = run.data.dir.clone().unwrap_or_default();
        let dataset = Dataset::load(&folder, &run.data)?;
        let files = json!(checksums::data(&folder, &dataset.name)?);
        let names = names::of(policies.iter().map(|policy| policy.folder.as_path()));
        for (policy, name) in policies.iter_mut().zip(names) {
            policy.name = name;
        }
        let base = run_file.parent().unwrap_or(Path::new(""));
        let template =
            run.prompt.template_file().map(|template| checksums::file(&base.join(template))).transpose()?;
        let code = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "coordinator": checksums::file(programs.coordinator)?,
            "worker": checksums::file(programs.worker)?,
        });
        let mut parts = Vec::new();
        for (index, policy) in policies.iter().enumerate() {
            for (lists, draw, reversed) in asked.parts() {
                let mut own = load(run_file, overrides, &asked, (lists, draw, reversed))?;
                own.data.clone_from(&run.data);
                own.run.stages = vec![Stage::Grpo];
                (own.model.path, own.lora.adapter) = (policy.model.clone(), policy.adapter.clone());
                let key = json!({
                    "code": code,
                    "policy": policy.content,
                    "data": files,
                    "template": template,
                    "settings": key::settings(&own, lists),
                });
                let order = if reversed { "-reversed" } else { "" };
                let kind = match lists {
                    Lists::Sampled(negatives) => format!("{negatives}-{draw}{order}"),
                    Lists::Catalogue => "catalogue".to_owned(),
                };
                let name = format!("{kind}-{}", &key::digest(&key)[..DIGITS]);
                parts.push(Part { policy: index, lists, draw, reversed, run: own, key, name });
            }
        }
        let data = json!({"name": dataset.name, "folder": folder, "files": files});
        let plan = Self { asked, policies, dataset, data, run, parts, trained: None, out: out.to_owned() };
        if plan.users().is_empty() { Err(Error::NoUsers { part: plan.asked.part }) } else { Ok(plan) }
    }

    /// Adds the trained baselines in a folder.
    pub fn with_baselines(self, folder: &Path) -> Result<Self, Error> {
        let trained = Some(Trained::open(folder, &self.dataset, self.asked.part)?);
        Ok(Self { trained, ..self })
    }

    /// Returns the evaluated users, in the order of the file.
    pub fn users(&self) -> &[User] {
        let all = self.dataset.held_out(self.asked.part);
        match self.run.evaluation.users as usize {
            0 => all,
            users => &all[..users.min(all.len())],
        }
    }

    /// Returns the key of all results: the parts and the settings of the metrics.
    pub fn key(&self) -> String {
        let names: Vec<&str> = self.parts.iter().map(|part| part.name.as_str()).collect();
        let asked = &self.asked;
        let mut inputs = json!({
            "parts": names,
            "part": asked.part,
            "policies": self.policies.iter().map(|policy| &policy.name).collect::<Vec<_>>(),
            "at": asked.at,
            "rankings": [asked.generated, asked.likelihood],
            "protocols": asked.protocols,
            "seed": self.run.candidates.evaluation_seed,
            "version": env!("CARGO_PKG_VERSION"),
        });
        if let (Some(trained), Some(inputs)) = (&self.trained, inputs.as_object_mut()) {
            inputs.insert("baselines".into(), json!(trained.manifest));
        }
        key::digest(&inputs)[..DIGITS].to_owned()
    }

    /// Returns the file with the answers of a part.
    pub fn answers(&self, part: &Part) -> PathBuf {
        self.out.join("parts").join(format!("{}.jsonl", part.name))
    }

    /// Returns the run folder of a part.
    pub fn work(&self, part: &Part) -> PathBuf {
        self.out.join("work").join(&part.name)
    }

    /// Returns the file that a part's run writes answers to.
    pub fn recorded(&self, part: &Part) -> PathBuf {
        self.work(part).join("answers").join("0.jsonl")
    }

    /// Whether a part's answers are stored.
    pub fn is_done(&self, part: &Part) -> bool {
        self.answers(part).is_file()
    }

    /// Stores the answers of a part's run, with the inputs of its name.
    pub fn keep(&self, part: &Part) -> Result<(), Error> {
        let recorded = self.recorded(part);
        let bytes = std::fs::read(&recorded).map_err(|source| Error::Read { path: recorded, source })?;
        let kept = self.answers(part);
        durable::create_folder(kept.parent().unwrap_or(Path::new("")))?;
        durable::write(&kept.with_extension("key.json"), format!("{:#}\n", part.key).as_bytes())?;
        Ok(durable::write(&kept, &bytes)?)
    }

    /// Reads the answers of a part, one per user.
    pub fn read(&self, part: &Part) -> Result<Vec<RankedAnswer>, Error> {
        let path = self.answers(part);
        let answers: Vec<RankedAnswer> = results::rows(&path)?;
        let users = self.users();
        let fits = answers.len() == users.len()
            && answers.iter().zip(users).all(|(answer, user)| {
                answer.user == user.id
                    && answer.target == user.target()
                    && Some(answer.candidates.len()) == part.lists.candidates()
            });
        if fits { Ok(answers) } else { Err(Error::Damaged { path, expected: users.len() }) }
    }

    /// Reads the rankings of the whole catalogue of a part, one per user.
    pub fn read_catalogue(&self, part: &Part) -> Result<Vec<CatalogueAnswer>, Error> {
        let path = self.answers(part);
        let answers: Vec<CatalogueAnswer> = results::rows(&path)?;
        let users = self.users();
        let is_known = |&item: &ItemId| self.dataset.catalogue.position(item).is_some();
        let fits = answers.len() == users.len()
            && answers.iter().zip(users).all(|(answer, user)| {
                answer.user == user.id
                    && answer.target == user.target()
                    && answer.is_consistent()
                    && answer.top.iter().all(is_known)
            });
        if fits { Ok(answers) } else { Err(Error::Damaged { path, expected: users.len() }) }
    }

    /// Returns the distribution of the negatives.
    pub fn drawn(&self) -> Negatives {
        if self.asked.protocols.is_empty() { self.run.candidates.negatives } else { Negatives::Uniform }
    }

    /// Returns the number of items of each ranking that metrics read.
    pub(crate) fn depth(&self) -> usize {
        self.asked.at.iter().copied().max().unwrap_or(0)
    }
}

impl Asked {
    /// Returns the lists, candidate sample and order of each part of a policy.
    fn parts(&self) -> Vec<(Lists, u64, bool)> {
        let draws = (0..self.draws).map(|draw| (draw, false));
        let draws = draws.chain((0..self.reversed.min(self.draws)).map(|draw| (draw, true)));
        let of = |&negatives: &usize| {
            draws.clone().map(move |(draw, reversed)| (Lists::Sampled(negatives), draw, reversed))
        };
        let catalogue = self.catalogue.then_some((Lists::Catalogue, 0, false));
        self.negatives.iter().flat_map(of).chain(catalogue).collect()
    }
}

impl Part {
    /// "runs/demo-0/policy/240, 99 negatives, sample 2 reversed"
    pub fn describe(&self, policies: &[Policy]) -> String {
        let order = if self.reversed { " reversed" } else { "" };
        let name = policies.get(self.policy).map_or("", |policy| policy.name.as_str());
        match self.lists {
            Lists::Sampled(_) => format!("{name}, {}, sample {}{order}", self.lists, self.draw + 1),
            Lists::Catalogue => format!("{name}, {}", self.lists),
        }
    }
}

/// Creates the checked run file of one part.
fn load(
    run_file: &Path,
    overrides: &[Override],
    asked: &Asked,
    (lists, draw, reversed): (Lists, u64, bool),
) -> Result<RunFile, Error> {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut overrides = overrides.to_vec();
    if let Some(candidates) = lists.candidates() {
        overrides.push(Override::new("candidates.count", number(candidates as u64)));
    }
    if lists != Lists::Catalogue && !asked.protocols.is_empty() {
        overrides.push(Override::new("candidates.negatives", "uniform"));
    }
    overrides.extend([
        Override::new("evaluation.part", asked.part.to_string()),
        Override::new("evaluation.draw", number(draw)),
        Override::new("evaluation.reversed", reversed),
        Override::new("evaluation.record_answers", true),
        Override::new("evaluation.likelihood", asked.likelihood || lists == Lists::Catalogue),
        Override::new("run.steps", 0),
        Override::new("run.record_groups", false),
        // No policy is trained, and the reward may be designed for another number of candidates.
        Override::new("reward.check", "warn"),
    ]);
    Ok(RunFile::load(run_file, &overrides)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_a_policy_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut run = RunFile::default();
        assert!(matches!(Policy::set_paths(folder.path(), &mut run), Err(Error::NoPolicy { .. })));
        std::fs::write(folder.path().join("adapter_config.json"), "{}").unwrap();
        Policy::set_paths(folder.path(), &mut run).unwrap();
        assert_eq!((run.model.path, run.lora.adapter), (None, Some(folder.path().to_owned())));
    }
}

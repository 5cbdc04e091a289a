//! `podium-curator baselines`: evaluates rankers without a policy on the held-out users of a data set: random, popularity
//! and item-kNN, and models that it trains.
//!
//! The candidate lists are those of a policy's evaluation with the same options, so that results are comparable.
//! Results are grouped by the number of negatives, and metrics that are always 1 are omitted.

mod arguments;
mod error;
mod report;
mod training;

use std::path::Path;
use std::process::ExitCode;

use podium_evaluation::rankers::{Asked, NamedRankings, Rankers};
use podium_evaluation::trained::{self, Trained};
use podium_files::durable;
use podium_grpo::rng::Stream;
use podium_recsys::candidates::{self, Negatives, Purpose, Sampler};
use podium_recsys::dataset::{self, Dataset};
use podium_recsys::ranking::BeyondAccuracy;
use podium_recsys::{ItemId, User};
use podium_service::{environment, notice, output, shutdown};

pub(crate) use arguments::Arguments;
use arguments::Drawn;
use error::Error;
use report::{Report, Sampled};

/// Trains models if requested, evaluates all baselines, and prints the report.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.train.is_some() || arguments.trained.is_some() {
        trained::check(arguments.part.into())?;
    }
    if arguments.train.is_some() {
        environment::prepare_alone(false, arguments.training.threads.into())?;
    }
    let dataset = load(arguments)?;
    if let Some(folder) = &arguments.train
        && !training::run(&dataset, &arguments.training, folder)?
    {
        notice!("stopped; to continue, run the same command again");
        return Ok(ExitCode::from(shutdown::STOPPED));
    }
    output!("{}", measure(arguments, &dataset)?);
    Ok(ExitCode::SUCCESS)
}

fn load(arguments: &Arguments) -> Result<Dataset, Error> {
    if arguments.at.contains(&0) {
        return Err(Error::Cut);
    }
    let options = dataset::Options {
        dir: None,
        name: arguments.name.clone(),
        min_interactions: arguments.min_interactions,
        split: arguments.split.into(),
        validation: arguments.validation.into(),
        ..dataset::Options::default()
    };
    Ok(Dataset::load(&arguments.data, &options)?)
}

/// Evaluates the baselines and writes the metrics to a file if requested.
fn measure(arguments: &Arguments, dataset: &Dataset) -> Result<Report, Error> {
    let folder: Option<&Path> = arguments.train.as_deref().or(arguments.trained.as_deref());
    let trained = folder.map(|folder| Trained::open(folder, dataset, arguments.part.into())).transpose()?;
    let depth = arguments.at.iter().copied().max().unwrap_or(0);
    let rankers = Rankers { dataset, trained: trained.as_ref(), depth };
    let asked = asked(dataset.held_out(arguments.part.into()), arguments);
    if asked.is_empty() {
        return Err(Error::NoUsers(arguments.part.into()));
    }
    let mut report = Report::new(arguments, dataset, &asked, trained.as_ref());
    let beyond = BeyondAccuracy::new(dataset);
    for &negatives in &arguments.negatives {
        report.add(Some(negatives), &beyond, &sampled(arguments, negatives, &rankers, &asked)?);
    }
    if arguments.catalogue {
        let placed = rankers.rank_catalogue(&asked, arguments.seed)?;
        report.add(None, &beyond, &Sampled::of(placed, asked.len(), dataset.catalogue.len()));
    }
    if let Some(file) = &arguments.json {
        durable::write(file, report.to_json().as_bytes())?;
    }
    Ok(report)
}

/// Returns the held-out users to evaluate, in file order.
fn asked<'a>(users: &'a [User], arguments: &Arguments) -> Vec<Asked<'a>> {
    let mut positions: Vec<usize> = (0..users.len()).collect();
    if positions.len() > arguments.users {
        Stream::new(arguments.seed, "baselines/users", &[]).shuffle(&mut positions);
        positions.truncate(arguments.users);
        positions.sort_unstable();
    }
    positions.into_iter().map(|position| (position, &users[position])).collect()
}

/// Returns the rankings of each baseline, with this many negatives.
fn sampled(
    arguments: &Arguments,
    negatives: usize,
    rankers: &Rankers<'_>,
    asked: &[Asked<'_>],
) -> Result<Vec<Sampled>, Error> {
    let options = candidates::Options {
        count: negatives + 1,
        negatives: match arguments.drawn {
            Drawn::Uniform => Negatives::Uniform,
            Drawn::Popularity => Negatives::Popularity,
            Drawn::Supplied => Negatives::Supplied,
        },
        evaluation_seed: arguments.seed,
        ..candidates::Options::default()
    };
    // Evaluation lists do not depend on a run's seed.
    let sampler = Sampler::of(&options, rankers.dataset, 0)?;
    let lists: Vec<Vec<ItemId>> = (0..arguments.draws)
        .flat_map(|draw| asked.iter().map(move |(_, user)| (draw, user)))
        .map(|(draw, user)| {
            sampler.draw(
                user,
                user.items.len() - 1,
                Purpose::Evaluation { part: arguments.part.into(), draw },
            )
        })
        .collect::<Result<_, _>>()?;
    let placed: Vec<NamedRankings> = rankers.rank(asked, &lists)?;
    Ok(Sampled::of(placed, asked.len(), options.count))
}

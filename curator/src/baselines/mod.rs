//! `podium-curator baselines`: evaluates rankers without a policy on the held-out users of a data set: random, popularity
//! and item-kNN, and models that it trains.
//!
//! The candidate lists are those of a policy's evaluation with the same options, so that results are comparable.
//! Results are grouped by the number of negatives, and metrics that are always 1 are omitted.

mod arguments;
mod error;
mod rankers;
mod report;
mod training;

use std::path::Path;
use std::process::ExitCode;

use podium_evaluation::trained::{self, Trained};
use podium_files::durable;
use podium_grpo::rng::Stream;
use podium_recsys::candidates::{self, Negatives, Purpose, Sampler};
use podium_recsys::dataset::{self, Dataset};
use podium_recsys::ranking::Draws;
use podium_recsys::{ItemId, User};
use podium_service::{environment, notice, output, shutdown};

pub(crate) use arguments::Arguments;
use arguments::Drawn;
use error::Error;
use rankers::{Asked, Rankers, Ranks};
use report::Report;

/// Number of users whose lists of the whole catalogue are in memory at once.
const CATALOGUE_USERS: usize = 256;

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
    let rankers = Rankers { dataset, trained: trained.as_ref() };
    let asked = asked(dataset.held_out(arguments.part.into()), arguments);
    if asked.is_empty() {
        return Err(Error::NoUsers(arguments.part.into()));
    }
    let mut report = Report::new(arguments, dataset, &asked, trained.as_ref());
    for &negatives in &arguments.negatives {
        report.add(Some(negatives), &sampled(arguments, negatives, &rankers, &asked)?);
    }
    if arguments.catalogue {
        report.add(None, &whole_catalogue(arguments, &rankers, &asked)?);
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

/// Returns the ranks of the targets for each baseline, with this many negatives.
fn sampled(
    arguments: &Arguments,
    negatives: usize,
    rankers: &Rankers<'_>,
    asked: &[Asked<'_>],
) -> Result<Vec<(String, Draws)>, Error> {
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
    let ranked = rankers.ranks(asked, &lists)?.into_iter().map(|(name, ranks)| {
        let draws = ranks.chunks(asked.len().max(1)).map(<[_]>::to_vec).collect();
        (name, Draws::new(options.count, draws))
    });
    Ok(ranked.collect())
}

/// Returns the ranks of the targets for each baseline among all items outside each user's whole history.
fn whole_catalogue(
    arguments: &Arguments,
    rankers: &Rankers<'_>,
    asked: &[Asked<'_>],
) -> Result<Vec<(String, Draws)>, Error> {
    let items = rankers.dataset.catalogue.items();
    let list = |(_, user): &Asked<'_>| -> Vec<ItemId> {
        let outside = |id: &ItemId| *id == user.target() || !user.items.contains(id);
        let mut list: Vec<ItemId> = items.iter().map(|item| item.id).filter(outside).collect();
        Stream::new(arguments.seed, "baselines/catalogue", &[user.id.0]).shuffle(&mut list);
        list
    };
    let mut all: Vec<Ranks> = Vec::new();
    for chunk in asked.chunks(CATALOGUE_USERS) {
        let lists: Vec<Vec<ItemId>> = chunk.iter().map(list).collect();
        for (index, (name, ranks)) in rankers.ranks(chunk, &lists)?.into_iter().enumerate() {
            match all.get_mut(index) {
                Some((_, before)) => before.extend(ranks),
                None => all.push((name, ranks)),
            }
        }
    }
    Ok(all.into_iter().map(|(name, ranks)| (name, Draws::new(items.len(), vec![ranks]))).collect())
}

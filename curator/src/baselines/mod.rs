//! `podium-curator baselines`: evaluates random, popularity and item-kNN rankers on the held-out users of a data set.
//!
//! The candidate lists are those of a policy's evaluation with the same options, so that results are comparable.
//! Results are grouped by the number of negatives, and metrics that are always 1 are omitted.

mod arguments;
mod report;

use podium_files::durable;
use podium_grpo::rng::Stream;
use podium_recsys::candidates::{self, Negatives, Purpose, Sampler};
use podium_recsys::dataset::{self, Dataset, HeldOut};
use podium_recsys::ranking::knn::Question;
use podium_recsys::ranking::{Baseline, Draws, rank_of};
use podium_recsys::{ItemId, User};

pub(crate) use arguments::Arguments;
use arguments::Drawn;
use report::Report;

/// The reasons why the baselines cannot be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The data set cannot be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// Candidates cannot be sampled.
    #[error(transparent)]
    Candidates(#[from] candidates::Error),
    /// The metrics cannot be written.
    #[error(transparent)]
    Durable(#[from] durable::Error),
    /// The part has no users.
    #[error("the data set has no {0} users: add {0}.tsv, or choose another --part")]
    NoUsers(HeldOut),
    /// A cutoff at rank 0.
    #[error("--at 0: expected ranks from 1")]
    Cut,
}

/// Evaluates the baselines and writes the metrics to a file if requested.
pub(crate) fn measure(arguments: &Arguments) -> Result<Report, Error> {
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
    let dataset = Dataset::load(&arguments.data, &options)?;
    let asked = asked(dataset.held_out(arguments.part.into()), arguments);
    if asked.is_empty() {
        return Err(Error::NoUsers(arguments.part.into()));
    }
    let mut report = Report::new(arguments, &dataset, &asked);
    for &negatives in &arguments.negatives {
        report.add(&ranks(arguments, negatives, &dataset, &asked)?);
    }
    if let Some(file) = &arguments.json {
        durable::write(file, report.to_json().as_bytes())?;
    }
    Ok(report)
}

/// Returns the held-out users to evaluate, in file order.
fn asked<'a>(users: &'a [User], arguments: &Arguments) -> Vec<&'a User> {
    let mut positions: Vec<usize> = (0..users.len()).collect();
    if positions.len() > arguments.users {
        Stream::new(arguments.seed, "baselines/users", &[]).shuffle(&mut positions);
        positions.truncate(arguments.users);
        positions.sort_unstable();
    }
    positions.into_iter().map(|position| &users[position]).collect()
}

/// Returns the ranks of the targets for each baseline, with this many negatives.
fn ranks(
    arguments: &Arguments,
    negatives: usize,
    dataset: &Dataset,
    asked: &[&User],
) -> Result<Vec<(Baseline, Draws)>, Error> {
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
    let sampler = Sampler::of(&options, dataset, 0)?;
    let lists: Vec<Vec<ItemId>> = (0..arguments.draws)
        .flat_map(|draw| asked.iter().map(move |user| (draw, user)))
        .map(|(draw, user)| {
            sampler.draw(
                user,
                user.items.len() - 1,
                Purpose::Evaluation { part: arguments.part.into(), draw },
            )
        })
        .collect::<Result<_, _>>()?;
    let questions: Vec<Question<'_>> = lists
        .iter()
        .zip(asked.iter().cycle())
        .map(|(candidates, user)| Question { history: user.history(usize::MAX), candidates })
        .collect();
    let ranked = |baseline: Baseline| {
        let rankings = baseline.rank(dataset, &questions);
        let mut ranks =
            rankings.iter().zip(asked.iter().cycle()).map(|(ranking, user)| rank_of(user.target(), ranking));
        let draws = (0..arguments.draws).map(|_| ranks.by_ref().take(asked.len()).collect()).collect();
        (baseline, Draws::new(options.count, draws))
    };
    Ok(Baseline::ALL.map(ranked).into())
}

//! `podium-curator baselines`: evaluates random, popularity and item-kNN rankers on the held-out users of a data set.
//!
//! The candidate lists are those of a policy's evaluation with the same options, so that results are comparable.
//! Results are grouped by the number of negatives, and metrics that are always 1 are omitted.

mod report;

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args, ValueEnum};
use podium_files::durable;
use podium_grpo::rng::Stream;
use podium_recsys::candidates::{self, Negatives, Purpose, Sampler};
use podium_recsys::dataset::{self, Dataset, Split};
use podium_recsys::ranking::knn::Question;
use podium_recsys::ranking::{Baseline, Draws, rank_of};
use podium_recsys::{ItemId, User};

use report::Report;

/// Arguments of the command.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder of the data set.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Prefix of the files in the folder. Default: the name of the folder.
    #[arg(long)]
    name: Option<String>,
    /// Minimum number of interactions of a user; users with fewer are excluded.
    #[arg(long, value_name = "N", default_value_t = 2)]
    min_interactions: usize,
    /// Number of negatives per target; several numbers produce several tables.
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_values_t = [9, 99], value_parser = up_to(1_000_000))]
    negatives: Vec<usize>,
    /// Distribution of negatives among the items outside the user's whole history.
    #[arg(long, value_enum, default_value = "uniform")]
    drawn: Drawn,
    /// Candidate samples per user.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    draws: u64,
    /// Cutoffs of HR, NDCG and MRR.
    #[arg(long, value_name = "K,…", value_delimiter = ',', default_values_t = [1, 3, 5, 10])]
    at: Vec<usize>,
    /// Evaluate a random sample of at most this many held-out users.
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    users: usize,
    /// Seed of candidate lists, intervals and sampled users, like `candidates.evaluation_seed` of a run file.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also write the metrics to this file, including slices.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn up_to(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(..=most)
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Drawn {
    /// All items are equally likely.
    Uniform,
    /// In proportion to 1 + an item's training interactions.
    Popularity,
    /// From the data set's negatives file.
    Supplied,
}

/// An error of the command.
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
        // Data sets split by users pass this check as well.
        split: Split::Times,
        ..dataset::Options::default()
    };
    let dataset = Dataset::load(&arguments.data, &options)?;
    let asked = asked(&dataset.test, arguments);
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
    let mut places: Vec<usize> = (0..users.len()).collect();
    if places.len() > arguments.users {
        Stream::new(arguments.seed, "baselines/users", &[]).shuffle(&mut places);
        places.truncate(arguments.users);
        places.sort_unstable();
    }
    places.into_iter().map(|place| &users[place]).collect()
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
        .map(|(draw, user)| sampler.draw(user, user.items.len() - 1, Purpose::Evaluation { draw }))
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

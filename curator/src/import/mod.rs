//! `podium-curator import`: converts public data sets and custom logs into the data folder of training.
//!
//! Rows are read one by one; detecting the encoding reads a file once more. Memory holds 24 bytes per interaction, and
//! names, titles and captions. Unusable rows are rejected or skipped, and counted with their locations. The folder is
//! created atomically, after the reader of training has accepted it.

mod arrange;
mod choices;
mod collector;
mod dates;
mod encoding;
mod encoding_choice;
mod folder;
mod formats;
mod header;
mod ids;
mod input;
mod lines;
mod literal;
mod microlens;
mod mind;
mod minionerec;
mod movielens;
mod netflix;
mod objects;
mod parquet;
mod problems;
mod recbole;
mod rows;
mod sites;
mod skipped;
mod split;
mod statistics;
mod table;
mod times;
mod unit;

pub(crate) use formats::Arguments;

use arrange::{Minimum, Rows, SameTime, arrange};
use choices::Choices;
use collector::{Collector, Text};
use folder::{Content, Target};
use rows::Error;
use split::{Kind, Plan, Wish};
use statistics::{LeftOut, MadeUpIds, Split, Statistics};

use crate::spread::Spread;

/// Imports the files of `arguments` and reports statistics.
pub(crate) fn import(arguments: &Arguments) -> Result<Statistics, Error> {
    let (format, choices) = (&arguments.format, arguments.format.choices());
    let target = Target::new(&choices.out, choices.name.as_deref())?;
    let mut collector = Collector::new(choices.reading(format.has_gaps()));
    format.read(&mut collector)?;
    let wish = wish(choices, &collector)?;
    let (users, items) = (collector.users.number(), collector.items.number());
    let minimum = Minimum { of_user: choices.min_user_interactions, of_item: choices.min_item_interactions };
    let Collector { interactions, logs, mut skipped, .. } = collector;
    let rows = Rows {
        logs: &logs,
        users: users.numbers.len(),
        items: &items.numbers,
        user_keys: &users.keys,
        item_keys: &items.keys,
    };
    let order = (choices.same_time, choices.seed);
    let sequences = arrange(interactions, rows, order, minimum, &mut skipped)?;

    let plan = Plan::new(&sequences, &users.numbers, &wish)?;
    plan.check(&sequences, &users.numbers)?;
    let mut item_interactions = vec![0; items.numbers.len()];
    for one in &sequences.interactions {
        item_interactions[one.item as usize] += 1;
    }
    let kept = |item: &usize| sequences.items[*item];
    let lengths: Vec<usize> = sequences.users.iter().map(ExactSizeIterator::len).filter(|&n| n > 0).collect();
    let count = |what: &dyn Fn(&Text) -> bool| {
        (0..items.numbers.len()).filter(kept).filter(|&item| what(&collector.texts[item])).count()
    };
    let captions_missing = count(&|text| text.caption.is_none());
    let titles_with_lost_letters = count(&|text| text.title.contains(char::REPLACEMENT_CHARACTER));
    let item_interactions: Vec<usize> =
        (0..items.numbers.len()).filter(kept).map(|item| item_interactions[item]).collect();
    let statistics = Statistics {
        name: target.name().to_owned(),
        format: format.name(),
        sources: collector.sources,
        users: lengths.len(),
        items: item_interactions.len(),
        interactions: sequences.interactions.len(),
        items_without_interactions: item_interactions.iter().filter(|&&count| count == 0).count(),
        user_lengths: Spread::of(lengths),
        item_interactions: Spread::of(item_interactions),
        titles_missing: collector.without_title,
        titles_with_lost_letters,
        titles_cut: collector.titles_cut,
        texts_with_entities: collector.texts_with_entities,
        entities_decoded: choices.decode_entities,
        captions_missing,
        same_time: sequences.same_time,
        targets_at_same_time: statistics::targets_at_same_time(&plan, &sequences),
        same_time_order: choices.same_time,
        seed: choices.seed,
        repeated_targets: statistics::repeated_targets(&plan, &sequences),
        left_out: LeftOut {
            interactions_rated_too_low: collector.rated_too_low,
            users_too_short: sequences.users_too_short,
            items_too_rare: sequences.items_too_rare,
        },
        split: Split::of(wish.kind, collector.time_kind, &plan, &sequences),
        made_up_ids: MadeUpIds { users: users.names.is_some(), items: items.names.is_some() },
        skipped: skipped.into_rows(),
    };
    if choices.same_time == SameTime::Item && statistics.targets_at_same_time > 0 {
        tracing::warn!(
            "{} of {} targets have the same time as the item before and are ordered by item number (--same-time \
             item): rankers that know item numbers alone score above chance; use --same-time random for claims",
            statistics.targets_at_same_time,
            statistics.split.test_users
        );
    }
    let content = Content { sequences, plan, users, items, texts: collector.texts };
    target.write(content, &statistics, &wish)?;
    Ok(statistics)
}

/// Returns the requested split if the times of the files permit it.
fn wish(choices: &Choices, collector: &Collector) -> Result<Wish, Error> {
    let default = if collector.released.is_some() { Kind::Released } else { Kind::LeaveOneOut };
    let kind = choices.split.unwrap_or(default);
    if kind == Kind::Time && collector.time_kind.is_none() {
        let log = collector.logs.first().map(|log| log.input.path.clone());
        return Err(Error::NoTimes(log.unwrap_or_default()));
    }
    let time = |flag: &'static str, text: &Option<String>| {
        let parsed = text.clone().map(|text| match times::parse(&text) {
            None => Err(Error::SplitTime { flag, text }),
            Some((kind, _)) if collector.time_kind.is_some_and(|of_file| of_file != kind) => {
                Err(Error::SplitTimeKind { flag, text })
            }
            Some((_, time)) => Ok(time),
        });
        parsed.transpose()
    };
    let test_share = choices.test_share;
    let validation_share = (!choices.no_validation).then(|| choices.validation_share.unwrap_or(test_share));
    if let Some(validation) =
        validation_share.filter(|share| kind == Kind::Users && test_share + share >= 1.0)
    {
        return Err(Error::Shares { test: test_share, validation });
    }
    Ok(Wish {
        kind,
        time: time("--split-time", &choices.split_time)?,
        validation_time: time("--validation-time", &choices.validation_time)?,
        test_share,
        validation_share,
        seed: choices.seed,
        released: collector.released,
    })
}

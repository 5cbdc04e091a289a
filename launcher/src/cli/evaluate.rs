//! The flags of `podium evaluate`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use podium_recsys::dataset::HeldOut;

#[derive(Debug, Clone, Args)]
pub(crate) struct EvaluateFlags {
    /// Folder of the policy, in Hugging Face or PEFT layout
    #[arg(long, value_name = "DIR")]
    pub(crate) policy: PathBuf,
    /// Folder of a policy to compare with, user by user; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(crate) against: Vec<PathBuf>,
    /// Part of the data set: test users for results to quote, validation users for choices
    #[arg(long, value_enum, default_value = "test")]
    pub(crate) part: Part,
    /// Folder of trained baselines, which rank the same lists: podium-curator baselines --train
    #[arg(long, value_name = "DIR")]
    pub(crate) baselines: Option<PathBuf>,
    /// Protocols of the literature, which determine numbers and distribution of negatives
    #[arg(long, value_name = "PROTOCOL,…", value_delimiter = ',', value_enum, conflicts_with = "negatives")]
    pub(crate) protocol: Vec<Protocol>,
    /// Number of negatives per target; several numbers produce several tables [default: the run file's]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) negatives: Vec<u32>,
    /// Number of candidate lists per user
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) draws: u32,
    /// Number of these lists that are also evaluated in reverse order, to measure the effect of the order
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) reversed: u32,
    /// Rankings to evaluate: the generated answers, the likelihood of each candidate, and the likelihood of each item of the
    /// catalogue
    #[arg(long, value_name = "RANKING,…", value_delimiter = ',', value_enum)]
    #[arg(default_values_t = [Ranking::Generated, Ranking::Likelihood])]
    pub(crate) rankings: Vec<Ranking>,
    /// Cutoffs of the metrics [default: 1, 3, 5 and 10; with a protocol or the catalogue also 20]
    #[arg(long, value_name = "K,…", value_delimiter = ',')]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) at: Vec<u32>,
}

/// A protocol of the literature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Protocol {
    /// 20 candidates, HR@1 and the ratio of valid answers
    Llara,
    /// Nine random negatives
    #[value(name = "negatives-9")]
    Nine,
    /// 19 random negatives
    #[value(name = "negatives-19")]
    Nineteen,
    /// 49 random negatives
    #[value(name = "negatives-49")]
    FortyNine,
    /// 99 random negatives
    #[value(name = "negatives-99")]
    NinetyNine,
}

impl From<Protocol> for podium_evaluation::Protocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Llara => Self::Llara,
            Protocol::Nine => Self::Negatives(9),
            Protocol::Nineteen => Self::Negatives(19),
            Protocol::FortyNine => Self::Negatives(49),
            Protocol::NinetyNine => Self::Negatives(99),
        }
    }
}

/// A held-out part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Users by which a run chooses its best version and when to end
    Validation,
    /// Users whose targets no choice of a run depends on
    Test,
}

impl From<Part> for HeldOut {
    fn from(part: Part) -> Self {
        match part {
            Part::Validation => Self::Validation,
            Part::Test => Self::Test,
        }
    }
}

/// Kind of a policy's ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Ranking {
    /// The items that its answers list
    Generated,
    /// All candidates by the log-probability of being listed next
    Likelihood,
    /// All items outside the user's history by that log-probability, after a prompt without candidates
    Catalogue,
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn an_evaluation_has_defaults_and_lists() {
        let parse = |line: &str| match Cli::parse_from(line.split(' ')).command {
            Command::Evaluate { asked, .. } => asked,
            _ => panic!("no evaluation"),
        };
        let asked = parse("podium evaluate run.toml --policy p");
        assert_eq!((asked.draws, asked.reversed), (5, 1));
        assert!(asked.at.is_empty() && asked.protocol.is_empty());
        assert_eq!(asked.part, Part::Test, "the part that is quoted");
        assert_eq!(asked.rankings, [Ranking::Generated, Ranking::Likelihood]);
        let asked = parse(
            "podium evaluate run.toml --policy p --against a --against b --negatives 9,99 --rankings generated",
        );
        assert_eq!((asked.against.len(), asked.negatives), (2, vec![9, 99]));
        assert_eq!(asked.rankings, [Ranking::Generated]);
        let asked =
            parse("podium evaluate run.toml --policy p --protocol llara,negatives-99 --rankings catalogue");
        assert_eq!(asked.protocol, [Protocol::Llara, Protocol::NinetyNine]);
        assert_eq!(asked.rankings, [Ranking::Catalogue]);
        let refused = |more: &str| {
            let line = format!("podium evaluate run.toml --policy p {more}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{line}");
        };
        refused("--draws 0");
        refused("--protocol negatives-98");
        refused("--protocol llara --negatives 9");
    }
}

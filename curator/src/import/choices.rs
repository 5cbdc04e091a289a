//! Options of `podium-curator import` that all formats share.

use std::path::PathBuf;

use clap::Args;

use super::arrange::SameTime;
use super::collector::Reading;
use super::encoding::Encoding;
use super::encoding_choice::Choice;
use super::split::Kind;
use crate::flags;

/// Options common to all formats.
#[derive(Debug, Args)]
pub(crate) struct Choices {
    /// Output folder, which must be absent or empty. It is created atomically after all files are written and checked.
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Prefix of the files in the folder. Default: the name of the folder.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Separation of training and held-out data [default: leave-one-out; for `minionerec` the parts of the files].
    #[arg(long, value_enum)]
    pub(crate) split: Option<Kind>,
    /// For `--split time`: the split time, a number as in the file or a date; training and validation end before it.
    #[arg(long, value_name = "TIME")]
    pub(crate) split_time: Option<String>,
    /// For `--split time`: the time at which the validation part begins; training ends before it.
    #[arg(long, value_name = "TIME", conflicts_with = "no_validation")]
    pub(crate) validation_time: Option<String>,
    /// For `--split time` without a split time: the fraction of interactions at or after it. For `--split users`: the
    /// fraction of test users.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share)]
    pub(crate) test_share: f64,
    /// For `--split time` without a validation time: the fraction of interactions between it and the split time. For
    /// `--split users`: the fraction of validation users. Default: that of `--test-share`.
    #[arg(long, value_name = "SHARE", value_parser = share, conflicts_with = "no_validation")]
    pub(crate) validation_share: Option<f64>,
    /// Write no validation part: training has its users or items too. A run then takes its validation part from the
    /// training part, unless `data.validation` is "none".
    #[arg(long)]
    pub(crate) no_validation: bool,
    /// Seed of random choices: the order of interactions at the same time, and the held-out users of `--split users`.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Minimum number of interactions of a user; users with fewer are excluded. With 2, the smallest value, a user with
    /// one interaction is a bad row.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) min_user_interactions: usize,
    /// Minimum number of interactions of an item; items with fewer are excluded, repeatedly until all remaining users
    /// and items have enough. 0 retains items without interactions as candidates.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_item_interactions: usize,
    /// Minimum rating; interactions with a lower rating are ignored.
    #[arg(long, value_name = "RATING", value_parser = flags::finite)]
    pub(crate) min_rating: Option<f64>,
    /// Skip and count unusable rows instead of stopping at the first.
    #[arg(long)]
    pub(crate) skip_bad_rows: bool,
    /// Order of interactions of one user at the same time.
    #[arg(long, value_enum, default_value = "random")]
    pub(crate) same_time: SameTime,
    /// Encoding of the files: `auto` detects UTF-8, UTF-16 and legacy encodings; otherwise a name such as `utf-8`,
    /// `utf-16le`, `windows-1252` (also `latin1`) or `shift_jis`.
    #[arg(long, value_name = "NAME", default_value = "auto")]
    pub(crate) encoding: Choice,
    /// Encoding of single rows that are invalid in the file's encoding. Without it they are bad rows.
    #[arg(long, value_name = "NAME")]
    pub(crate) fallback_encoding: Option<Encoding>,
    /// Truncate longer titles to this many bytes, at a character boundary, and count them. Without it a title of more
    /// than 4,096 bytes is a bad row.
    #[arg(long, value_name = "BYTES", value_parser = longest_title)]
    pub(crate) longest_title: Option<usize>,
    /// Decode HTML entities such as `&amp;` in titles and captions.
    #[arg(long)]
    pub(crate) decode_entities: bool,
}

/// Parses the maximum length of titles in bytes, at least a few characters of any script.
fn longest_title(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|bytes| *bytes >= 16).ok_or_else(|| "expected at least 16 bytes".into())
}

impl Choices {
    /// Returns the options for reading rows of a format with or without known gaps.
    pub(crate) const fn reading(&self, has_gaps: bool) -> Reading {
        Reading {
            encoding: self.encoding,
            fallback_encoding: self.fallback_encoding,
            min_rating: self.min_rating,
            longest_title: self.longest_title,
            decode_entities: self.decode_entities,
            skip_bad_rows: self.skip_bad_rows,
            has_gaps,
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|share| *share > 0.0 && *share < 1.0)
        .ok_or_else(|| "expected a share between 0 and 1".into())
}

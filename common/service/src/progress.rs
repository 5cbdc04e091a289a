//! Progress of a command: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Interval between lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one command, shown on standard error.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: u64,
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Option<Instant>,
}

impl Progress {
    /// Starts with none of `total` steps done.
    pub fn new(what: &'static str, total: u64) -> Self {
        let style = "{prefix} {bar:32} {pos}/{len}  {msg}  {elapsed} (left: {eta})";
        let bar = std::io::stderr().is_terminal().then(|| {
            // An invalid template is a bug; a plain bar is shown instead.
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_prefix(what)
        });
        Self { what, total, bar, start: Instant::now(), last_line: None }
    }

    /// Shows that `done` steps are done; `metrics` returns metrics of the last one.
    pub fn show(&mut self, done: u64, metrics: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(metrics());
            bar.set_position(done);
        } else if done == self.total || self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let seconds = self.start.elapsed().as_secs();
            let left = seconds * self.total.saturating_sub(done) / done.max(1);
            crate::notice!(
                "{} {done}/{}  {}  {seconds} s (left: {left} s)",
                self.what,
                self.total,
                metrics()
            );
        }
    }

    /// Leaves the last state on the terminal.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

//! How far a command has come: a bar on a terminal, lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Time between lines where there is no terminal.
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
    /// Nothing of `total` steps is done yet.
    pub fn new(what: &'static str, total: u64) -> Self {
        let style = "{prefix} {bar:32} {pos}/{len}  {msg}  {elapsed} (left: {eta})";
        let bar = std::io::stderr().is_terminal().then(|| {
            // A template that cannot be read is a mistake of the program, and no reason not to show a plain bar.
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_prefix(what)
        });
        Self { what, total, bar, start: Instant::now(), last_line: None }
    }

    /// `done` steps are done; `figures` say how the last one went.
    pub fn show(&mut self, done: u64, figures: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(figures());
            bar.set_position(done);
        } else if done == self.total || self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let seconds = self.start.elapsed().as_secs();
            let left = seconds * self.total.saturating_sub(done) / done.max(1);
            crate::notice!(
                "{} {done}/{}  {}  {seconds} s (left: {left} s)",
                self.what,
                self.total,
                figures()
            );
        }
    }

    /// Leaves what was shown last on the terminal.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
        }
    }
}

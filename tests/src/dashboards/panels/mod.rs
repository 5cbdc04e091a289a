//! What the dashboards show.

mod quality;
mod throughput;
mod training;
mod workers;

use super::{Form, Panel, Query};
pub(super) use quality::QUALITY;
pub(super) use throughput::THROUGHPUT;
pub(super) use training::TRAINING;
pub(super) use workers::WORKERS;

const fn number(
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { form: Form::Number, title, unit, description, queries }
}

const fn lines(
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    queries: &'static [Query],
) -> Panel {
    Panel { form: Form::Lines, title, unit, description, queries }
}

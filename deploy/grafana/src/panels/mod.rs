//! The panels of the dashboards.

mod quality;
mod throughput;
mod training;
mod workers;

use crate::dashboard::{Form, Panel, Query};
pub(crate) use quality::QUALITY;
pub(crate) use throughput::THROUGHPUT;
pub(crate) use training::TRAINING;
pub(crate) use workers::WORKERS;

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

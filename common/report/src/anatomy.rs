//! The time of a step by activity.

use maud::{Markup, html};
use podium_evaluation::Anatomy;
use podium_evaluation::results::Results;

/// The activities in their order in a step, with a description of each.
const ACTIVITIES: [(&str, &str); 14] = [
    ("fetch", "a worker links or downloads the policy version"),
    ("load", "a worker loads it onto its device"),
    ("lease", "the coordinator assigns a lease"),
    ("sample", "a worker samples groups"),
    ("evaluate", "a worker samples held-out answers"),
    ("grade", "the coordinator checks and scores results"),
    ("store", "the coordinator stores results"),
    ("batch", "the coordinator sends a rank its groups"),
    ("update", "a rank computes the step"),
    ("save", "rank 0 writes the new policy version"),
    ("publish", "rank 0 publishes it"),
    ("checkpoint", "a rank writes a checkpoint"),
    ("commit", "the coordinator records the step before"),
    ("other", "none of these"),
];

/// Returns the section; `None` without steps that have an anatomy.
pub(crate) fn render(results: &Results) -> Option<Markup> {
    let anatomy = Anatomy::median(&results.steps)?;
    let seconds = |name: &str| match name {
        "other" => Some(anatomy.other),
        name => anatomy.activities.iter().find(|(known, _)| known == name).map(|(_, seconds)| *seconds),
    };
    let rows = ACTIVITIES.iter().filter_map(|(name, what)| Some((name, what, seconds(name)?)));
    Some(html! {
        h2 { "Anatomy of a step" }
        p.about {
            "Time in which each activity was in progress in any process, median over steps. Activities overlap. In the median \
             step, a worker samples or a rank computes for " (percent(anatomy.computing)) " of the time."
        }
        div.card {
            div.scroll {
                table {
                    tr { th { "activity" } th { "seconds" } th { "share of the step" } }
                    @for (name, what, seconds) in rows {
                        tr {
                            td { (name) " " small { (what) } }
                            td { (format!("{seconds:.3}")) }
                            td { (percent(seconds / anatomy.step)) }
                        }
                    }
                    tr { td { "step" } td { (format!("{:.3}", anatomy.step)) } td {} }
                }
            }
        }
    })
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_lists_the_activities_of_the_median_step() {
        let row = |step: f64| {
            [("step_time", step), ("time/computing", 0.75), ("time/update", 0.5), ("time/other", 0.25)]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
        };
        let mut results = Results { steps: vec![row(1.0), row(1.0), row(9.0)], ..Results::default() };
        let html = render(&results).unwrap().into_string();
        for part in
            ["for 75 % of", "a rank computes the step", "<td>0.500</td><td>50 %</td>", "<td>1.000</td>"]
        {
            assert!(html.contains(part), "{part} in {html}");
        }
        results.steps.clear();
        assert!(render(&results).is_none());
    }
}

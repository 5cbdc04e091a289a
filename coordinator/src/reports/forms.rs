//! The warning that a run starts without any well-formed completion. Such a run cannot learn, and the cause
//! is nearly always the same for all completions (a chat template, a tokenizer, a run file of another task).

use podium_recsys::completion::{Form, ThinkingStart};
use serde_json::Value;

use crate::store::Row;

/// Number of letters of the shown completion, from its beginning and from its end.
const LETTERS: (usize, usize) = (120, 60);

/// Source of the completions of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// Completions of a training step, counted from 0.
    Step(u64),
    /// Held-out answers of a policy version.
    Evaluation(u64),
}

/// Searches for the first well-formed completion of a run.
#[derive(Debug, Default)]
pub struct Forms {
    found: bool,
    warning: Option<String>,
}

impl Forms {
    /// Returns the warning while no completion of the run was well-formed.
    pub fn warning(&self) -> Option<&String> {
        self.warning.as_ref()
    }

    /// Reads the rows that were recorded before the start of the process, in order.
    pub fn restore<'a>(&mut self, records: impl Iterator<Item = (Source, &'a Row, &'a [Row])> + Clone) {
        self.found |= records.clone().any(|(_, row, _)| share(row, Form::WellFormed) > Some(0.0));
        for (source, row, samples) in records {
            self.note(source, row, samples);
        }
    }

    /// Reads a row of metrics.jsonl or evaluations.jsonl with its samples. Logs once that no completion is
    /// well-formed, and once that one is.
    pub fn note(&mut self, source: Source, row: &Row, samples: &[Row]) {
        let Some(well_formed) = share(row, Form::WellFormed).filter(|_| !self.found) else { return };
        if well_formed > 0.0 {
            self.found = true;
            if self.warning.take().is_some() {
                tracing::info!("completions are well-formed now: {:.0} % of the last", 100.0 * well_formed);
            }
        } else if self.warning.is_none() {
            self.warning = warning(source, row, samples);
            if let Some(warning) = &self.warning {
                tracing::warn!("{warning}");
            }
        }
    }
}

/// Returns the warning about a row without well-formed completions.
fn warning(source: Source, row: &Row, samples: &[Row]) -> Option<String> {
    let defects = Form::ALL.into_iter().filter(|form| !form.is_well_formed());
    let shares = defects.filter_map(|form| Some((form, share(row, form)?)));
    let (form, share) = shares.reduce(|most, next| if next.1 > most.1 { next } else { most })?;
    let what = match source {
        Source::Step(step) => format!("completion of step {}", step + 1),
        Source::Evaluation(version) => format!("answer in the evaluation of version {version}"),
    };
    let example = example(samples, form).unwrap_or_default();
    Some(format!(
        "no {what} is well-formed: {:.0} % are {form} (docs/guides/rewards.md){example}",
        100.0 * share
    ))
}

/// Returns a completion with that defect, or else any, and the state of the think block of its prompt.
fn example(samples: &[Row], form: Form) -> Option<String> {
    let mut completions = samples.iter().flat_map(|sample| {
        let completions = sample.get("completions").and_then(Value::as_array).into_iter().flatten();
        completions.map(move |completion| (sample, completion))
    });
    let first = completions.clone().next();
    let of_form = completions.find(|(_, completion)| completion["form"] == form.name());
    let (sample, completion) = of_form.or(first)?;
    let start = sample.get("thinking_start").and_then(Value::as_str);
    let prompt = match start.filter(|start| *start != ThinkingStart::Absent.name()) {
        Some(start) => format!(", after a prompt that has {start} the think block"),
        None => String::new(),
    };
    Some(format!(", for example \"{}\"{prompt}", shortened(completion["text"].as_str()?)))
}

/// Returns the beginning and the end of a text, with control characters escaped.
fn shortened(text: &str) -> String {
    let letters = text.chars().count();
    let (first, last) = LETTERS;
    if letters <= first + last {
        return text.escape_debug().to_string();
    }
    let part = |skipped, taken| text.chars().skip(skipped).take(taken).collect::<String>();
    format!("{} … {}", part(0, first).escape_debug(), part(letters - last, last).escape_debug())
}

fn share(row: &Row, form: Form) -> Option<f64> {
    let prefix = if form.is_well_formed() { "" } else { "form/" };
    row.get(&format!("completions/{prefix}{}", form.name()))?.as_f64()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(value: &Value) -> Row {
        value.as_object().unwrap().clone()
    }

    fn malformed() -> Row {
        row(&json!({
            "completions/well_formed": 0, "completions/form/no_list": 0.25, "completions/form/unopened_thinking": 0.75,
        }))
    }

    fn samples(text: &str) -> Vec<Row> {
        let completions = json!([
            {"text": "other", "form": "no_list"}, {"text": text, "form": "unopened_thinking"},
        ]);
        vec![row(&json!({"thinking_start": "absent", "completions": completions}))]
    }

    #[test]
    fn a_run_without_well_formed_answers_is_reported_once_with_defect_and_example() {
        let mut forms = Forms::default();
        forms.note(Source::Evaluation(0), &malformed(), &samples("so\n\u{1b}[1m</think> [ITEM_1]"));
        let warning = forms.warning().unwrap().clone();
        assert_eq!(
            warning,
            "no answer in the evaluation of version 0 is well-formed: 75 % are unopened_thinking (docs/guides/rewards.md), for \
             example \"so\\n\\u{1b}[1m</think> [ITEM_1]\""
        );
        forms.note(Source::Step(0), &malformed(), &samples("another"));
        assert_eq!(forms.warning(), Some(&warning), "the same words while it lasts");
        forms.note(Source::Step(1), &row(&json!({"completions/well_formed": 0.5})), &[]);
        assert_eq!(forms.warning(), None);
        forms.note(Source::Step(2), &malformed(), &samples("later"));
        assert_eq!(forms.warning(), None, "only the start of a run is looked at");
    }

    #[test]
    fn long_completions_are_shortened_and_prompts_are_described() {
        let mut forms = Forms::default();
        let mut samples = samples(&format!("{}{}", "é\n".repeat(200), "end"));
        samples[0].insert("thinking_start".into(), "opened".into());
        forms.note(Source::Step(0), &malformed(), &samples);
        let warning = forms.warning().unwrap();
        assert!(warning.starts_with("no completion of step 1 is well-formed"), "{warning}");
        assert!(warning.ends_with("end\", after a prompt that has opened the think block"), "{warning}");
        assert!(
            warning.contains(" … ") && warning.chars().count() < 600 && !warning.contains('\n'),
            "{warning}"
        );
    }

    #[test]
    fn a_restart_restores_earlier_findings() {
        let (bad, good) = (malformed(), row(&json!({"completions/well_formed": 0.25})));
        let mut forms = Forms::default();
        forms.restore([(Source::Step(0), &bad, &[][..]), (Source::Step(1), &good, &[][..])].into_iter());
        assert_eq!(forms.warning(), None);
        let mut forms = Forms::default();
        forms.restore([(Source::Step(0), &bad, &[][..]), (Source::Step(1), &bad, &[][..])].into_iter());
        assert!(forms.warning().unwrap().contains("step 1 is"));
        forms.note(Source::Step(2), &row(&json!({"num_tokens": 3})), &[]);
        assert!(forms.warning().is_some(), "a row without completions says nothing");
    }
}

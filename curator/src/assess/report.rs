//! The distribution of scores, for the choice of a threshold.

use std::fmt::Write as _;

use super::row::Row;

/// Formats quantiles of the three scores, and the number of rows that reach each threshold.
pub(super) fn distribution(rows: &[Row]) -> String {
    let mut text = String::new();
    if rows.is_empty() {
        return text;
    }
    let columns: [(&str, Vec<f64>); 3] = [
        ("confidence", rows.iter().map(|row| row.score.confidence).collect()),
        ("agreement", rows.iter().map(|row| row.score.agreement).collect()),
        ("prediction", rows.iter().map(|row| row.score.prediction).collect()),
    ];
    writeln!(text, "{:12} {:>6} {:>6} {:>6} {:>6} {:>6}", "quantile", "5 %", "25 %", "50 %", "75 %", "95 %")
        .expect("writing to a String cannot fail");
    let mut confidence = Vec::new();
    for (name, mut values) in columns {
        values.sort_by(f64::total_cmp);
        let quantiles: Vec<String> = [5, 25, 50, 75, 95]
            .map(|percent| format!("{:6.3}", values[(values.len() - 1) * percent / 100]))
            .into();
        writeln!(text, "{name:12} {}", quantiles.join(" ")).expect("writing to a String cannot fail");
        if name == "confidence" {
            confidence = values;
        }
    }
    let reaching: Vec<String> = (1..10)
        .map(|tenth| {
            let threshold = f64::from(tenth) / 10.0;
            let below = confidence.partition_point(|&value| value < threshold);
            format!("{} of {threshold:.1}", confidence.len() - below)
        })
        .collect();
    writeln!(text, "at least      {}", reaching.join(", ")).expect("writing to a String cannot fail");
    text
}

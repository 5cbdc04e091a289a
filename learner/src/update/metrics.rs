//! The metrics of a step under TRL's names.

use std::collections::BTreeMap;

use podium_grpo::options::LossType;
use podium_grpo::step_metrics::StepMetrics;

use super::updater::Updater;

/// Metrics of a step or of one pass, under TRL's names.
pub type Metrics = BTreeMap<String, f64>;

impl Updater {
    /// Metrics of the objective under TRL's names.
    pub(super) fn metrics(&self, totals: &StepMetrics, pass: u32) -> Metrics {
        let options = &self.file.grpo;
        let mut metrics = vec![("loss", totals.loss), ("entropy", totals.entropy)];
        if self.reference.is_some() {
            metrics.push(("kl", totals.kl));
        }
        if options.entropy_coef != 0.0 {
            metrics.push(("policy_loss", totals.loss + options.entropy_coef * totals.entropy));
        }
        if options.loss_type.clips() {
            metrics.extend([
                ("clip_ratio/low_mean", totals.clipped_low),
                ("clip_ratio/low_min", totals.least_clipped_low),
                ("clip_ratio/high_mean", totals.clipped_high),
                ("clip_ratio/high_max", totals.most_clipped_high),
                ("clip_ratio/region_mean", totals.clipped_low + totals.clipped_high),
            ]);
        }
        if options.loss_type == LossType::Cispo {
            metrics.push(("cispo_clip_ratio", totals.clipped_high));
        }
        if pass == 0 && totals.largest_gap.is_finite() {
            metrics.extend([
                ("sampling/sampling_logp_difference/mean", totals.gap),
                ("sampling/sampling_logp_difference/max", totals.largest_gap),
            ]);
            if options.renews_old() {
                metrics.extend([
                    ("sampling/importance_sampling_ratio/min", totals.least_correction),
                    ("sampling/importance_sampling_ratio/mean", totals.correction),
                    ("sampling/importance_sampling_ratio/max", totals.most_correction),
                ]);
            }
        }
        // The minimum or maximum of an empty list is infinite.
        let finite = metrics.into_iter().filter(|(_, value)| value.is_finite());
        finite.map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// The metrics of a step from those of its passes: means, except the time, which is the sum.
pub fn of_step(passes: &[Metrics]) -> Metrics {
    let mut sums: BTreeMap<&String, (f64, u32)> = BTreeMap::new();
    for (name, value) in passes.iter().flatten() {
        let (sum, count) = sums.entry(name).or_default();
        *sum += value;
        *count += 1;
    }
    let mean = |(name, (sum, count)): (&String, (f64, u32))| {
        let divisor = if name == "learner_seconds" { 1 } else { count };
        (name.clone(), sum / f64::from(divisor))
    };
    sums.into_iter().map(mean).collect()
}

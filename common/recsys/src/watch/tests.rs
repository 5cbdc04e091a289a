//! Synthetic runs that must or must not trigger the watch.

use podium_grpo::rng::Stream;

use super::*;

const EVERY: u64 = 20;
const USERS: usize = 600;
/// Scatter of a step's mean reward: 48 prompts with 8 completions, as a fraction of the reward's range.
const SCATTER: f64 = 0.035;

/// A run whose reward and probability of ranking the target first are functions of the policy version.
struct Run {
    steps: Vec<Rewarded>,
    ranks: Vec<(u64, Vec<Option<usize>>)>,
}

impl Run {
    fn new(seed: u64, evaluations: u64, reward: impl Fn(f64) -> f64, hits: impl Fn(f64) -> f64) -> Self {
        let mut noise = Stream::new(seed, "test/reward", &[]);
        // The sum of twelve uniform numbers is approximately normal.
        let mut normal = || (0..12).map(|_| noise.uniform()).sum::<f64>() - 6.0;
        let steps = (0..EVERY * (evaluations - 1))
            .map(|version| Rewarded { version, reward: reward(version as f64) + SCATTER * normal() })
            .collect();
        // Users differ in difficulty, and answers vary between evaluations.
        let ranks = (0..evaluations).map(|index| {
            let version = index * EVERY;
            let answer = |user: usize| {
                let hardness = Stream::new(seed, "test/user", &[user as u64]).uniform();
                let luck = Stream::new(seed, "test/luck", &[user as u64, version]).uniform();
                (0.7 * hardness + 0.3 * luck < hits(version as f64)).then_some(1)
            };
            (version, (0..USERS).map(answer).collect())
        });
        Self { steps, ranks: ranks.collect() }
    }

    /// The watch's results at every evaluation.
    fn watch(&self, options: &Options) -> Vec<Option<Comparison>> {
        let evaluations: Vec<Evaluated<'_>> =
            self.ranks.iter().map(|(version, ranks)| Evaluated { version: *version, ranks }).collect();
        (1..=evaluations.len()).map(|count| options.compare(&evaluations[..count], &self.steps, 3)).collect()
    }

    fn warnings(&self) -> usize {
        let inflated = |one: &Option<Comparison>| one.is_some_and(|one| one.inflated);
        self.watch(&Options::default()).iter().filter(|one| inflated(one)).count()
    }
}

#[test]
fn a_reward_that_rises_alone_triggers_a_warning_once_the_window_is_full() {
    let run = Run::new(1, 6, |v| 0.5 + 0.004 * v, |_| 0.4);
    let watched = run.watch(&Options::default());
    assert!(watched[..3].iter().all(Option::is_none), "four evaluations make a window");
    for one in watched[3..].iter().flatten() {
        assert!(one.inflated, "{one:?}");
        assert!((one.reward.mean - 0.24).abs() < 0.05, "{one:?}");
        assert!(one.ranking.mean.abs() < 0.04 && (one.gap() - 0.24).abs() < 0.08, "{one:?}");
    }
    assert_eq!(watched[5].map(|one| (one.from, one.to)), Some((40, 100)));
    // A falling ranking is detected with smaller gains.
    assert!(Run::new(2, 8, |v| 0.5 + 0.0015 * v, |v| 0.4 - 0.002 * v).warnings() >= 4);
}

#[test]
fn a_ranking_that_follows_causes_no_warning() {
    for seed in 0..20 {
        let run = Run::new(seed, 8, |v| 0.2 + 0.3 * (v / 140.0).sqrt(), |v| 0.25 + 0.2 * (v / 140.0).sqrt());
        assert_eq!(run.warnings(), 0, "seed {seed}");
    }
}

#[test]
fn noise_causes_no_warning() {
    for seed in 0..60 {
        assert_eq!(Run::new(seed, 12, |_| 0.5, |_| 0.4).warnings(), 0, "seed {seed}");
    }
    // The reward fluctuates three times as much as the sampling of completions explains.
    let jumpy =
        |seed: u64| move |v: f64| 0.5 + 0.2 * (Stream::new(seed, "test/jump", &[v as u64]).uniform() - 0.5);
    for seed in 0..60 {
        assert_eq!(Run::new(seed, 12, jumpy(seed), |_| 0.4).warnings(), 0, "seed {seed}");
    }
}

#[test]
fn a_falling_or_steady_reward_is_not_inflated() {
    assert_eq!(Run::new(3, 8, |v| 0.6 - 0.002 * v, |v| 0.5 - 0.002 * v).warnings(), 0);
    assert_eq!(Run::new(4, 8, |_| 0.6, |v| 0.5 - 0.002 * v).warnings(), 0);
}

#[test]
fn few_users_cause_no_warning() {
    let mut run = Run::new(5, 6, |v| 0.5 + 0.001 * v, |_| 0.4);
    for (_, ranks) in &mut run.ranks {
        ranks.truncate(20);
    }
    assert_eq!(run.warnings(), 0);
}

#[test]
fn incomparable_evaluations_have_no_result() {
    let options = Options::default();
    let mut run = Run::new(6, 4, |v| 0.5 + 0.004 * v, |_| 0.4);
    run.ranks[1].1.pop();
    assert_eq!(run.watch(&options)[3], None, "evaluations of other users");
    let run = Run::new(6, 4, |v| 0.5 + 0.02 * v, |_| 0.4);
    let evaluations: Vec<Evaluated<'_>> =
        run.ranks.iter().map(|(version, ranks)| Evaluated { version: *version, ranks }).collect();
    assert_eq!(options.compare(&evaluations, &run.steps[..4], 3), None, "too few steps");
    assert_eq!(options.compare(&[], &run.steps, 3), None);
    let hit = Options { ranking: Ranking::Hit, window: 2, ..options };
    assert!(hit.compare(&evaluations, &run.steps, 3).unwrap().inflated);
}

#[test]
fn options_are_validated() {
    assert!(Options::default().check().is_ok());
    let refused = |options: Options, key: &str| {
        let error = options.check().unwrap_err().to_string();
        assert!(error.contains(key), "{error}");
    };
    refused(Options { window: 1, ..Options::default() }, "watch.window");
    refused(Options { min_reward_gain: -0.1, ..Options::default() }, "watch.min_reward_gain");
    refused(Options { min_ranking_share: f64::NAN, ..Options::default() }, "watch.min_ranking_share");
}

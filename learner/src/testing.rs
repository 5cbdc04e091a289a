//! Small policies, groups and shares for this crate's tests.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use podium_config::{Override, RunFile};
use podium_grpo::plan::StepSize;
use podium_grpo::{
    Completion, FinishReason, Group, GroupId, GroupRewards, Options, PolicyVersion, RankCredit, Step,
};
use podium_model::Config;

use crate::batch::Share;
use crate::collective::star::{Hello, Star};
use crate::update::Metrics;

/// Size of the vocabulary that [`group`] samples from.
pub(crate) const VOCABULARY: u32 = 17;

/// A group with completions of these lengths and rewards. Tokens and behaviour log-probabilities are synthetic and
/// differ between positions.
pub(crate) fn group(step: u64, index: u32, lengths: &[usize], rewards: &[f64]) -> Group {
    let token = |seed: usize| (seed * 7 + index as usize * 5 + step as usize * 3) as u32 % VOCABULARY;
    let completion = |(sample, length): (usize, &usize)| Completion {
        token_ids: (0..*length).map(|position| token(sample * 11 + position)).collect(),
        text: String::new(),
        text_ends: vec![0; *length],
        logprobs: (0..*length).map(|position| -2.5 - 0.05 * ((sample + position) % 9) as f32).collect(),
        sampled_logprobs: None,
        allowed: vec![],
        finish_reason: FinishReason::Stop,
    };
    Group {
        id: GroupId::first(Step(step), index),
        policy_version: PolicyVersion(step),
        prompt_ids: (0..4 + index as usize % 3).map(token).collect(),
        completions: lengths.iter().enumerate().map(completion).collect(),
        reward_terms: vec![],
        term_rewards: vec![vec![]; rewards.len()],
        rewards: rewards.iter().copied().map(Some).collect(),
        rank_credits: vec![vec![]; rewards.len()],
    }
}

/// A share that is the whole step: unused indices up to the last have no completions.
pub(crate) fn share(step: u64, groups: Vec<Group>) -> Share {
    let count = groups.last().map_or(0, |group| group.id.index as usize + 1);
    let mut step_rewards = vec![GroupRewards::default(); count];
    for group in &groups {
        step_rewards[group.id.index as usize] = group.into();
    }
    let tokens = groups.iter().flat_map(|group| &group.completions).map(Completion::len).sum::<usize>();
    Share { step: Step(step), groups, step_rewards, reward_weights: vec![], tokens_in_step: tokens as u64 }
}

/// The size of a step that consists of the share.
pub(crate) fn size(share: &Share, options: &Options) -> StepSize {
    StepSize { completions: share.completions_in_step(), tokens: share.active_tokens(options), longest: 8 }
}

/// Five groups of unequal lengths, with an empty completion, a group of equal rewards, a completion without a reward,
/// a truncated completion, and credits for some listed items.
pub(crate) fn step(number: u64) -> Share {
    let lengths = [[3, 1, 5], [2, 2, 0], [4, 4, 1], [1, 6, 2], [2, 3, 3]];
    let rewards = [[0.0, 1.0, 0.5], [1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.2, 0.1, 0.9], [0.0, 0.0, 1.0]];
    let mut groups: Vec<Group> = (0..5)
        .map(|index| group(number, index, &lengths[index as usize], &rewards[index as usize]))
        .collect();
    groups[3].rewards[1] = None;
    groups[2].completions[1].finish_reason = FinishReason::Length;
    let credit = |tokens, reward| RankCredit { tokens, reward };
    groups[0].rank_credits[0] = vec![credit(0..1, 1.0), credit(1..3, 0.0)];
    groups[0].rank_credits[2] = vec![credit(1..2, 0.5), credit(2..5, 1.0)];
    groups[2].rank_credits = vec![vec![credit(1..4, 0.0)], vec![credit(0..2, 1.0)], vec![]];
    share(number, groups)
}

/// The share of a step that one of several ranks receives.
pub(crate) fn part(whole: &Share, rank: u32, world_size: u32) -> Share {
    let own = whole.groups.iter().filter(|group| group.id.index % world_size == rank);
    Share { groups: own.cloned().collect(), ..whole.clone() }
}

/// A policy of a few thousand parameters.
pub(crate) fn config() -> Config {
    let text = format!(
        r#"{{"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": {VOCABULARY}, "hidden_size": 16,
            "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 8, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "tie_word_embeddings": true, "initializer_range": 0.2, "hidden_act": "silu"}}"#
    );
    Config::parse(&text, Path::new("config.json")).unwrap()
}

/// A run file with a high learning rate, a KL term, and these changes.
pub(crate) fn run_file(changes: &[&str]) -> RunFile {
    let base = ["learner.learning_rate=0.001", "grpo.beta=0.1"];
    let overrides: Vec<Override> = base.iter().chain(changes).map(|change| change.parse().unwrap()).collect();
    RunFile::parse("", "test", &overrides).unwrap()
}

/// Metrics without the time, which varies.
pub(crate) fn timeless(metrics: &[Metrics]) -> Vec<Metrics> {
    let mut metrics = metrics.to_vec();
    for row in &mut metrics {
        row.remove("learner_seconds").unwrap();
    }
    metrics
}

/// The hello of a rank in a test's rank group.
pub(crate) fn hello(rank: u32, world_size: u32) -> Hello {
    Hello {
        run_hash: "cafe".into(),
        generation: 1,
        rank,
        world_size,
        code_version: "1".into(),
        collective: "tcp".into(),
    }
}

/// Runs `part` on every rank of a group and returns the results in the order of ranks.
pub(crate) fn stars<T: Send>(size: u32, deadline: Duration, part: impl Fn(Star) -> T + Sync) -> Vec<T> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::scope(|scope| {
        let (part, address) = (&part, &address);
        let others: Vec<_> = (1..size)
            .map(|rank| {
                scope.spawn(move || part(Star::connect(address, &hello(rank, size), deadline).unwrap()))
            })
            .collect();
        let first = part(Star::gather(&listener, &hello(0, size), deadline).unwrap());
        std::iter::once(first).chain(others.into_iter().map(|other| other.join().unwrap())).collect()
    })
}

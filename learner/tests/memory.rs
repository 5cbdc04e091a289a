//! The formulas of `podium-memory` against the allocations of libtorch in a learner's step.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use podium_checkpoint::adapter::{AdapterConfig, Targets};
use podium_config::{Override, RunFile};
use podium_grpo::{Completion, FinishReason, Group, GroupId, GroupRewards, PolicyVersion, Step};
use podium_learner::batch::Share;
use podium_learner::collective::star::{Hello, Star};
use podium_learner::collective::tcp::Tcp;
use podium_learner::lora;
use podium_learner::update::Updater;
use podium_memory::{Learner, MicroBatch, Model, Number, Phase, peak};
use podium_model::{Config, LoadOptions, Policy, device};
use podium_torch_shim::track;
use tch::{Device, Tensor};

/// Width, feed-forward width, layers, heads, key heads, width of a head, vocabulary, family. Weights are small, so that
/// activations count.
type Shape = (i64, i64, i64, i64, i64, i64, i64, &'static str);

const GROUPS: u64 = 4;

fn config((hidden, feed_forward, layers, heads, keys, head, vocabulary, family): Shape) -> Config {
    let text = format!(
        r#"{{"model_type": "{family}", "vocab_size": {vocabulary}, "hidden_size": {hidden},
            "intermediate_size": {feed_forward}, "num_hidden_layers": {layers}, "num_attention_heads": {heads},
            "num_key_value_heads": {keys}, "head_dim": {head}, "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6, "tie_word_embeddings": true, "initializer_range": 0.02}}"#
    );
    Config::parse(&text, Path::new("config.json")).unwrap()
}

#[derive(Debug, Clone, Copy)]
struct Case {
    shape: Shape,
    number: Number,
    /// Rank of the adapter; 0 trains all weights.
    rank: u32,
    dropout: f64,
    recompute: bool,
    /// Completions of a group, tokens of a prompt, tokens of a completion.
    lengths: (u64, u64, u64),
    /// Whether a step has two micro-batches.
    several: bool,
    beta: f64,
    entropy_coef: f64,
    ranks: u32,
    zero_stage: u32,
}

fn run_file(case: &Case) -> RunFile {
    let changes = [
        format!("rollout.group_size={}", case.lengths.0),
        format!("learner.groups_per_micro_batch={}", if case.several { GROUPS / 2 } else { GROUPS }),
        format!("learner.recompute_layers={}", case.recompute),
        format!("learner.zero_stage={}", case.zero_stage),
        format!("lora.rank={}", case.rank),
        format!("lora.dropout={}", case.dropout),
        format!("grpo.beta={}", case.beta),
        format!("grpo.entropy_coef={}", case.entropy_coef),
        "learner.max_logprob_gap_nats=0".into(),
    ];
    let overrides: Vec<Override> = changes.iter().map(|change| change.parse().unwrap()).collect();
    RunFile::parse("", "test", &overrides).unwrap()
}

fn group(index: u32, (group_size, prompt_tokens, completion_tokens): (u64, u64, u64)) -> Group {
    let ids = |count: u64, seed: u64| (0..count).map(|place| ((place * 7 + seed) % 290) as u32).collect();
    let completion = |sample: u64| Completion {
        token_ids: ids(completion_tokens, sample),
        text: String::new(),
        text_ends: vec![0; completion_tokens as usize],
        logprobs: vec![-5.0; completion_tokens as usize],
        sampled_logprobs: None,
        allowed: vec![],
        finish_reason: FinishReason::Stop,
    };
    Group {
        id: GroupId::first(Step(0), index),
        policy_version: PolicyVersion(0),
        prompt_ids: ids(prompt_tokens, u64::from(index)),
        completions: (0..group_size).map(completion).collect(),
        reward_terms: vec![],
        term_rewards: vec![vec![]; group_size as usize],
        rewards: (0..group_size).map(|sample| Some(sample as f64)).collect(),
        rank_credits: vec![vec![]; group_size as usize],
    }
}

fn share(case: &Case, rank: u32) -> Share {
    let all: Vec<Group> = (0..GROUPS as u32 * case.ranks).map(|index| group(index, case.lengths)).collect();
    Share {
        step: Step(0),
        step_rewards: all.iter().map(GroupRewards::from).collect(),
        tokens_in_step: all.iter().flat_map(|group| &group.completions).map(Completion::len).sum::<usize>()
            as u64,
        groups: all.into_iter().filter(|group| group.id.index % case.ranks == rank).collect(),
        reward_weights: vec![],
    }
}

/// Peak of each rank.
fn measured(case: &Case) -> Vec<i64> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let deadline = Duration::from_secs(60);
    let hello = |rank: u32| Hello {
        run_hash: "cafe".into(),
        generation: 1,
        rank,
        world_size: case.ranks,
        code_version: "1".into(),
        collective: "tcp".into(),
    };
    std::thread::scope(|scope| {
        let (listener, address, hello) = (&listener, &address, &hello);
        let part = move |rank: u32| {
            let star = if rank == 0 {
                Star::gather(listener, &hello(0), deadline).unwrap()
            } else {
                Star::connect(address, &hello(rank), deadline).unwrap()
            };
            peak_of_step(case, rank, &mut Tcp::new(star))
        };
        let ranks: Vec<_> = (0..case.ranks).map(|rank| scope.spawn(move || part(rank))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

fn peak_of_step(case: &Case, rank: u32, collective: &mut Tcp) -> i64 {
    device::set_threads(1).unwrap();
    let (file, share) = (run_file(case), share(case, rank));
    // As on a GPU, where flash kernels compute in bfloat16 alone.
    let options = LoadOptions::new(Device::Cpu, Some(case.number == Number::Bfloat16))
        .for_training()
        .with_materialized_attention(case.number == Number::Float32);
    let policy = Policy::random(&config(case.shape), 1, options).unwrap();
    let policy = lora::prepare(policy, &file).unwrap();
    let bytes = |(_, tensor): &(String, Tensor)| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as i64;
    let adapted = if case.rank > 0 { policy.trainable() } else { &[] };
    let weights: i64 = policy.parameters().iter().chain(adapted).map(bytes).sum();
    let ((), tracked) = track(|| {
        let mut updater = Updater::new(policy, &file);
        updater.join(Step(0), None, collective).unwrap();
        updater.update(&share, collective).unwrap();
    })
    .unwrap();
    // The policy existed before.
    weights + tracked.peak
}

fn formula(case: &Case) -> [Phase; 3] {
    let (group_size, prompt_tokens, completion_tokens) = case.lengths;
    let adapter = (case.rank > 0).then(|| AdapterConfig {
        rank: i64::from(case.rank),
        alpha: 32.0,
        dropout: case.dropout,
        rslora: false,
        targets: Targets::all_linear(),
        base_model: None,
    });
    let config = config(case.shape);
    let groups = if case.several { GROUPS / 2 } else { GROUPS };
    let micro_batch = MicroBatch { groups, group_size, prompt_tokens, completion_tokens };
    let learner = Learner {
        several: case.several,
        recompute_layers: case.recompute,
        reference: case.beta > 0.0,
        entropy_gradient: case.entropy_coef > 0.0,
        ranks: u64::from(case.ranks),
        sharded: case.zero_stage == 1,
        head_rows: podium_memory::HEAD_LOGITS / config.vocab_size as u64,
        ..Learner::new(Model::new(&config, case.number, adapter.as_ref()).unwrap(), micro_batch)
    };
    learner.phases()
}

/// All combinations of methods and types for a shape.
fn methods(shape: Shape) -> Vec<Case> {
    let mut cases = Vec::new();
    for number in [Number::Float32, Number::Bfloat16] {
        for (rank, dropout) in [(0, 0.0), (4, 0.0), (4, 0.1)] {
            for recompute in [false, true] {
                cases.push(Case {
                    shape,
                    number,
                    rank,
                    dropout,
                    recompute,
                    lengths: (4, 32, 16),
                    several: true,
                    beta: 0.0,
                    entropy_coef: 0.0,
                    ranks: 1,
                    zero_stage: 0,
                });
            }
        }
    }
    cases
}

/// Asserts that the measured peaks are within a tenth of the formula, and that each of these phases is the peak of some
/// case.
fn assert_close(cases: impl IntoIterator<Item = Case>, phases: &[&str]) {
    let mut seen = Vec::new();
    for case in cases {
        let expected = peak(&formula(&case));
        // Rank 0 over TCP also holds the sum and each received part, which are on the host also for a GPU.
        let found = *measured(&case).last().unwrap();
        let ratio = found as f64 / expected.total() as f64;
        println!("{ratio:.3} of the formula in {}: {case:?}", expected.name);
        assert!((ratio - 1.0).abs() < 0.1, "{ratio:.3} of the formula, {expected:?}: {case:?}");
        seen.push(expected.name);
    }
    for phase in phases {
        assert!(seen.contains(phase), "no case has its peak in the phase {phase}: {seen:?}");
    }
}

const QWEN3: Shape = (64, 192, 3, 4, 2, 32, 500, "qwen3");
const LLAMA: Shape = (128, 256, 8, 8, 2, 16, 300, "llama");
const QWEN2: Shape = (96, 384, 2, 6, 6, 16, 2000, "qwen2");
/// Most of its memory is that of the head.
const WIDE: Shape = (64, 128, 2, 4, 2, 16, 20_000, "qwen3");

#[test]
fn micro_batches_take_the_memory_of_the_formula() {
    let shapes = [QWEN3, LLAMA, QWEN2].into_iter().flat_map(methods);
    let long = |case: Case| [case, Case { lengths: (4, 200, 8), ..case }];
    assert_close(shapes.flat_map(long), &["layers"]);
}

#[test]
fn the_head_takes_the_memory_of_the_formula() {
    let cases = methods(WIDE).into_iter().filter(|case| case.dropout == 0.0);
    // Logits of 160 and of 960 rows: one chunk, and two.
    let lengths = |case: Case| [(4, 8, 20), (4, 8, 120)].map(|lengths| Case { lengths, ..case });
    assert_close(cases.flat_map(lengths), &["head"]);
    let differentiable = methods(WIDE).into_iter().filter(|case| case.dropout == 0.0 && case.recompute);
    assert_close(
        differentiable.map(|case| Case { lengths: (4, 8, 20), entropy_coef: 0.01, ..case }),
        &["head"],
    );
}

#[test]
fn a_reference_and_one_micro_batch_take_the_memory_of_the_formula() {
    let cases = [QWEN3, LLAMA].into_iter().flat_map(methods).filter(|case| case.dropout == 0.0);
    assert_close(cases.map(|case| Case { several: false, beta: 0.1, ..case }), &["layers"]);
}

#[test]
fn steps_of_the_optimizer_take_the_memory_of_the_formula() {
    let cases = [QWEN3, QWEN2].into_iter().flat_map(methods).filter(|case| case.dropout == 0.0);
    let step = |case: Case| Case { lengths: (2, 1, 2), ..case };
    let ranks = |case: Case| {
        [(1, 0), (1, 1), (2, 0), (2, 1)].map(|(ranks, zero_stage)| Case { ranks, zero_stage, ..case })
    };
    assert_close(cases.map(step).flat_map(ranks), &["step"]);
}

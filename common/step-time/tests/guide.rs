//! The tables of docs/guides/step-time.md against the formula.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shapes;

use std::fmt::Write;
use std::path::Path;

use podium_step_time::{CARDS, Card, Device, GPUS_PER_HOST, Links, Plan, Prediction, Rate, delta_ratio};
use shapes::{QWEN3, qwen3, small};

const GPUS: [u64; 3] = [1, 8, 64];

/// A step of 512 prompts on GPUs that are workers and learner ranks in turns.
fn alternating(index: usize, adapted: bool, gpus: u64) -> Plan {
    let card = Card::named("h100").unwrap();
    Plan {
        prompts_per_step: 512,
        prompt_tokens: 600,
        completion_tokens: 128,
        workers: gpus,
        ranks: gpus,
        groups_per_micro_batch: 4,
        recompute_layers: true,
        reference: adapted,
        sharded: !adapted && gpus > 1,
        worker_hosts: if gpus > GPUS_PER_HOST { gpus / GPUS_PER_HOST } else { 0 },
        delta_ratio: delta_ratio(1e-6).filter(|_| !adapted),
        price: card.price,
        ..Plan::new(qwen3(index, adapted), card.device(), card.links(gpus))
    }
}

/// The same step in asynchronous mode, with the division of GPUs that takes the least time.
fn overlapping(index: usize, adapted: bool, gpus: u64) -> Option<Plan> {
    let divided = |ranks: u64| {
        let workers = gpus - ranks;
        Plan {
            workers,
            ranks,
            shared: false,
            max_policy_lag: 1,
            sharded: !adapted && ranks > 1,
            links: Card::named("h100").unwrap().links(ranks),
            ..alternating(index, adapted, gpus)
        }
    };
    let seconds = |plan: &Plan| plan.predict().unwrap().step_seconds;
    (1..gpus).map(divided).min_by(|one, other| seconds(one).total_cmp(&seconds(other)))
}

fn bottleneck(prediction: &Prediction) -> String {
    format!("{}: {}", prediction.bottleneck.name, prediction.bottleneck.limit)
}

fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    match digits.len() {
        0..=3 => digits,
        length => format!("{},{}", &digits[..length - 3], &digits[length - 3..]),
    }
}

fn seconds(value: f64) -> String {
    if value < 9.95 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn cells(prediction: &Prediction) -> String {
    format!(
        "{} | {} | {} | {}",
        seconds(prediction.step_seconds),
        number(prediction.tokens_per_second),
        number(prediction.cost_of_1000_steps),
        bottleneck(prediction)
    )
}

fn predictions(adapted: bool) -> String {
    let mut text =
        "| model | GPUs | mode | workers + ranks | s per step | tokens per s | USD per 1,000 steps | bottleneck |\n\
         |---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (index, (name, ..)) in QWEN3.iter().enumerate() {
        for gpus in GPUS {
            let plan = alternating(index, adapted, gpus);
            let _ = writeln!(
                text,
                "| {name} | {gpus} | synchronous | {gpus} on the same | {} |",
                cells(&plan.predict().unwrap())
            );
            if let Some(plan) = overlapping(index, adapted, gpus) {
                let _ = writeln!(
                    text,
                    "| {name} | {gpus} | asynchronous | {} + {} | {} |",
                    plan.workers,
                    plan.ranks,
                    cells(&plan.predict().unwrap())
                );
            }
        }
    }
    text
}

fn phases() -> String {
    let mut text =
        "| phase | 1 GPU | 8 GPUs | 64 GPUs | limited by, on 8 |\n|---|---|---|---|---|\n".to_owned();
    let of = |gpus| {
        let prediction = alternating(2, true, gpus).predict().unwrap();
        [prediction.sampling, prediction.training].concat()
    };
    let [one, eight, many] = GPUS.map(of);
    for phase in &eight {
        let on = |phases: &[podium_step_time::Phase]| {
            let found = phases.iter().find(|one| one.name == phase.name);
            found.map_or("–".to_owned(), |phase| format!("{:.2}", phase.seconds))
        };
        let cells = [on(&one), on(&eight), on(&many)].join(" | ");
        let _ = writeln!(text, "| {} | {cells} | {} |", phase.name, phase.limit);
    }
    text
}

fn leases() -> String {
    let mut text = "| prompts per lease | completions at once | s per step | tokens per s | bottleneck |\n\
                    |---|---|---|---|---|\n"
        .to_owned();
    for prompts in [4, 8, 16, 32, 64] {
        for merged in [false, true] {
            let plan = Plan { prompts_per_lease: prompts, merged, ..alternating(2, true, 1) };
            let prediction = plan.predict().unwrap();
            let _ = writeln!(
                text,
                "| {prompts}{} | {} | {} | {} | {} |",
                if merged { ", merged adapter" } else { "" },
                prompts * 8,
                seconds(prediction.step_seconds),
                number(prediction.tokens_per_second),
                bottleneck(&prediction)
            );
        }
    }
    text
}

fn cards() -> String {
    let mut text =
        "| GPU | TFLOP/s | memory, TB/s | to other GPUs, GB/s | USD per hour | s per step | tokens per s | \
                    USD per 1,000 steps | bottleneck |\n|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for card in CARDS {
        let plan = Plan {
            device: card.device(),
            links: card.links(8),
            price: card.price,
            ..alternating(2, true, 8)
        };
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.2} | {:.0} | {:.2} | {} |",
            card.name,
            card.flops / 1e12,
            card.bandwidth / 1e12,
            card.interconnect / 1e9,
            card.price,
            cells(&plan.predict().unwrap())
        );
    }
    text
}

/// A change of an assumption.
type Change = fn(&mut Plan, f64);

fn sensitivity() -> String {
    let changes: [(&str, f64, f64, Change); 8] = [
        ("products, share of the peak", 0.6, 0.3, |plan, factor| {
            plan.device.products.few *= factor;
            plan.device.products.many *= factor;
        }),
        ("attention, share of the peak", 0.3, 0.1, |plan, factor| plan.device.attention *= factor),
        ("rate of 32 rows by that of many", 0.25, 0.1, |plan, factor| plan.device.products.few *= factor),
        ("memory, share of the bandwidth", 0.8, 0.5, |plan, factor| plan.device.bandwidth *= factor),
        ("launch time, µs", 5.0, 2.5, |plan, factor| plan.device.launch *= factor),
        ("launch time, µs", 5.0, 10.0, |plan, factor| plan.device.launch *= factor),
        ("links between ranks, share of the bandwidth", 0.7, 0.1, |plan, factor| plan.links.ranks *= factor),
        ("files, GB/s", 1.0, 0.2, |plan, factor| plan.links.files *= factor),
    ];
    let mut text =
        "| assumption | value | instead | s per step | tokens per s | bottleneck |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for (name, value, instead, change) in changes {
        let mut plan = alternating(2, true, 8);
        change(&mut plan, instead / value);
        let prediction = plan.predict().unwrap();
        let _ = writeln!(
            text,
            "| {name} | {value} | {instead} | {} | {} | {} |",
            seconds(prediction.step_seconds),
            number(prediction.tokens_per_second),
            bottleneck(&prediction)
        );
    }
    text
}

/// A workload that was measured: its name, whether an adapter is trained, tokens of a completion, and the measured seconds
/// of the worker and of the learner.
type Measured = (&'static str, bool, u64, [f64; 2]);

const MEASURED: [Measured; 3] = [
    ("adapter", true, 64, [1.64, 4.04]),
    ("adapter, completions of 192 tokens", true, 192, [4.16, 10.37]),
    ("all weights", false, 64, [1.64, 5.12]),
];

/// The workload of docs/design/benchmarks.md for CPUs on the machine of the measurements.
fn measured(adapted: bool, completion_tokens: u64) -> Plan {
    // The best of eight runs of `podium-learner selfcheck` on this machine.
    let device = Device {
        products: Rate { few: 149e9, many: 221e9 },
        attention: 97e9,
        bandwidth: 56e9,
        launch: 1.4e-6,
        fused: true,
    };
    Plan {
        prompts_per_step: 4,
        prompt_tokens: 400,
        completion_tokens,
        prompts_per_lease: 4,
        merged: adapted,
        reference: true,
        groups_per_micro_batch: 4,
        ..Plan::new(small(adapted), device, Links::default())
    }
}

/// Durations of the first workload, against values measured while the machine had less load.
fn durations() -> String {
    let Prediction { sampling, training, step_seconds, .. } = measured(true, 64).predict().unwrap();
    let of = |names: &[&str]| {
        let phases = sampling.iter().chain(&training).filter(|phase| names.contains(&phase.name));
        phases.map(|phase| phase.seconds).sum::<f64>()
    };
    let rows = [
        ("prefill", of(&["prefill"]), 0.56),
        ("decode", of(&["decode"]), 1.46),
        ("learner", of(&["reference", "forward", "backward", "optimizer"]), 4.25),
        ("step", step_seconds, 7.12),
    ];
    let mut text = "| | predicted, s | measured, s | error |\n|---|---|---|---|\n".to_owned();
    for (name, predicted, measured) in rows {
        let error = 100.0 * (predicted / measured - 1.0);
        let _ = writeln!(text, "| {name} | {predicted:.2} | {measured:.2} | {error:+.0} % |");
    }
    text
}

fn comparison() -> String {
    let mut text =
        "| workload | process | predicted, s | measured, s | error |\n|---|---|---|---|---|\n".to_owned();
    for (name, adapted, completion_tokens, values) in MEASURED {
        let Prediction { sampling, training, .. } = measured(adapted, completion_tokens).predict().unwrap();
        // Coordinator and checkpoint are not part of the measured steps of the learner.
        let of_learner = training.iter().filter(|phase| !["coordinator", "checkpoint"].contains(&phase.name));
        let predicted = [
            ("worker", sampling.iter().map(|phase| phase.seconds).sum::<f64>()),
            ("learner", of_learner.map(|phase| phase.seconds).sum()),
        ];
        for ((process, predicted), measured) in predicted.into_iter().zip(values) {
            let error = 100.0 * (predicted / measured - 1.0);
            let _ = writeln!(text, "| {name} | {process} | {predicted:.2} | {measured:.2} | {error:+.0} % |");
        }
    }
    text
}

#[test]
fn the_tables_of_the_guide_are_those_of_the_formula() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/step-time.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let tables = [
        predictions(true),
        predictions(false),
        phases(),
        leases(),
        cards(),
        sensitivity(),
        comparison(),
        durations(),
    ];
    let missing: Vec<&String> = tables.iter().filter(|table| !guide.contains(*table)).collect();
    assert!(
        missing.is_empty(),
        "docs/guides/step-time.md is out of date: expected these tables\n{}",
        missing.into_iter().map(String::as_str).collect::<Vec<_>>().join("\n")
    );
}

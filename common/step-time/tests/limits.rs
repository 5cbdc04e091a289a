//! Properties that every prediction has.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shapes;

use podium_step_time::{CARDS, Card, Device, Error, Limit, Links, Plan, Prediction, Side};
use shapes::{qwen3, small};

fn plan(adapted: bool) -> Plan {
    let card = Card::named("h100").unwrap();
    let plan = Plan::new(qwen3(2, adapted), card.device(), card.links(1));
    Plan { prompts_per_step: 512, recompute_layers: true, reference: true, price: card.price, ..plan }
}

fn seconds(plan: &Plan) -> f64 {
    plan.predict().unwrap().step_seconds
}

fn phase(prediction: &Prediction, name: &str) -> f64 {
    let mut phases = prediction.sampling.iter().chain(&prediction.training);
    phases.find(|phase| phase.name == name).unwrap().seconds
}

#[test]
fn decoding_reads_weights_and_cache() {
    // 36 layers, 8 key heads of 128, keys and values, two bytes.
    let (weights, token) = (2.0 * 4_022_468_096.0, f64::from(36 * 8 * 128 * 2 * 2));
    let plan = Plan { merged: true, ..plan(true) };
    // Eight prompts of 512 tokens, each once, and 64 completions.
    let expected = weights + token * (8.0 * 512.0 + 64.0 * 10.0);
    assert!((plan.decode_bytes(10) - expected).abs() < 1.0, "{} {expected}", plan.decode_bytes(10));
    // Without arithmetic, launches and selection, these bytes are the duration.
    let device = Device {
        products: podium_step_time::Rate { few: 1e30, many: 1e30 },
        attention: 1e30,
        bandwidth: 1e12,
        launch: 1e-30,
        fused: true,
    };
    let prediction = Plan { device, ..plan.clone() }.predict().unwrap();
    let bytes: f64 = (1..plan.completion_tokens).map(|tokens| plan.decode_bytes(tokens)).sum();
    let decode = phase(&prediction, "decode") / 64.0;
    assert!(decode > bytes / 1e12 && decode < 1.1 * bytes / 1e12, "{decode} {}", bytes / 1e12);
    assert_eq!(prediction.bottleneck.limit, Limit::Weights);
}

#[test]
fn more_workers_never_slow_a_step() {
    for lag in [0, 1, 3] {
        for ranks in [1, 4] {
            let of = |workers| {
                seconds(&Plan { workers, ranks, shared: false, max_policy_lag: lag, ..plan(false) })
            };
            let all: Vec<f64> = (0..9).map(|power| of(1 << power)).collect();
            assert!(all.is_sorted_by(|few, many| few >= many), "lag {lag}, ranks {ranks}: {all:?}");
        }
    }
}

#[test]
fn overlapping_is_at_least_as_fast_as_alternating() {
    for workers in [1, 3, 7] {
        let of = |lag| seconds(&Plan { workers, shared: false, max_policy_lag: lag, ..plan(true) });
        assert!(of(1) < of(0) && of(2) <= of(1), "{workers} workers");
        // Neither side is faster than alone.
        let alone = Plan { workers, shared: false, ..plan(true) }.predict().unwrap();
        let training: f64 = alone.training.iter().map(|phase| phase.seconds).sum();
        assert!(of(8) >= training);
    }
    let shared = |lag| seconds(&Plan { max_policy_lag: lag, ..plan(true) });
    assert!((shared(0) - shared(1)).abs() < 1e-12, "one device does one thing at a time");
}

#[test]
fn the_bottleneck_is_on_the_slower_side() {
    let of = |workers, ranks| {
        Plan { workers, ranks, shared: false, max_policy_lag: 1, ..plan(true) }.predict().unwrap()
    };
    let few = of(1, 8);
    assert_eq!((few.side, few.bottleneck.name), (Side::Workers, "decode"));
    let many = of(64, 1);
    assert_eq!((many.side, many.bottleneck.name), (Side::Learner, "backward"));
    assert_eq!(many.bottleneck.limit, Limit::Products);
}

#[test]
fn longer_lengths_and_slower_machines_take_longer() {
    let base = plan(false);
    let links = |change: &dyn Fn(&mut Links)| {
        let mut links = base.links;
        change(&mut links);
        Plan { ranks: 2, worker_hosts: 2, links, ..base.clone() }
    };
    let before = seconds(&links(&|_| {}));
    for slower in [
        links(&|links| links.ranks /= 2.0),
        links(&|links| links.network /= 2.0),
        links(&|links| links.files /= 2.0),
    ] {
        assert!(seconds(&slower) > before);
    }
    let device = |change: &dyn Fn(&mut Device)| {
        let mut device = base.device;
        change(&mut device);
        Plan { device, ..base.clone() }
    };
    for slower in [
        Plan { prompt_tokens: 1024, ..base.clone() },
        Plan { completion_tokens: 256, ..base.clone() },
        Plan { prompts_per_step: 1024, ..base.clone() },
        Plan { group_size: 16, ..base.clone() },
        Plan { passes: 2, ..base.clone() },
        device(&|device| device.products.many /= 2.0),
        device(&|device| device.attention /= 2.0),
        device(&|device| device.bandwidth /= 2.0),
        device(&|device| device.launch *= 4.0),
    ] {
        assert!(seconds(&slower) > seconds(&base));
    }
    for faster in [
        Plan { reference: false, ..base.clone() },
        Plan { recompute_layers: false, ..base.clone() },
        Plan { workers: 2, ranks: 2, ..base.clone() },
    ] {
        assert!(seconds(&faster) < seconds(&base));
    }
}

#[test]
fn cost_is_the_price_of_all_devices() {
    let plan = Plan { workers: 3, ranks: 2, shared: false, price: 2.0, ..plan(true) };
    let prediction = plan.predict().unwrap();
    let expected = 1000.0 * prediction.step_seconds / 3600.0 * 5.0 * 2.0;
    assert!((prediction.cost_of_1000_steps - expected).abs() < 1e-9);
    let tokens = f64::from(512 * 8 * 128);
    assert!((prediction.tokens_per_second * prediction.step_seconds - tokens).abs() < 1e-6);
}

#[test]
fn one_rank_sums_nothing_and_two_send_every_gradient_once() {
    let of = |ranks| Plan { ranks, ..plan(false) };
    assert!(of(1).bytes_between_ranks().abs() < 1e-9);
    assert!((of(2).bytes_between_ranks() - 4.0 * 4_022_468_096.0).abs() < 1.0);
}

#[test]
fn zeros_and_invalid_rates_are_refused_by_name() {
    let refused = |plan: Plan| plan.predict().unwrap_err();
    let zero = refused(Plan { workers: 0, ..plan(true) });
    assert_eq!(zero, Error::Zero { what: "the number of rollout workers" });
    assert_eq!(zero.to_string(), "the number of rollout workers is 0, expected at least 1");
    assert_eq!(refused(Plan { ranks: 0, ..plan(true) }), Error::Zero { what: "the number of learner ranks" });
    let device = Device { launch: f64::NAN, ..plan(true).device };
    assert!(refused(Plan { device, ..plan(true) }).to_string().contains("the launch time is NaN"));
}

#[test]
fn every_card_computes_every_shape() {
    for card in CARDS {
        let plan = Plan::new(small(true), card.device(), card.links(1));
        assert!(plan.predict().unwrap().step_seconds > 0.0, "{}", card.name);
    }
}

//! Ctrl-C and SIGKILL at any point: the next run continues to the same result without repeated costs.

use std::process::Child;
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podium_grpo::rng::Stream;

use crate::captions::{caption_of, undisturbed};
use crate::server::{Conduct, Server};
use crate::shop::{Ended, ITEMS, Shop, start};

/// Maximum number of concurrent requests.
const CONCURRENCY: usize = 4;

/// Returns a server that reports every request to a channel and fails some.
fn telling() -> (Server, mpsc::Receiver<usize>) {
    let (sender, receiver) = mpsc::channel();
    let server = Server::start(caption_of, move |_, before, total| {
        // The receiver may be gone.
        let _ = sender.send(total);
        if before == 0 && total.is_multiple_of(5) { Conduct::Status(500, "oops") } else { Conduct::Answer }
    });
    (server, receiver)
}

/// Sends `signal` after `after` further requests, unless the process ends before.
fn interrupt(child: &mut Child, requests: &mpsc::Receiver<usize>, after: u64, signal: Signal) {
    let mut left = after;
    while left > 0 {
        match requests.recv_timeout(std::time::Duration::from_millis(20)) {
            Ok(_) => left -= 1,
            Err(_) if child.try_wait().unwrap().is_some() => return,
            Err(_) => {}
        }
    }
    let _ = kill(Pid::from_raw(child.id() as i32), signal);
}

#[test]
fn ctrl_c_shuts_down_gracefully_without_repeated_costs() {
    let shop = Shop::new();
    let (server, requests) = telling();
    let mut interrupted = 0;
    loop {
        // Drain reports of the previous run, which would trigger the signal too early.
        while requests.try_recv().is_ok() {}
        let mut child = start(shop.asking(&server, &["caption"]));
        interrupt(&mut child, &requests, 9, Signal::SIGINT);
        let ended = Ended::from(child.wait_with_output().unwrap());
        if ended.code != Some(130) {
            ended.expect(0);
            break;
        }
        interrupted += 1;
        assert!(ended.output.contains("run the command again to continue"), "{}", ended.output);
        assert!(
            ended.output.contains(" 0 failed,"),
            "requests that were not sent did not fail: {}",
            ended.output
        );
        assert!(!shop.file("shop_captions.json").exists(), "no partial output");
    }
    assert!(interrupted > 0);
    let paid = server.paid();
    assert_eq!(paid.len() as u64, ITEMS);
    assert!(paid.values().all(|&times| times == 1), "{:?}", paid.values());
    assert_eq!(shop.read("shop_captions.json"), undisturbed());
}

#[test]
fn kills_at_random_points_do_not_change_the_outputs() {
    let expected = undisturbed();
    for seed in 0..3 {
        let mut points = Stream::new(seed, "kill", &[]);
        let shop = Shop::new();
        let (server, requests) = telling();
        let mut kills = 0;
        loop {
            let mut child = start(shop.asking(&server, &["caption"]));
            interrupt(&mut child, &requests, 1 + points.below(12), Signal::SIGKILL);
            let ended = Ended::from(child.wait_with_output().unwrap());
            if ended.code.is_some() {
                ended.expect(0);
                break;
            }
            kills += 1;
            assert!(kills < 200, "every run makes progress");
        }
        assert!(kills > 0);
        let paid = server.paid();
        assert_eq!(paid.len() as u64, ITEMS);
        // Only requests in flight at the kill are billed again.
        let twice: usize = paid.values().map(|times| times - 1).sum();
        assert!(twice <= kills * CONCURRENCY, "{twice} paid for again after {kills} kills");
        assert_eq!(shop.read("shop_captions.json"), expected);
    }
}

//! Ctrl-C and SIGKILL at any point: the next run goes on, to the same result, and pays for nothing twice.

use std::process::Child;
use std::sync::mpsc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use podium_grpo::rng::Stream;

use crate::captions::{caption_of, undisturbed};
use crate::server::{Conduct, Server};
use crate::shop::{Ended, ITEMS, Shop, start};

/// As many requests are under way at once, at most.
const CONCURRENCY: usize = 4;

/// A server that tells of every request, and fails some.
fn telling() -> (Server, mpsc::Receiver<usize>) {
    let (sender, receiver) = mpsc::channel();
    let server = Server::start(caption_of, move |_, before, total| {
        // Whoever listened may be gone.
        let _ = sender.send(total);
        if before == 0 && total.is_multiple_of(5) { Conduct::Status(500, "oops") } else { Conduct::Answer }
    });
    (server, receiver)
}

/// Sends `signal` when `after` more requests have come, unless the process ends before.
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
fn ctrl_c_ends_in_order_and_nothing_is_paid_for_twice() {
    let shop = Shop::new();
    let (server, requests) = telling();
    let mut interrupted = 0;
    loop {
        // Told of the run before, a signal would come too early.
        while requests.try_recv().is_ok() {}
        let mut child = start(shop.asking(&server, &["caption"]));
        interrupt(&mut child, &requests, 9, Signal::SIGINT);
        let ended = Ended::from(child.wait_with_output().unwrap());
        if ended.code != Some(130) {
            ended.expect(0);
            break;
        }
        interrupted += 1;
        assert!(ended.output.contains("run it again to go on"), "{}", ended.output);
        assert!(ended.output.contains(" 0 failed,"), "what was not asked did not fail: {}", ended.output);
        assert!(!shop.file("shop_captions.json").exists(), "no partial output");
    }
    assert!(interrupted > 0);
    let paid = server.paid();
    assert_eq!(paid.len() as u64, ITEMS);
    assert!(paid.values().all(|&times| times == 1), "{:?}", paid.values());
    assert_eq!(shop.read("shop_captions.json"), undisturbed());
}

#[test]
fn killed_at_random_points_it_resumes_to_the_same_outputs() {
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
            assert!(kills < 200, "every run gets further");
        }
        assert!(kills > 0);
        let paid = server.paid();
        assert_eq!(paid.len() as u64, ITEMS);
        // What was on its way when the process died cannot be known to it; all else is paid for once.
        let twice: usize = paid.values().map(|times| times - 1).sum();
        assert!(twice <= kills * CONCURRENCY, "{twice} paid for again after {kills} kills");
        assert_eq!(shop.read("shop_captions.json"), expected);
    }
}

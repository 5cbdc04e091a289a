use super::*;

fn limits(reconnect_ms: u64) -> Limits {
    Limits {
        request_timeout: Duration::from_millis(50),
        reconnect_for: Duration::from_millis(reconnect_ms),
        max_message_bytes: 1 << 20,
    }
}

#[tokio::test]
async fn retryable_errors_are_retried_within_the_limit() {
    let coordinator = Coordinator::new("127.0.0.1:1", limits(1_000), CancellationToken::new()).unwrap();
    let mut attempts = 0;
    let answer = coordinator.call("ask", || {
        attempts += 1;
        let enough = attempts == 4;
        async move { if enough { Ok(Response::new(7)) } else { Err(Status::unavailable("restarting")) } }
    });
    assert_eq!(answer.await.unwrap(), 7);
    let never = coordinator.call::<(), _>("ask", || async { Err(Status::unavailable("gone")) }).await;
    assert!(matches!(never, Err(Error::Unreachable { waited, .. }) if waited < Duration::from_secs(1)));
}

/// Longer than the timeout of a call in these tests.
const LONG: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_transfer_has_no_deadline_while_bytes_move() {
    let coordinator = Coordinator::new("127.0.0.1:1", limits(300), CancellationToken::new()).unwrap();
    let progress = Progress::default();
    let slow = || async {
        for _ in 0..20 {
            tokio::time::sleep(LONG / 20).await;
            progress.moved();
        }
        Ok(Response::new(7))
    };
    assert_eq!(coordinator.transfer("fetch", &progress, slow).await.unwrap(), 7);
    let stalled = || async {
        tokio::time::sleep(LONG).await;
        Ok(Response::new(7))
    };
    let error = coordinator.transfer("fetch", &progress, stalled).await.unwrap_err().to_string();
    assert!(error.contains("could not fetch") && error.contains("no byte for 0.05 s"), "{error}");
}

#[tokio::test]
async fn a_stalled_transfer_is_retried_as_long_as_the_receiver_gains_bytes() {
    let coordinator = Coordinator::new("127.0.0.1:1", limits(300), CancellationToken::new()).unwrap();
    let (progress, start) = (Progress::default(), Instant::now());
    let mut attempts = 0;
    let answer = coordinator.transfer("fetch", &progress, || {
        attempts += 1;
        let (last, progress) = (attempts == 6, &progress);
        async move {
            progress.gained();
            if !last {
                std::future::pending::<()>().await;
            }
            Ok(Response::new(7))
        }
    });
    assert_eq!(answer.await.unwrap(), 7);
    assert!(start.elapsed() > Duration::from_millis(300), "longer than the limit of all retries");
    // Bytes that are sent and lost again do not extend the retries.
    let sent = || async {
        progress.moved();
        std::future::pending::<Result<Response<()>, Status>>().await
    };
    let error = coordinator.transfer("fetch", &progress, sent).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })));
}

#[tokio::test]
async fn a_transfer_that_breaks_after_longer_than_the_limit_of_retries_is_retried() {
    let coordinator = Coordinator::new("127.0.0.1:1", limits(300), CancellationToken::new()).unwrap();
    let progress = Progress::default();
    let mut attempts = 0;
    let answer = coordinator.transfer("publish", &progress, || {
        attempts += 1;
        let (last, progress) = (attempts == 2, &progress);
        async move {
            for _ in 0..40 {
                tokio::time::sleep(Duration::from_millis(10)).await;
                progress.moved();
            }
            if last { Ok(Response::new(7)) } else { Err(Status::unavailable("broken")) }
        }
    });
    assert_eq!(answer.await.unwrap(), 7);
}

#[tokio::test]
async fn calls_wait_for_a_coordinator_with_a_full_disk() {
    let coordinator = Coordinator::new("127.0.0.1:1", limits(50), CancellationToken::new()).unwrap();
    let mut attempts = 0;
    let answer = coordinator.call("submit", || {
        attempts += 1;
        let enough = attempts == 4;
        async move {
            if enough { Ok(Response::new(7)) } else { Err(Status::resource_exhausted("no space is left")) }
        }
    });
    assert_eq!(answer.await.unwrap(), 7, "longer than the limit of 50 ms");
}

#[tokio::test]
async fn a_broken_connection_is_retried() {
    let coordinator = Coordinator::new("127.0.0.1:1", limits(1_000), CancellationToken::new()).unwrap();
    let ask = |broken: bool| {
        let mut attempts = 0;
        let coordinator = &coordinator;
        async move {
            let answer = coordinator.call("ask", || {
                attempts += 1;
                let mut status = Status::internal("h2 protocol error: http2 error");
                if broken {
                    status.set_source(std::sync::Arc::new(std::io::Error::other("connection reset")));
                }
                let enough = attempts == 2;
                async move { if enough { Ok(Response::new(7)) } else { Err(status) } }
            });
            answer.await
        }
    };
    assert_eq!(ask(true).await.unwrap(), 7);
    assert!(matches!(ask(false).await, Err(Error::Refused { .. })));
}

#[tokio::test]
async fn a_refusal_is_final_and_a_stop_ends_waiting() {
    let stop = CancellationToken::new();
    let coordinator = Coordinator::new("127.0.0.1:1", limits(1_000_000), stop.clone()).unwrap();
    let refused =
        coordinator.call::<(), _>("register", || async { Err(Status::failed_precondition("other run")) });
    assert!(refused.await.unwrap_err().to_string().contains("refused to register: other run"));
    let waiting = coordinator.call::<(), _>("ask", || async { Err(Status::unavailable("gone")) });
    let (result, ()) = tokio::join!(waiting, async { stop.cancel() });
    assert!(matches!(result, Err(Error::Stopped { what: "ask" })));
}

#[tokio::test]
async fn an_announced_coordinator_is_awaited_and_followed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("coordinator.json");
    let place = CoordinatorLocation::Announced(file.clone());
    let announce = |address| {
        let content = serde_json::json!({"address": address, "listen": address, "pid": 1});
        std::fs::write(&file, content.to_string()).unwrap();
    };
    let never = Coordinator::at(place.clone(), limits(300), CancellationToken::new()).unwrap();
    let error = never.call("ask", || async { Ok(Response::new(())) }).await.unwrap_err().to_string();
    assert!(error.contains("still to be announced") && error.contains("coordinator.json"), "{error}");

    let coordinator = Coordinator::at(place, limits(60_000), CancellationToken::new()).unwrap();
    let mut asked = Vec::new();
    let ask = coordinator.call("ask", || {
        asked.push(coordinator.address());
        let answer = match asked.len() {
            1 => {
                announce("there:2");
                Err(Status::unavailable("it has moved"))
            }
            _ => Ok(Response::new(())),
        };
        async move { answer }
    });
    let later = async {
        tokio::task::yield_now().await;
        announce("here:1");
    };
    tokio::join!(ask, later).0.unwrap();
    assert_eq!(asked, ["here:1", "there:2"]);
}

#[test]
fn an_address_is_host_and_port() {
    for bad in ["", "host", "host:", ":1", "host:port", "host:70000"] {
        let made = Coordinator::new(bad, limits(1), CancellationToken::new());
        assert!(matches!(made, Err(Error::Address { .. })), "{bad:?}");
    }
}

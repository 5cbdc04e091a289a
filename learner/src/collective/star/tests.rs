use super::*;
use crate::testing::hello;

const LONG: Duration = Duration::from_secs(30);

#[test]
fn foreign_clients_are_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::scope(|scope| {
        let leader = scope.spawn(|| Star::gather(&listener, &hello(0, 3), LONG).map(drop));
        let refused = |hello: &Hello| Star::connect(&address, hello, LONG).unwrap_err().to_string();
        assert!(
            refused(&Hello { run_hash: "beef".into(), ..hello(1, 3) })
                .contains("run hash is beef: expected cafe")
        );
        assert!(
            refused(&Hello { code_version: "2".into(), ..hello(1, 3) })
                .contains("code version is 2: expected 1")
        );
        assert!(
            refused(&Hello { collective: "nccl".into(), ..hello(1, 3) })
                .contains("collective is nccl: expected tcp")
        );
        assert!(refused(&hello(1, 4)).contains("world size is 4: expected 3"));
        assert!(
            refused(&Hello { generation: 0, ..hello(1, 3) }).contains("rendezvous epoch is 0: expected 1")
        );
        assert!(refused(&hello(3, 3)).contains("rank is 3: expected 1 to 2"));
        let _one = Star::connect(&address, &hello(1, 3), LONG).unwrap();
        assert!(refused(&hello(1, 3)).contains("rank 1 is already connected"));
        let _two = Star::connect(&address, &hello(2, 3), LONG).unwrap();
        leader.join().unwrap().unwrap();
    });
}

#[test]
fn absent_ranks_are_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let error = Star::gather(&listener, &hello(0, 3), Duration::from_millis(50)).unwrap_err().to_string();
    assert!(error.contains("ranks [1, 2] did not connect to the collective within 50 ms"), "{error}");
    drop(listener);
    let error = Star::connect(&address, &hello(1, 3), Duration::from_millis(50)).unwrap_err().to_string();
    assert!(error.contains(&address), "{error}");
}

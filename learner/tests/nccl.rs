//! The collective over NCCL, each rank a process, with a stand-in for NCCL.
//!
//! The test starts itself again as the ranks: `nccl rank SCENARIO RANK SIZE [ADDRESS ID]`. Rank 0 writes its address
//! and the communicator's id, which the coordinator forwards in a run; every rank writes its result.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use podium_learner::collective::Collective;
use podium_learner::collective::nccl::{Library, Nccl};
use podium_learner::collective::star::{Hello, Star};
use tch::{Device, Tensor};

const LONG_MS: u64 = 60_000;
const SHORT_MS: u64 = 300;

/// A rank group, the operation of its ranks, and the expected result.
struct Scenario {
    name: &'static str,
    size: u32,
    deadline_ms: u64,
    /// Fault of the stand-in.
    fault: &'static str,
    act: fn(&mut Nccl) -> String,
    /// Checks the output of the ranks.
    check: fn(&[String]),
}

const SCENARIOS: [Scenario; 9] = [
    Scenario { name: "one_rank_is_a_world", size: 1, ..SUMS },
    Scenario { name: "two_ranks_sum", size: 2, ..SUMS },
    SUMS,
    Scenario {
        name: "a_rank_that_dies_is_named",
        act: |collective| barrier_but_on(collective, 2, || std::process::abort()),
        check: |said| all_say(&said[..2], "the connection to rank 2 broke in all-gather 2"),
        ..FAILING
    },
    Scenario {
        name: "a_rank_that_does_not_come_is_named_at_the_deadline",
        deadline_ms: SHORT_MS,
        act: |collective| barrier_but_on(collective, 2, until_the_end),
        check: |said| all_say(&said[..2], "rank 2 did not take part in all-gather 2 within 300 ms"),
        ..FAILING
    },
    Scenario {
        name: "a_rank_that_stops_half_way_is_named",
        deadline_ms: SHORT_MS,
        fault: "1 1 freeze",
        act: |collective| barrier_but_on(collective, 9, || ()),
        check: |said| {
            for said in [&said[0], &said[2]] {
                assert!(said.contains("rank 1 did not take part in all-gather 2 within 300 ms"), "{said}");
            }
        },
        ..FAILING
    },
    Scenario {
        name: "an_operation_that_hangs_on_all_ranks_is_given_up",
        deadline_ms: SHORT_MS,
        fault: "1 1 stall",
        act: |collective| barrier_but_on(collective, 9, || ()),
        check: |said| all_say(said, "all ranks entered all-gather 2 and are alive"),
        ..FAILING
    },
    Scenario {
        name: "an_asynchronous_error_reaches_every_rank_with_its_cause",
        fault: "1 1 error",
        act: |collective| barrier_but_on(collective, 9, || ()),
        check: |said| {
            all_say(said, "ncclInternalError");
            assert!(said[2].contains("rank 1 gave up all-gather 2"), "{}", said[2]);
        },
        ..FAILING
    },
    Scenario {
        name: "different_operations_are_told_apart_before_they_start",
        act: |collective| {
            let rank = collective.rank();
            let outcome =
                if rank == 1 { collective.all_gather(&[1.0, 2.0]) } else { collective.all_gather(&[1.0]) };
            outcome.unwrap_err().to_string()
        },
        check: |said| {
            all_say(said, "rank 1 is at all-gather 1 of 16 bytes, this rank at all-gather 1 of 8 bytes");
        },
        ..FAILING
    },
];

const SUMS: Scenario = Scenario {
    name: "four_ranks_sum",
    size: 4,
    deadline_ms: LONG_MS,
    fault: "",
    act: sums,
    check: |said| {
        let size = said.len() as u32;
        let expected = expected_sums(size);
        for said in said {
            assert_eq!(*said, expected);
        }
    },
};

const FAILING: Scenario = Scenario { name: "", size: 3, ..SUMS };

fn all_say(said: &[String], words: &str) {
    for said in said {
        assert!(said.contains(words), "{words:?} is not in {said:?}");
    }
}

/// Numbers of a rank whose sum depends on the order of ranks.
fn numbers(rank: u32) -> Vec<f32> {
    (0..100_000_u32)
        .map(|n| (f64::from(n * 7 + rank).sin() * 10_f64.powi((rank % 3) as i32)) as f32)
        .collect()
}

fn sums(collective: &mut Nccl) -> String {
    let rank = collective.rank();
    let mut sum = Tensor::from_slice(&numbers(rank));
    collective.all_reduce_sum(&mut sum).unwrap();
    let each = [Tensor::from_slice(&[rank as f32, 1.0]), Tensor::from_slice(&[0.5_f32]).view([1, 1])];
    let each = collective.all_reduce_each(each.into()).unwrap();
    let shard =
        collective.reduce_scatter_sum(Tensor::from_slice(&sharded(rank, collective.world_size()))).unwrap();
    let shards = collective.all_gather_shards(&shard).unwrap();
    let mut copy = Tensor::from_slice(&[rank as f32 + 5.0]);
    collective.broadcast(&mut copy).unwrap();
    collective.barrier().unwrap();
    let gathered = collective.all_gather(&[f64::from(rank), 0.1]).unwrap();
    let least = collective.min(10 - u64::from(rank)).unwrap();
    let each: Vec<Vec<f32>> = each.iter().map(|sum| Vec::try_from(sum.view(-1)).unwrap()).collect();
    let sums = [Vec::try_from(sum).unwrap(), Vec::try_from(shards).unwrap()];
    report(&sums, &each, &Vec::try_from(copy).unwrap(), &gathered, least)
}

/// The numbers of a rank that are sharded: a multiple of the number of ranks.
fn sharded(rank: u32, size: u32) -> Vec<f32> {
    numbers(rank)[..1000 * size as usize].to_vec()
}

/// The ranks' numbers, added in the order of ranks.
fn added(size: u32, numbers: impl Fn(u32) -> Vec<f32>) -> Vec<f32> {
    let mut sum = numbers(0);
    for rank in 1..size {
        sum.iter_mut().zip(numbers(rank)).for_each(|(sum, number)| *sum += number);
    }
    sum
}

fn expected_sums(size: u32) -> String {
    let sums = [added(size, numbers), added(size, |rank| sharded(rank, size))];
    let ranks = (0..size).map(|rank| rank as f32).sum();
    let gathered: Vec<_> = (0..size).map(|rank| vec![f64::from(rank), 0.1]).collect();
    let each = [vec![ranks, size as f32], vec![0.5 * size as f32]];
    report(&sums, &each, &[5.0], &gathered, 11 - u64::from(size))
}

fn report(
    sums: &[Vec<f32>; 2],
    each: &[Vec<f32>],
    copy: &[f32],
    gathered: &[Vec<f64>],
    least: u64,
) -> String {
    // The sums to the bit.
    let fold = |hash: u64, number: &f32| (hash ^ u64::from(number.to_bits())).wrapping_mul(0x0100_0000_01b3);
    let bits = sums.iter().flatten().fold(0xcbf2_9ce4_8422_2325, fold);
    format!("{bits:x} {each:?} {copy:?} {gathered:?} {least}")
}

/// The second barrier of a rank group, which one rank replaces by `otherwise`.
fn barrier_but_on(collective: &mut Nccl, rank: u32, otherwise: fn()) -> String {
    collective.barrier().unwrap();
    if collective.rank() == rank {
        otherwise();
        return String::new();
    }
    let error = collective.barrier().unwrap_err().to_string();
    // A failed communicator stays unusable.
    assert!(collective.barrier().is_err());
    error
}

/// Waits until the test closes this process's standard input.
fn until_the_end() {
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// A rank's process.
fn rank(scenario: &Scenario, rank: u32, meeting: Option<(&str, &str)>) {
    let deadline = Duration::from_millis(LONG_MS);
    let hello = Hello {
        run_hash: "cafe".into(),
        generation: 1,
        rank,
        world_size: scenario.size,
        code_version: "1".into(),
        collective: "nccl".into(),
    };
    let library = Library::find().unwrap();
    let (mut star, id) = if let Some((address, id)) = meeting {
        (Star::connect(address, &hello, deadline).unwrap(), bytes(id))
    } else {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let id = library.unique_id().unwrap();
        let hexadecimal = id.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        });
        println!("{} {hexadecimal}", listener.local_addr().unwrap());
        (Star::gather(&listener, &hello, deadline).unwrap(), id)
    };
    star.set_deadline(Duration::from_millis(scenario.deadline_ms));
    let mut collective = Nccl::set_up(star, &library, &id, Device::Cpu).unwrap();
    println!("{}", (scenario.act)(&mut collective));
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
    digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
}

/// Kills the process when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn run(scenario: &Scenario) {
    let folder = tempfile::tempdir().unwrap();
    let path = podium_nccl_stand_in::install(folder.path()).unwrap();
    let start = |rank: u32, meeting: &[&str]| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["rank", scenario.name, &rank.to_string()]).args(meeting);
        command.env("LD_LIBRARY_PATH", &path).stdin(Stdio::piped()).stdout(Stdio::piped());
        if !scenario.fault.is_empty() {
            command.env("PODIUM_NCCL_STAND_IN_FAULT", scenario.fault);
        }
        Process(command.spawn().unwrap())
    };
    let line = |reader: &mut BufReader<_>| {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim().to_owned()
    };
    let mut leader = start(0, &[]);
    let mut leader_output = BufReader::new(leader.0.stdout.take().unwrap());
    let meeting = line(&mut leader_output);
    let meeting: Vec<&str> = meeting.split(' ').collect();
    let mut others: Vec<Process> = (1..scenario.size).map(|rank| start(rank, &meeting)).collect();
    let mut said = vec![line(&mut leader_output)];
    for other in &mut others {
        // A frozen rank writes nothing, and a waiting one nothing yet.
        let concerned = scenario.fault.ends_with("freeze") || scenario.name.contains("does_not_come");
        let silent = concerned && said.len() == if scenario.fault.is_empty() { 2 } else { 1 };
        let output = other.0.stdout.take().unwrap();
        said.push(if silent { String::new() } else { line(&mut BufReader::new(output)) });
    }
    (scenario.check)(&said);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["rank", name, number, meeting @ ..] = &words[..] {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name).unwrap();
        let meeting = if let [address, id] = meeting { Some((*address, *id)) } else { None };
        rank(scenario, number.parse().unwrap(), meeting);
        return ExitCode::SUCCESS;
    }
    // Filters as in cargo's own tests: names that contain one of the words, or all.
    let filters: Vec<&&str> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|word| name.contains(**word));
    let mut failed = 0;
    for scenario in SCENARIOS.iter().filter(|scenario| wanted(scenario.name)) {
        let outcome = std::panic::catch_unwind(|| run(scenario));
        println!("test {} ... {}", scenario.name, if outcome.is_ok() { "ok" } else { "FAILED" });
        failed += u8::from(outcome.is_err());
    }
    ExitCode::from(failed)
}

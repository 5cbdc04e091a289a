//! The connections between ranks: a star around rank 0, over TCP.
//!
//! Every connecting rank identifies itself; rank 0 accepts the members of its rank group and sends the others the
//! reason of the refusal. The TCP collective transfers its numbers along these connections. The NCCL collective only
//! announces operations there, because NCCL does not identify a missing rank.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::wire::{self, Header, Kind};

/// Interval between polls of the listener, or between attempts to connect.
const PAUSE: Duration = Duration::from_millis(10);
/// Deadline of a new connection's hello, so that a foreign client does not block the ranks.
const HELLO_DEADLINE: Duration = Duration::from_secs(2);

/// Deadline of a rank's reply that it is alive, and of notifications about failures.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// Identity of a rank and its rank group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Hash of the run file.
    pub run_hash: String,
    /// The rendezvous epoch: number of rendezvous of this run.
    pub generation: u64,
    /// This rank, from 0.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
    /// Code version of this rank's build.
    pub code_version: String,
    /// Name of the collective: "nccl" or "tcp".
    pub collective: String,
}

/// The reasons why the ranks did not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be listened on or connected to.
    #[error("cannot use {address} for the collective: {source}")]
    Address {
        /// The address.
        address: String,
        /// The cause.
        source: io::Error,
    },
    /// Ranks did not connect in time.
    #[error("ranks {ranks:?} did not connect to the collective within {} ms", deadline.as_millis())]
    Missing {
        /// The missing ranks.
        ranks: Vec<u32>,
        /// The deadline.
        deadline: Duration,
    },
    /// Rank 0 refused this rank.
    #[error("rank 0 refused rank {rank}: {reason}")]
    Refused {
        /// This rank.
        rank: u32,
        /// Reason given by rank 0.
        reason: String,
    },
}

/// One rank's connections: rank 0 has one to each of the others, in their order; each of the others has one to rank
/// 0.
#[derive(Debug)]
pub struct Star {
    rank: u32,
    world_size: u32,
    pub(super) peers: Vec<TcpStream>,
    deadline: Duration,
    /// Number of started operations.
    number: u64,
}

impl Star {
    /// Rank 0: accepts all other ranks at `listener`. A foreign client receives an error and is ignored. `deadline`
    /// applies to the rendezvous and to each operation.
    pub fn gather(listener: &TcpListener, hello: &Hello, deadline: Duration) -> Result<Self, ConnectError> {
        let failed = |source| {
            let address =
                listener.local_addr().map_or_else(|_| "the listener".into(), |address| address.to_string());
            ConnectError::Address { address, source }
        };
        listener.set_nonblocking(true).map_err(failed)?;
        let until = Instant::now() + deadline;
        let mut peers: Vec<Option<TcpStream>> = (1..hello.world_size).map(|_| None).collect();
        while peers.iter().any(Option::is_none) {
            match listener.accept() {
                Ok((stream, _)) => match welcome(&stream, hello, &peers) {
                    Ok(rank) => peers[rank as usize - 1] = Some(stream),
                    Err(error) => {
                        tracing::warn!("refused a connection to the collective: {error}");
                    }
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if wire::left(until).is_err() {
                        let missing = (1..hello.world_size).zip(&peers).filter(|(_, peer)| peer.is_none());
                        return Err(ConnectError::Missing {
                            ranks: missing.map(|(rank, _)| rank).collect(),
                            deadline,
                        });
                    }
                    std::thread::sleep(PAUSE);
                }
                Err(source) => return Err(failed(source)),
            }
        }
        let peers = peers.into_iter().flatten().collect();
        Ok(Self { rank: 0, world_size: hello.world_size, peers, deadline, number: 0 })
    }

    /// A group of one rank, without connections.
    pub const fn alone(deadline: Duration) -> Self {
        Self { rank: 0, world_size: 1, peers: Vec::new(), deadline, number: 0 }
    }

    /// Another rank: connects to rank 0 at `address` (host:port).
    pub fn connect(address: &str, hello: &Hello, deadline: Duration) -> Result<Self, ConnectError> {
        let until = Instant::now() + deadline;
        let failed = |source| ConnectError::Address { address: address.to_owned(), source };
        let stream = loop {
            match connect_once(address, until) {
                Ok(stream) => break stream,
                Err(error) if wire::left(until).is_err() => return Err(failed(error)),
                Err(_) => std::thread::sleep(PAUSE),
            }
        };
        let answer = || {
            stream.set_nodelay(true)?;
            say_hello(&stream, &serde_json::json!(hello).to_string(), until)?;
            let header = wire::read_header(&stream, until)?;
            wire::read_text(&stream, header, until)
        };
        let reason = answer().map_err(failed)?;
        if !reason.is_empty() {
            return Err(ConnectError::Refused { rank: hello.rank, reason });
        }
        Ok(Self { rank: hello.rank, world_size: hello.world_size, peers: vec![stream], deadline, number: 0 })
    }

    /// This rank, from 0.
    pub(super) const fn rank(&self) -> u32 {
        self.rank
    }

    /// Number of ranks.
    pub(super) const fn world_size(&self) -> u32 {
        self.world_size
    }

    /// Sets the deadline of operations, if it differs from that of the rendezvous.
    pub const fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// Begins an operation.
    pub(super) fn begin(&mut self, kind: Kind, length: usize) -> Operation {
        let number = self.number;
        self.number += 1;
        // Rank 0 decides which rank is missing; the others wait longer, to receive its decision.
        let patience = if self.rank == 0 { self.deadline } else { (self.deadline + GRACE) * 2 };
        let header = Header { kind, number, length: length as u64 };
        Operation { header, deadline: self.deadline, until: Instant::now() + patience }
    }

    /// Rank 0 notifies the others of the failure, as far as they are still connected.
    pub(super) fn give_up(&self, operation: &Operation, error: Error) -> Error {
        self.tell(operation, Kind::GiveUp, &error);
        error
    }

    /// Sends the reason of the failure to every connected rank.
    pub(super) fn tell(&self, operation: &Operation, kind: Kind, error: &Error) {
        let reason = error.to_string();
        let header = Header { kind, length: reason.len() as u64, ..operation.header };
        for peer in &self.peers {
            // A rank that cannot be notified fails at its own deadline.
            let _ = wire::write(peer, header, reason.as_bytes(), Instant::now() + PAUSE);
        }
    }

    /// Runs rank 0's part of an operation.
    pub(super) fn lead(
        &self,
        operation: &Operation,
        part: impl FnOnce(&[TcpStream]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        part(&self.peers).map_err(|error| self.give_up(operation, error))
    }
}

/// Connects within the remaining time.
fn connect_once(address: &str, until: Instant) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, wire::left(until)?) {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn say_hello(stream: &TcpStream, text: &str, until: Instant) -> io::Result<()> {
    wire::write(
        stream,
        Header { kind: Kind::Hello, number: 0, length: text.len() as u64 },
        text.as_bytes(),
        until,
    )
}

/// Rank 0 reads a new connection's hello and answers it. The error is for rank 0's log.
fn welcome(stream: &TcpStream, own: &Hello, peers: &[Option<TcpStream>]) -> io::Result<u32> {
    let until = Instant::now() + HELLO_DEADLINE;
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let header = wire::read_header(stream, until)?;
    let text = wire::read_text(stream, header, until)?;
    let checked = serde_json::from_str::<Hello>(&text)
        .map_err(|error| format!("its hello cannot be read: {error}"))
        .and_then(|hello| check(&hello, own, peers).map(|()| hello.rank));
    match checked {
        Ok(rank) => say_hello(stream, "", until).map(|()| rank),
        Err(reason) => {
            say_hello(stream, &reason, until)?;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
        }
    }
}

fn check(hello: &Hello, own: &Hello, peers: &[Option<TcpStream>]) -> Result<(), String> {
    let differs = |what: &str, found: &dyn std::fmt::Display, expected: &dyn std::fmt::Display| {
        Err(format!("its {what} is {found}: expected {expected}"))
    };
    if hello.run_hash != own.run_hash {
        return differs("run hash", &hello.run_hash, &own.run_hash);
    }
    if hello.code_version != own.code_version {
        return differs("code version", &hello.code_version, &own.code_version);
    }
    if hello.world_size != own.world_size {
        return differs("world size", &hello.world_size, &own.world_size);
    }
    if hello.collective != own.collective {
        return differs("collective", &hello.collective, &own.collective);
    }
    if hello.generation != own.generation {
        return differs("rendezvous epoch", &hello.generation, &own.generation);
    }
    match hello.rank.checked_sub(1).and_then(|index| peers.get(index as usize)) {
        None => differs("rank", &hello.rank, &format_args!("1 to {}", own.world_size - 1)),
        Some(Some(_)) => Err(format!("rank {} is already connected", hello.rank)),
        Some(None) => Ok(()),
    }
}

/// An operation in progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operation {
    pub(super) header: Header,
    pub(super) deadline: Duration,
    /// This rank's deadline.
    pub(super) until: Instant,
}

impl Operation {
    pub(super) fn send(&self, rank: u32, peer: &TcpStream, content: &[u8]) -> Result<(), Error> {
        wire::write(peer, self.header, content, self.until).map_err(|source| self.failed(rank, source))
    }

    /// Reads a rank's part into `content`, which has the expected length.
    pub(super) fn receive(&self, rank: u32, peer: &TcpStream, content: &mut [u8]) -> Result<(), Error> {
        let failed = |source| self.failed(rank, source);
        let header = wire::read_header(peer, self.until).map_err(failed)?;
        if header.kind == Kind::GiveUp {
            let reason = wire::read_text(peer, header, self.until).map_err(failed)?;
            return Err(self.abandoned(rank, reason));
        }
        let expected = Header { length: content.len() as u64, ..self.header };
        if header != expected {
            return Err(Error::Diverged { rank, found: header.describe(), expected: expected.describe() });
        }
        wire::read_all(peer, content, self.until).map_err(failed)
    }

    pub(super) fn failed(&self, rank: u32, source: io::Error) -> Error {
        let (operation, number) = (self.header.kind.name(), self.header.number);
        match source.kind() {
            io::ErrorKind::TimedOut => Error::Missing { rank, operation, number, deadline: self.deadline },
            _ => Error::Connection { rank, operation, number, source },
        }
    }

    /// Returns the operation with a new deadline of rank 0, once all ranks have entered it.
    pub(super) fn renewed(self) -> Self {
        Self { until: self.until.max(Instant::now() + self.deadline), ..self }
    }

    pub(super) fn abandoned(&self, rank: u32, reason: String) -> Error {
        Error::Abandoned { rank, operation: self.header.kind.name(), number: self.header.number, reason }
    }
}

#[cfg(test)]
mod tests;

//! The collective over TCP: a star around rank 0.
//!
//! Rank 0 reads every rank's part in the order of ranks, adds it up in that order, and sends the result back. That is
//! slow beside a ring, and simple, exact to the bit, and good enough for policies that a CPU trains.

use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind as Number, Tensor};

use super::wire::{self, Header, Kind};
use super::{Collective, Error};

/// Pause between two looks at the listener, or two attempts to connect.
const PAUSE: Duration = Duration::from_millis(10);
/// How long one newcomer may take for its hello, so that a stranger holds nobody up.
const HELLO_DEADLINE: Duration = Duration::from_secs(2);

/// Who a rank is and which world it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Hash of the run file.
    pub run_hash: String,
    /// How often the world has come together.
    pub generation: u64,
    /// This rank, from 0.
    pub rank: u32,
    /// Number of ranks.
    pub world_size: u32,
}

/// Why the world did not come together.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address cannot be listened on or connected to.
    #[error("cannot use {address} for the collective: {source}")]
    Address {
        /// Which address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Ranks did not come in time.
    #[error("ranks {ranks:?} did not come to the collective within {} ms", deadline.as_millis())]
    Missing {
        /// Who is missing.
        ranks: Vec<u32>,
        /// How long they were waited for.
        deadline: Duration,
    },
    /// Rank 0 does not want this rank.
    #[error("rank 0 refused rank {rank}: {reason}")]
    Refused {
        /// This rank.
        rank: u32,
        /// What rank 0 said.
        reason: String,
    },
}

/// One rank's connections: rank 0 has one to each of the others, in their order; they have one to it.
#[derive(Debug)]
pub struct Tcp {
    rank: u32,
    world_size: u32,
    peers: Vec<TcpStream>,
    deadline: Duration,
    /// Operations begun.
    number: u64,
}

impl Tcp {
    /// Rank 0: waits for all others at `listener`. Who does not belong is told so and left out. `deadline` is that of
    /// the gathering and of each operation.
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
                        tracing::warn!("somebody who does not belong came to the collective: {error}");
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

    /// Begins an operation.
    fn begin(&mut self, kind: Kind, length: usize) -> Operation {
        let number = self.number;
        self.number += 1;
        // Rank 0 decides who is missing; the others wait longer, to hear it.
        let patience = if self.rank == 0 { self.deadline } else { self.deadline * 2 };
        let header = Header { kind, number, length: length as u64 };
        Operation { header, deadline: self.deadline, until: Instant::now() + patience }
    }

    /// Rank 0 tells the others why it gives up, as far as they still listen.
    fn give_up(&self, operation: &Operation, error: Error) -> Error {
        let reason = error.to_string();
        let header = Header { kind: Kind::GiveUp, length: reason.len() as u64, ..operation.header };
        for peer in &self.peers {
            // A rank that cannot be told finds out by its own deadline.
            let _ = wire::write(peer, header, reason.as_bytes(), Instant::now() + PAUSE);
        }
        error
    }

    /// Runs rank 0's part of an operation.
    fn lead(
        &self,
        operation: &Operation,
        part: impl FnOnce(&[TcpStream]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        part(&self.peers).map_err(|error| self.give_up(operation, error))
    }
}

/// Connects within the time left.
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

/// Rank 0 hears a newcomer's hello and answers it. The error is for rank 0's log.
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
    if hello.world_size != own.world_size {
        return differs("world size", &hello.world_size, &own.world_size);
    }
    if hello.generation != own.generation {
        return differs("generation", &hello.generation, &own.generation);
    }
    match hello.rank.checked_sub(1).and_then(|index| peers.get(index as usize)) {
        None => differs("rank", &hello.rank, &format_args!("1 to {}", own.world_size - 1)),
        Some(Some(_)) => Err(format!("rank {} is there already", hello.rank)),
        Some(None) => Ok(()),
    }
}

/// One operation under way.
#[derive(Debug)]
struct Operation {
    header: Header,
    deadline: Duration,
    until: Instant,
}

impl Operation {
    fn send(&self, rank: u32, peer: &TcpStream, content: &[u8]) -> Result<(), Error> {
        wire::write(peer, self.header, content, self.until).map_err(|source| self.failed(rank, source))
    }

    /// Reads a rank's part into `content`, which has the length that is expected.
    fn receive(&self, rank: u32, peer: &TcpStream, content: &mut [u8]) -> Result<(), Error> {
        let failed = |source| self.failed(rank, source);
        let header = wire::read_header(peer, self.until).map_err(failed)?;
        if header.kind == Kind::GiveUp {
            let reason = wire::read_text(peer, header, self.until).map_err(failed)?;
            return Err(Error::Abandoned {
                operation: self.header.kind.name(),
                number: self.header.number,
                reason,
            });
        }
        let expected = Header { length: content.len() as u64, ..self.header };
        if header != expected {
            return Err(Error::Diverged { rank, found: header.describe(), expected: expected.describe() });
        }
        wire::read_all(peer, content, self.until).map_err(failed)
    }

    fn failed(&self, rank: u32, source: io::Error) -> Error {
        let (operation, number) = (self.header.kind.name(), self.header.number);
        match source.kind() {
            io::ErrorKind::TimedOut => Error::Missing { rank, operation, number, deadline: self.deadline },
            _ => Error::Connection { rank, operation, number, source },
        }
    }
}

impl Collective for Tcp {
    fn rank(&self) -> u32 {
        self.rank
    }

    fn world_size(&self) -> u32 {
        self.world_size
    }

    fn all_reduce_sum(&mut self, tensor: &mut Tensor) -> Result<(), Error> {
        let mut bytes = bytes_of(tensor);
        let operation = self.begin(Kind::AllReduce, bytes.len());
        if self.rank == 0 {
            return self.lead(&operation, |peers| {
                let mut sum = numbers_of(&bytes);
                for (rank, peer) in (1..).zip(peers) {
                    operation.receive(rank, peer, &mut bytes)?;
                    sum += numbers_of(&bytes);
                }
                let bytes = bytes_of(&sum);
                tensor.copy_(&sum);
                (1..).zip(peers).try_for_each(|(rank, peer)| operation.send(rank, peer, &bytes))
            });
        }
        operation.send(0, &self.peers[0], &bytes)?;
        operation.receive(0, &self.peers[0], &mut bytes)?;
        tensor.copy_(&numbers_of(&bytes));
        Ok(())
    }

    fn broadcast(&mut self, tensor: &mut Tensor) -> Result<(), Error> {
        let mut bytes = bytes_of(tensor);
        let operation = self.begin(Kind::Broadcast, bytes.len());
        if self.rank == 0 {
            return self.lead(&operation, |peers| {
                (1..).zip(peers).try_for_each(|(rank, peer)| operation.send(rank, peer, &bytes))
            });
        }
        operation.receive(0, &self.peers[0], &mut bytes)?;
        tensor.copy_(&numbers_of(&bytes));
        Ok(())
    }

    fn all_gather(&mut self, numbers: &[f64]) -> Result<Vec<Vec<f64>>, Error> {
        let own: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        let operation = self.begin(Kind::AllGather, own.len());
        let mut all = vec![0; own.len() * self.world_size as usize];
        if self.rank == 0 {
            self.lead(&operation, |peers| {
                all[..own.len()].copy_from_slice(&own);
                for (rank, peer) in (1..).zip(peers) {
                    let start = own.len() * rank as usize;
                    operation.receive(rank, peer, &mut all[start..start + own.len()])?;
                }
                let answer = Operation {
                    header: Header { length: all.len() as u64, ..operation.header },
                    ..operation
                };
                (1..).zip(peers).try_for_each(|(rank, peer)| answer.send(rank, peer, &all))
            })?;
        } else {
            operation.send(0, &self.peers[0], &own)?;
            operation.receive(0, &self.peers[0], &mut all)?;
        }
        let mut numbers = all.chunks_exact(8).map(|bytes| {
            let mut word = [0; 8];
            word.copy_from_slice(bytes);
            f64::from_le_bytes(word)
        });
        let count = own.len() / 8;
        Ok((0..self.world_size).map(|_| numbers.by_ref().take(count).collect()).collect())
    }
}

/// The numbers of a flat float32 tensor in memory order.
fn bytes_of(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.to_device(Device::Cpu).contiguous();
    let count = tensor.numel();
    let mut bytes = vec![0; count * size_of::<f32>()];
    tensor.copy_data_u8(&mut bytes, count);
    bytes
}

fn numbers_of(bytes: &[u8]) -> Tensor {
    Tensor::from_data_size(bytes, &[(bytes.len() / size_of::<f32>()) as i64], Number::Float)
}

#[cfg(test)]
mod tests;

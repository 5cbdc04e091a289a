//! The hub of a communicator's ranks: a thread of the process that created its id.
//!
//! It reads every rank's part of an operation in the order of ranks, computes the result once, and sends it to all.

use std::ffi::c_int;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use crate::frame::{self, Operation};
use crate::result;

/// The address of an id: a name in Linux's abstract namespace, which vanishes with its process.
pub(crate) fn address(id: &[u8]) -> io::Result<SocketAddr> {
    let end = id.iter().position(|&byte| byte == 0).unwrap_or(id.len());
    SocketAddr::from_abstract_name(&id[..end])
}

/// Starts a hub for the communicator of an id.
pub(crate) fn start(id: &[u8]) -> io::Result<()> {
    let listener = UnixListener::bind_addr(&address(id)?)?;
    let serve = move || {
        // A hub without ranks has no recipient for the error.
        drop(gather(&listener).and_then(|mut ranks| while_together(&mut ranks)));
    };
    std::thread::Builder::new().name("nccl-hub".into()).spawn(serve).map(drop)
}

/// Waits for all ranks; foreign connections are refused.
fn gather(listener: &UnixListener) -> io::Result<Vec<UnixStream>> {
    let mut ranks: Vec<Option<UnixStream>> = Vec::new();
    while ranks.is_empty() || ranks.iter().any(Option::is_none) {
        let (mut stream, _) = listener.accept()?;
        let (Ok(rank), Ok(size)) = (frame::read_word(&mut stream), frame::read_word(&mut stream)) else {
            continue;
        };
        if ranks.is_empty() {
            ranks.resize_with(size as usize, || None);
        }
        let free = ranks.get(rank as usize).is_some_and(Option::is_none);
        if size as usize == ranks.len() && free {
            ranks[rank as usize] = Some(stream);
        } else {
            // A rank that is already connected, or belongs to another group.
            drop(frame::write_word(&mut stream, result::INVALID_USAGE as u64));
        }
    }
    let mut ranks: Vec<UnixStream> = ranks.into_iter().flatten().collect();
    tell(&mut ranks, result::SUCCESS);
    Ok(ranks)
}

fn tell(ranks: &mut [UnixStream], code: c_int) {
    for rank in ranks {
        // A disconnected rank is detected when its part is read.
        drop(frame::write_word(rank, code as u64));
    }
}

/// Runs operations until a rank disconnects.
fn while_together(ranks: &mut [UnixStream]) -> io::Result<()> {
    loop {
        let parts = match read(ranks) {
            Ok(Some(parts)) => parts,
            Ok(None) => {
                tell(ranks, result::INVALID_USAGE);
                return Ok(());
            }
            Err(error) => {
                tell(ranks, result::REMOTE_ERROR);
                return Err(error);
            }
        };
        let computed = compute(&parts);
        let scattered = parts.first().filter(|(operation, _)| operation.kind == frame::REDUCE_SCATTER);
        let shard = scattered.map(|(operation, _)| operation.answer_bytes(ranks.len()));
        for (index, rank) in ranks.iter_mut().enumerate() {
            let answer = shard.map_or(&computed[..], |shard| &computed[index * shard..(index + 1) * shard]);
            let sent = frame::write_word(rank, result::SUCCESS as u64).and_then(|()| rank.write_all(answer));
            drop(sent);
        }
    }
}

/// A rank's part of an operation.
type Part = (Operation, Vec<u8>);

/// Reads every rank's part, in their order; `None` if they are in different operations.
fn read(ranks: &mut [UnixStream]) -> io::Result<Option<Vec<Part>>> {
    let mut parts: Vec<Part> = Vec::with_capacity(ranks.len());
    for (rank, stream) in ranks.iter_mut().enumerate() {
        let operation = Operation::read(stream)?;
        if parts.first().is_some_and(|(first, _)| *first != operation) {
            return Ok(None);
        }
        let silent = operation.kind == frame::BROADCAST && operation.root != rank as u64;
        let mut bytes = vec![0; if silent { 0 } else { operation.bytes() }];
        stream.read_exact(&mut bytes)?;
        parts.push((operation, bytes));
    }
    Ok(Some(parts))
}

fn compute(parts: &[Part]) -> Vec<u8> {
    let Some((operation, first)) = parts.first() else { return Vec::new() };
    let others = parts[1..].iter().map(|(_, bytes)| bytes.as_slice());
    match (operation.kind, operation.datatype) {
        (frame::ALL_REDUCE | frame::REDUCE_SCATTER, frame::FLOAT64) => {
            let add = |a, b| (f64::from_ne_bytes(a) + f64::from_ne_bytes(b)).to_ne_bytes();
            sum::<8>(first, others, add)
        }
        (frame::ALL_REDUCE | frame::REDUCE_SCATTER, _) => {
            let add = |a, b| (f32::from_ne_bytes(a) + f32::from_ne_bytes(b)).to_ne_bytes();
            sum::<4>(first, others, add)
        }
        _ => parts.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect(),
    }
}

/// Adds the other ranks' numbers to the first, element by element.
fn sum<'a, const WIDTH: usize>(
    first: &[u8],
    others: impl Iterator<Item = &'a [u8]>,
    add: impl Fn([u8; WIDTH], [u8; WIDTH]) -> [u8; WIDTH],
) -> Vec<u8> {
    let mut total = first.to_vec();
    for other in others {
        let (totals, _) = total.as_chunks_mut::<WIDTH>();
        for (total, number) in totals.iter_mut().zip(other.as_chunks::<WIDTH>().0) {
            *total = add(*total, *number);
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_added_in_the_order_of_ranks() {
        let operation = Operation { kind: frame::ALL_REDUCE, count: 2, datatype: frame::FLOAT32, root: 0 };
        let parts = [[1.0, 1e8], [2.0, 1.0], [3.0, -1e8_f32]];
        let parts =
            parts.map(|part| (operation, part.iter().flat_map(|number| number.to_ne_bytes()).collect()));
        let sum: Vec<f32> =
            compute(&parts).as_chunks::<4>().0.iter().map(|bytes| f32::from_ne_bytes(*bytes)).collect();
        assert_eq!(sum, [6.0, (1e8 + 1.0) - 1e8]);
    }
}

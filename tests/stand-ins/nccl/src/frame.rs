//! Messages between ranks and the hub: numbers in the machine's byte order, then bytes.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// Type and size of an operation. Ranks in the same operation send equal values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    /// [`ALL_REDUCE`], [`REDUCE_SCATTER`], [`BROADCAST`] or [`ALL_GATHER`].
    pub(crate) kind: u64,
    /// Number of elements that one rank sends.
    pub(crate) count: u64,
    /// NCCL's number type: [`FLOAT32`] or [`FLOAT64`].
    pub(crate) datatype: u64,
    /// Root rank of a broadcast.
    pub(crate) root: u64,
}

pub(crate) const ALL_REDUCE: u64 = 1;
pub(crate) const BROADCAST: u64 = 2;
pub(crate) const ALL_GATHER: u64 = 3;
pub(crate) const REDUCE_SCATTER: u64 = 4;

pub(crate) const FLOAT32: u64 = 7;
pub(crate) const FLOAT64: u64 = 8;

impl Operation {
    /// Size in bytes of the elements that one rank sends.
    pub(crate) const fn bytes(&self) -> usize {
        self.count as usize * if self.datatype == FLOAT64 { 8 } else { 4 }
    }

    /// Size in bytes of the elements that each of `ranks` ranks receives.
    pub(crate) const fn answer_bytes(&self, ranks: usize) -> usize {
        match self.kind {
            ALL_GATHER => self.bytes() * ranks,
            REDUCE_SCATTER => self.bytes() / ranks,
            _ => self.bytes(),
        }
    }

    pub(crate) fn write(&self, stream: &mut UnixStream) -> io::Result<()> {
        [self.kind, self.count, self.datatype, self.root]
            .into_iter()
            .try_for_each(|word| write_word(stream, word))
    }

    pub(crate) fn read(stream: &mut UnixStream) -> io::Result<Self> {
        Ok(Self {
            kind: read_word(stream)?,
            count: read_word(stream)?,
            datatype: read_word(stream)?,
            root: read_word(stream)?,
        })
    }
}

pub(crate) fn write_word(stream: &mut UnixStream, word: u64) -> io::Result<()> {
    stream.write_all(&word.to_ne_bytes())
}

pub(crate) fn read_word(stream: &mut UnixStream) -> io::Result<u64> {
    let mut word = [0; 8];
    stream.read_exact(&mut word)?;
    Ok(u64::from_ne_bytes(word))
}

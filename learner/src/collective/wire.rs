//! Frames between ranks over TCP, each read or written by a deadline.
//!
//! A frame is its kind (1 byte), the number of the operation (8 bytes), the length of its content (8 bytes), little
//! endian, and the content.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Content of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Identity of a connecting rank, as JSON; and rank 0's answer, empty if the rank is accepted.
    Hello,
    /// Part of an all-reduce.
    AllReduce,
    /// Part of a reduce-scatter.
    ReduceScatter,
    /// Part of a broadcast.
    Broadcast,
    /// Part of an all-gather.
    AllGather,
    /// Reason why a rank aborts, as text.
    GiveUp,
    /// The same if the rank only reports the loss of another rank.
    Follow,
    /// Rank 0's query whether a rank is alive, and the answer.
    Present,
    /// Creation of a communicator.
    SetUp,
}

impl Kind {
    const ALL: [Self; 9] = [
        Self::Hello,
        Self::AllReduce,
        Self::ReduceScatter,
        Self::Broadcast,
        Self::AllGather,
        Self::GiveUp,
        Self::Follow,
        Self::Present,
        Self::SetUp,
    ];

    /// Name in messages.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::AllReduce => "all-reduce",
            Self::ReduceScatter => "reduce-scatter",
            Self::Broadcast => "broadcast",
            Self::AllGather => "all-gather",
            Self::GiveUp | Self::Follow => "giving up",
            Self::Present => "answer",
            Self::SetUp => "set-up",
        }
    }

    fn byte(self) -> u8 {
        self as u8
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Header of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) length: u64,
}

const HEADER_BYTES: usize = 17;
/// Maximum length of a hello or a reason, in bytes.
const LONGEST_TEXT: u64 = 4096;

impl Header {
    /// Description in messages: "all-reduce 7 of 4096 bytes".
    pub(super) fn describe(&self) -> String {
        format!("{} {} of {} bytes", self.kind.name(), self.number, self.length)
    }
}

/// Writes a frame.
pub(super) fn write(stream: &TcpStream, header: Header, content: &[u8], deadline: Instant) -> io::Result<()> {
    let mut bytes = [0; HEADER_BYTES];
    bytes[0] = header.kind.byte();
    bytes[1..9].copy_from_slice(&header.number.to_le_bytes());
    bytes[9..].copy_from_slice(&header.length.to_le_bytes());
    write_all(stream, &bytes, deadline)?;
    write_all(stream, content, deadline)
}

/// Reads the header of a frame.
pub(super) fn read_header(stream: &TcpStream, deadline: Instant) -> io::Result<Header> {
    let mut bytes = [0; HEADER_BYTES];
    read_all(stream, &mut bytes, deadline)?;
    parse(bytes)
}

/// Returns the header of the next frame without consuming it; `None` if it has not arrived yet. Fails with
/// `UnexpectedEof` if the connection has ended.
pub(super) fn peek_header(stream: &TcpStream) -> io::Result<Option<Header>> {
    let mut bytes = [0; HEADER_BYTES];
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut bytes);
    stream.set_nonblocking(false)?;
    match peeked {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(HEADER_BYTES) => parse(bytes).map(Some),
        Ok(_) => Ok(None),
        Err(error) if may_continue(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn parse(bytes: [u8; HEADER_BYTES]) -> io::Result<Header> {
    let word = |start: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[start..start + 8]);
        u64::from_le_bytes(word)
    };
    let kind = Kind::of(bytes[0])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a frame of a rank"))?;
    Ok(Header { kind, number: word(1), length: word(9) })
}

/// Reads a short text, the content of a frame.
pub(super) fn read_text(stream: &TcpStream, header: Header, deadline: Instant) -> io::Result<String> {
    if header.length > LONGEST_TEXT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the text of a frame is too long"));
    }
    let mut bytes = vec![0; header.length as usize];
    read_all(stream, &mut bytes, deadline)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Fills `bytes`.
pub(super) fn read_all(mut stream: &TcpStream, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => bytes = &mut bytes[count..],
            Err(error) if may_continue(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn write_all(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if may_continue(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Returns the remaining time; fails with `TimedOut` if no time remains.
pub(super) fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Returns whether to retry after an error: the timeout of one call does not count, only the deadline.
fn may_continue(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

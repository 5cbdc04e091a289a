//! Supervision of operations that do not run over the star, such as NCCL's.
//!
//! Every rank announces an operation to rank 0 before it starts. Rank 0 starts once all ranks have announced it; so
//! it can name a missing rank, and knows that all ranks run the same operation. During the operation each rank polls
//! its connections: a dead rank has closed them, a failed rank has sent the reason. After the deadline rank 0 queries
//! which ranks are alive. In every case rank 0 determines the cause and notifies the others.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::error::Error;
use super::star::{GRACE, Operation, Star};
use super::wire::{self, Header, Kind};

/// Interval between polls.
const PAUSE: Duration = Duration::from_millis(5);

/// Result of polling a connection.
enum Sight {
    /// No event that concerns the operation.
    Nothing,
    /// The other rank failed, for this reason.
    GaveUp(String),
    /// The other rank is alive.
    Present,
}

impl Star {
    /// Announces that this rank enters the operation; rank 0 waits for all announcements.
    pub(super) fn come(&self, operation: &Operation) -> Result<(), Error> {
        if self.rank() != 0 {
            return operation.send(0, &self.peers[0], &[]);
        }
        let heard = self.others().try_for_each(|(rank, peer)| operation.hear(rank, peer));
        heard.map_err(|error| self.give_up(operation, self.settle(operation, error)))
    }

    /// Checks whether the operation can still complete.
    pub(super) fn watch(&self, operation: &Operation) -> Result<(), Error> {
        if self.rank() == 0 {
            self.lost(operation)?;
        }
        for (rank, peer) in self.others() {
            if let Sight::GaveUp(reason) = operation.look(rank, peer)? {
                return Err(operation.abandoned(rank, reason));
            }
        }
        Ok(())
    }

    /// Determines the cause of a passed deadline.
    pub(super) fn overdue(&self, operation: &Operation) -> Error {
        let missing = |rank| operation.failed(rank, io::ErrorKind::TimedOut.into());
        if self.rank() != 0 {
            return missing(0);
        }
        let question = Header { kind: Kind::Present, length: 0, ..operation.header };
        let until = Instant::now() + GRACE;
        for (rank, peer) in self.others() {
            if let Err(source) = wire::write(peer, question, &[], until) {
                return operation.failed(rank, source);
            }
        }
        for (rank, peer) in self.others() {
            loop {
                match operation.look(rank, peer) {
                    Err(error) => return error,
                    Ok(Sight::GaveUp(reason)) => return operation.abandoned(rank, reason),
                    Ok(Sight::Present) => break,
                    Ok(Sight::Nothing) if wire::left(until).is_err() => return missing(rank),
                    Ok(Sight::Nothing) => std::thread::sleep(PAUSE),
                }
            }
        }
        Error::Stalled {
            operation: operation.header.kind.name(),
            number: operation.header.number,
            deadline: operation.deadline,
        }
    }

    /// Agrees with the other ranks on the cause of a failed operation. Call it after this rank has aborted the
    /// operation.
    pub(super) fn fail(&self, operation: &Operation, error: Error) -> Error {
        if self.rank() == 0 {
            return self.give_up(operation, self.settle(operation, error));
        }
        // Rank 0 has sent its decision already.
        if matches!(error, Error::Abandoned { .. } | Error::Connection { .. } | Error::Missing { .. }) {
            return error;
        }
        let cause = !matches!(&error, Error::Nccl { source, .. } if source.is_of_another_rank());
        self.tell(operation, if cause { Kind::GiveUp } else { Kind::Follow }, &error);
        let until = Instant::now() + GRACE + GRACE;
        while wire::left(until).is_ok() {
            match self.watch(operation) {
                Ok(()) => std::thread::sleep(PAUSE),
                Err(verdict @ Error::Abandoned { .. }) => return verdict,
                Err(_) => break,
            }
        }
        error
    }

    /// Rank 0: finds the root cause of an error. A dead rank explains the reports of all others and is detected a
    /// little later than their reports; a rank that failed on its own explains NCCL's errors on the others.
    fn settle(&self, operation: &Operation, mut error: Error) -> Error {
        let mut found = match &error {
            Error::Nccl { source, .. } => !source.is_of_another_rank(),
            Error::Abandoned { .. } => false,
            _ => return error,
        };
        let until = Instant::now() + GRACE;
        while wire::left(until).is_ok() {
            for (rank, peer) in self.others() {
                match drain(peer) {
                    Err(source) => return operation.failed(rank, source),
                    Ok(Some(reason)) if !found => {
                        error = operation.abandoned(rank, reason);
                        found = true;
                    }
                    Ok(_) => {}
                }
            }
            std::thread::sleep(PAUSE);
        }
        error
    }

    /// Rank 0: fails if a connection has ended.
    fn lost(&self, operation: &Operation) -> Result<(), Error> {
        for (rank, peer) in self.others() {
            wire::peek_header(peer).map_err(|source| operation.failed(rank, source))?;
        }
        Ok(())
    }

    /// Whether all connections are open.
    pub(super) fn is_whole(&self) -> bool {
        self.peers.iter().all(|peer| wire::peek_header(peer).is_ok())
    }

    /// Rank 0's connections to the others, or theirs to rank 0, by rank.
    fn others(&self) -> impl Iterator<Item = (u32, &TcpStream)> {
        let first = u32::from(self.rank() == 0);
        (first..).zip(&self.peers)
    }
}

impl Operation {
    /// Rank 0 receives a rank's announcement of the operation.
    fn hear(&self, rank: u32, peer: &TcpStream) -> Result<(), Error> {
        loop {
            let header = wire::read_header(peer, self.until).map_err(|source| self.failed(rank, source))?;
            // A late answer to an earlier query is ignored.
            if header.kind == Kind::Present {
                continue;
            }
            if matches!(header.kind, Kind::GiveUp | Kind::Follow) {
                let reason = wire::read_text(peer, header, self.until);
                return Err(self.abandoned(rank, reason.map_err(|source| self.failed(rank, source))?));
            }
            if header != self.header {
                let (found, expected) = (header.describe(), self.header.describe());
                return Err(Error::Diverged { rank, found, expected });
            }
            return Ok(());
        }
    }

    /// Polls a connection. The announcement of a rank that has entered the next operation already is left unread.
    fn look(&self, rank: u32, peer: &TcpStream) -> Result<Sight, Error> {
        let failed = |source| self.failed(rank, source);
        let Some(header) = wire::peek_header(peer).map_err(failed)? else { return Ok(Sight::Nothing) };
        let until = Instant::now() + GRACE;
        match header.kind {
            Kind::GiveUp | Kind::Follow => {
                let header = wire::read_header(peer, until).map_err(failed)?;
                wire::read_text(peer, header, until).map(Sight::GaveUp).map_err(failed)
            }
            Kind::Present => {
                let header = wire::read_header(peer, until).map_err(failed)?;
                // The other ranks answer rank 0.
                if rank == 0 {
                    wire::write(peer, header, &[], until).map_err(failed)?;
                }
                Ok(Sight::Present)
            }
            _ => Ok(Sight::Nothing),
        }
    }
}

/// Reads the available messages of a rank and returns the reason if it failed on its own. Fails if the connection has
/// ended.
fn drain(peer: &TcpStream) -> io::Result<Option<String>> {
    let mut cause = None;
    while wire::peek_header(peer)?.is_some() {
        let until = Instant::now() + GRACE;
        let header = wire::read_header(peer, until)?;
        match header.kind {
            Kind::GiveUp => cause = Some(wire::read_text(peer, header, until)?),
            Kind::Follow => drop(wire::read_text(peer, header, until)?),
            _ => {}
        }
    }
    Ok(cause)
}

//! Who takes part in an operation that goes another way than along the star, such as NCCL's.
//!
//! Every rank says to rank 0 that it comes to an operation before it begins. Rank 0 begins once all have; so it knows who
//! is missing, and that all mean the same operation. While the operation runs, each rank looks at its connections: a rank
//! that died has closed them, one that gave up has said why. Past the deadline rank 0 asks who is still there. Whatever
//! happens, rank 0 decides what it was and tells the others.

use std::io;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Error;
use super::star::{GRACE, Operation, Star};
use super::wire::{self, Header, Kind};

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);

/// What a look at a connection shows.
enum Sight {
    /// Nothing that concerns the operation.
    Nothing,
    /// The other rank gave up.
    GaveUp(String),
    /// The other rank is there.
    Present,
}

impl Star {
    /// Says that this rank comes to the operation; rank 0 waits until all have.
    pub(super) fn come(&self, operation: &Operation) -> Result<(), Error> {
        if self.rank() != 0 {
            return operation.send(0, &self.peers[0], &[]);
        }
        let heard = self.others().try_for_each(|(rank, peer)| operation.hear(rank, peer));
        heard.map_err(|error| self.give_up(operation, self.settle(operation, error)))
    }

    /// Looks whether the operation still makes sense.
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

    /// What it means that the deadline has passed.
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

    /// Agrees with the other ranks on why the operation failed. To be called once this rank has let go of it.
    pub(super) fn fail(&self, operation: &Operation, error: Error) -> Error {
        if self.rank() == 0 {
            return self.give_up(operation, self.settle(operation, error));
        }
        // Rank 0 has spoken already.
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

    /// Rank 0: finds the cause behind an error. That a rank died explains what all others report, and comes to light a little
    /// later than their reports; that a rank gave up of its own explains what NCCL says on the others.
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

    /// Rank 0: an error where a connection has ended.
    fn lost(&self, operation: &Operation) -> Result<(), Error> {
        for (rank, peer) in self.others() {
            wire::peek_header(peer).map_err(|source| operation.failed(rank, source))?;
        }
        Ok(())
    }

    /// Whether all connections are there.
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
    /// Rank 0 hears that a rank comes to the operation.
    fn hear(&self, rank: u32, peer: &TcpStream) -> Result<(), Error> {
        loop {
            let header = wire::read_header(peer, self.until).map_err(|source| self.failed(rank, source))?;
            // An answer to a question of before came too late to matter.
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

    /// Looks at a connection without waiting. A rank that comes to the next operation already is left to say so then.
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
                // Others answer rank 0.
                if rank == 0 {
                    wire::write(peer, header, &[], until).map_err(failed)?;
                }
                Ok(Sight::Present)
            }
            _ => Ok(Sight::Nothing),
        }
    }
}

/// Reads what a rank has said, as far as it is there, and returns why it gave up of its own; an error where the connection
/// has ended.
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

//! The learner's ranks: who has joined, and when all of them have come together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;

/// What a rank says when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Its process.
    pub learner: Uuid,
    /// Its rank, from 0.
    pub rank: u32,
    /// How many ranks it expects.
    pub world_size: u32,
    /// Where its collective listens; empty for ranks other than 0.
    pub address: String,
    /// The step that its newest checkpoint continues with.
    pub next_step: u64,
}

/// Where a joining rank stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether all ranks are there.
    pub complete: bool,
    /// Where rank 0's collective listens.
    pub address: String,
    /// How often the world has come together.
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    learner: Uuid,
    address: String,
    next_step: u64,
    /// Has joined the world that is forming now.
    here: bool,
    /// Has asked for a batch since the world came together: a further join means that it came back.
    asked: bool,
}

/// The ranks. Kept in the store, so that a coordinator's restart does not send the ranks back to their checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct World {
    /// Number of ranks; 0 until the first one has joined.
    size: u32,
    members: BTreeMap<u32, Member>,
    generation: u64,
    complete: bool,
    /// Whether a rank has spoken since this process started: until then a new launch may bring another size.
    #[serde(skip)]
    heard: bool,
}

impl World {
    /// Takes a rank in. A rank that comes back breaks a complete world, so that all ranks meet at one checkpoint.
    pub(super) fn join(&mut self, join: Join) -> Result<Standing, Error> {
        let Join { learner, rank, world_size, address, next_step } = join;
        if rank >= world_size {
            return Err(Error::Rank { rank, world_size });
        }
        if self.size != 0 && self.size != world_size {
            if self.heard {
                return Err(Error::WorldSize { rank, world_size, expected: self.size });
            }
            *self = Self { generation: self.generation, ..Self::default() };
        }
        self.size = world_size;
        self.heard = true;
        let repeats = |member: &Member| {
            member.learner == learner
                && member.address == address
                && member.next_step == next_step
                && !member.asked
        };
        if self.complete && !self.members.get(&rank).is_some_and(repeats) {
            self.complete = false;
            self.members.values_mut().for_each(|member| member.here = false);
        }
        self.members.insert(rank, Member { learner, address, next_step, here: true, asked: false });
        if !self.complete && self.joined() == self.size {
            self.complete = true;
            self.generation += 1;
            self.members.values_mut().for_each(|member| member.asked = false);
        }
        let address = self.members.get(&0).map(|member| member.address.clone()).unwrap_or_default();
        Ok(Standing { complete: self.complete, address, generation: self.generation })
    }

    /// Notes that a rank asks for a batch; `false` if it has to join (again) first.
    pub(super) fn ask(&mut self, rank: u32, learner: Uuid) -> bool {
        let complete = self.complete;
        match self.members.get_mut(&rank) {
            Some(member) if complete && member.learner == learner => {
                member.asked = true;
                self.heard = true;
                true
            }
            _ => false,
        }
    }

    /// The rank of a process, also of one that has to join again.
    pub(super) fn rank_of(&self, learner: Uuid) -> Option<u32> {
        self.members.iter().find(|(_, member)| member.learner == learner).map(|(rank, _)| *rank)
    }

    /// Number of ranks; 0 until the first one has joined.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// How often the world has come together.
    pub(super) const fn generation(&self) -> u64 {
        self.generation
    }

    /// Ranks that have joined.
    pub fn joined(&self) -> u32 {
        self.members.values().filter(|member| member.here).count() as u32
    }

    /// Whether all ranks are there.
    pub const fn is_complete(&self) -> bool {
        self.complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(rank: u32, world_size: u32, process: u128) -> Join {
        let address = if rank == 0 { format!("host:{process}") } else { String::new() };
        Join { learner: Uuid::from_u128(process), rank, world_size, address, next_step: 0 }
    }

    #[test]
    fn a_rank_that_comes_back_breaks_the_world() {
        let mut world = World::default();
        assert!(!world.join(join(1, 2, 11)).unwrap().complete);
        let first = world.join(join(0, 2, 10)).unwrap();
        assert_eq!(first, Standing { complete: true, address: "host:10".into(), generation: 1 });
        assert_eq!(world.join(join(1, 2, 11)).unwrap(), first, "an answer that was lost is repeated");
        assert!(world.ask(1, Uuid::from_u128(11)));
        assert!(!world.join(join(1, 2, 12)).unwrap().complete);
        assert!(!world.ask(0, Uuid::from_u128(10)), "rank 0 has to join again");
        assert_eq!(world.join(join(0, 2, 10)).unwrap().generation, 2);
        assert!(!world.ask(1, Uuid::from_u128(11)), "the old process is out");
    }

    #[test]
    fn ranks_agree_on_their_number() {
        let mut world = World::default();
        assert!(matches!(world.join(join(2, 2, 1)), Err(Error::Rank { .. })));
        world.join(join(0, 1, 1)).unwrap();
        assert!(matches!(world.join(join(1, 2, 2)), Err(Error::WorldSize { expected: 1, .. })));
        let mut restored: World = serde_json::from_str(&serde_json::to_string(&world).unwrap()).unwrap();
        assert!(restored.ask(0, Uuid::from_u128(1)), "a restart of the coordinator is not noticed");
        let mut relaunched: World = serde_json::from_str(&serde_json::to_string(&world).unwrap()).unwrap();
        assert!(!relaunched.join(join(1, 2, 2)).unwrap().complete);
        assert_eq!(relaunched.join(join(0, 2, 3)).unwrap().generation, 2);
    }
}

//! The learner's ranks: who has joined, and when all of them have come together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;

/// What a rank says when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// Of its build.
    pub code_version: String,
    /// Where its metrics can be scraped, host:port; empty if nowhere.
    pub metrics_address: String,
    /// Whether it can take part in an NCCL communicator.
    pub nccl: bool,
    /// Rank 0's unique id of a new communicator; empty for others and where it has none.
    pub nccl_id: Vec<u8>,
}

/// Where a joining rank stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether all ranks are there.
    pub complete: bool,
    /// Where rank 0's collective listens.
    pub address: String,
    /// How often the world has come together.
    pub generation: u64,
    /// Rank 0's unique id, where every rank can take part in NCCL; empty otherwise.
    pub nccl_id: Vec<u8>,
    /// The ranks that cannot.
    pub without_nccl: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    learner: Uuid,
    address: String,
    next_step: u64,
    #[serde(default)]
    metrics_address: String,
    #[serde(default)]
    nccl: bool,
    #[serde(default)]
    nccl_id: Vec<u8>,
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
    /// Of the ranks' build; empty until the first one has joined.
    #[serde(default)]
    code_version: String,
    members: BTreeMap<u32, Member>,
    generation: u64,
    complete: bool,
    /// Whether a rank has spoken since this process started: until then a new launch may bring another size or code.
    #[serde(skip)]
    heard: bool,
}

impl World {
    /// Takes a rank in. A rank that comes back breaks a complete world, so that all ranks meet at one checkpoint.
    pub(super) fn join(&mut self, join: Join) -> Result<Standing, Error> {
        let Join {
            learner,
            rank,
            world_size,
            address,
            next_step,
            code_version,
            metrics_address,
            nccl,
            nccl_id,
        } = join;
        if rank >= world_size {
            return Err(Error::Rank { rank, world_size });
        }
        if self.size != 0 && (self.size != world_size || self.code_version != code_version) {
            if self.heard && self.size != world_size {
                return Err(Error::WorldSize { rank, world_size, expected: self.size });
            }
            if self.heard {
                let expected = self.code_version.clone();
                return Err(Error::CodeVersion { rank, found: code_version, expected });
            }
            *self = self.dissolved();
        }
        self.size = world_size;
        self.code_version = code_version;
        self.heard = true;
        let repeats = |member: &Member| {
            member.learner == learner
                && member.address == address
                && member.next_step == next_step
                && (member.nccl, &member.nccl_id) == (nccl, &nccl_id)
                && !member.asked
        };
        if self.complete && !self.members.get(&rank).is_some_and(repeats) {
            self.complete = false;
            self.members.values_mut().for_each(|member| member.here = false);
        }
        let member =
            Member { learner, address, next_step, metrics_address, nccl, nccl_id, here: true, asked: false };
        self.members.insert(rank, member);
        if !self.complete && self.joined() == self.size {
            self.complete = true;
            self.generation += 1;
            self.members.values_mut().for_each(|member| member.asked = false);
        }
        Ok(self.standing())
    }

    fn standing(&self) -> Standing {
        let (address, nccl_id) = match self.members.get(&0) {
            Some(leader) => (leader.address.clone(), leader.nccl_id.clone()),
            None => Default::default(),
        };
        let without = self.members.iter().filter(|(_, member)| !member.nccl);
        let without_nccl: Vec<u32> = without.map(|(rank, _)| *rank).collect();
        let nccl_id = if without_nccl.is_empty() { nccl_id } else { Vec::new() };
        Standing { complete: self.complete, address, generation: self.generation, nccl_id, without_nccl }
    }

    /// The world without its ranks: all of them have to join again.
    #[must_use]
    pub fn dissolved(&self) -> Self {
        Self { generation: self.generation, ..Self::default() }
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

    /// The ranks that have joined at least once, and where their metrics can be scraped.
    pub(super) fn metrics_addresses(&self) -> impl Iterator<Item = (u32, &str)> {
        self.members.iter().map(|(&rank, member)| (rank, member.metrics_address.as_str()))
    }

    /// Whether a rank has joined the rank group that is forming or complete.
    pub(super) fn is_here(&self, rank: u32) -> bool {
        self.members.get(&rank).is_some_and(|member| member.here)
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
        Join {
            learner: Uuid::from_u128(process),
            rank,
            world_size,
            address,
            next_step: 0,
            code_version: "1".into(),
            metrics_address: String::new(),
            nccl: true,
            nccl_id: if rank == 0 { vec![process as u8] } else { Vec::new() },
        }
    }

    #[test]
    fn a_rank_that_comes_back_breaks_the_world() {
        let mut world = World::default();
        assert!(!world.join(join(1, 2, 11)).unwrap().complete);
        let first = world.join(join(0, 2, 10)).unwrap();
        let expected = Standing {
            complete: true,
            address: "host:10".into(),
            generation: 1,
            nccl_id: vec![10],
            without_nccl: vec![],
        };
        assert_eq!(first, expected);
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

    #[test]
    fn ranks_run_the_same_code() {
        let mut world = World::default();
        world.join(join(0, 2, 1)).unwrap();
        let other = Join { code_version: "2".into(), ..join(1, 2, 2) };
        let error = world.join(other.clone()).unwrap_err().to_string();
        assert!(error.contains("rank 1 runs code version 2, those that joined before it 1"), "{error}");
        let mut relaunched: World = serde_json::from_str(&serde_json::to_string(&world).unwrap()).unwrap();
        assert!(!relaunched.join(other).unwrap().complete, "a new launch may bring new code");
    }

    #[test]
    fn nccl_is_agreed_on_where_every_rank_can() {
        let mut world = World::default();
        world.join(Join { nccl: false, ..join(1, 3, 11) }).unwrap();
        world.join(join(2, 3, 12)).unwrap();
        let standing = world.join(join(0, 3, 10)).unwrap();
        assert_eq!((standing.nccl_id, standing.without_nccl), (vec![], vec![1]));
        world.join(join(1, 3, 11)).unwrap();
        world.join(join(2, 3, 12)).unwrap();
        let again = world.join(Join { nccl_id: vec![99], ..join(0, 3, 10) }).unwrap();
        assert_eq!((again.generation, again.nccl_id), (2, vec![99]), "an id is that of its generation");
        let id = |world: &mut World, id| world.join(Join { nccl_id: vec![id], ..join(0, 3, 10) }).unwrap();
        assert!(id(&mut world, 99).complete, "an answer that was lost is repeated");
        assert!(!id(&mut world, 98).complete, "another id is another world");
    }
}

//! The rank group: the processes that have joined as ranks, and their rendezvous.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::error::Error;

/// The data that a rank reports when it joins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Join {
    /// The id of its process.
    pub learner: Uuid,
    /// Its rank, from 0.
    pub rank: u32,
    /// Number of ranks that it expects.
    pub world_size: u32,
    /// The address of its collective; empty for ranks other than 0.
    pub address: String,
    /// The step that its newest checkpoint continues with.
    pub next_step: u64,
    /// The code version of its build.
    pub code_version: String,
    /// The address of its metrics, host:port; empty without one.
    pub metrics_address: String,
    /// Whether it can take part in an NCCL communicator.
    pub nccl: bool,
    /// Rank 0's unique id of a new communicator; empty for other ranks and without NCCL.
    pub nccl_id: Vec<u8>,
}

/// The reply to a rank that joins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rendezvous {
    /// Whether all ranks have joined.
    pub complete: bool,
    /// The address of rank 0's collective.
    pub address: String,
    /// The rendezvous epoch: the number of rendezvous so far.
    pub epoch: u64,
    /// Rank 0's unique id if every rank can take part in NCCL; empty otherwise.
    pub nccl_id: Vec<u8>,
    /// The ranks that cannot take part in NCCL.
    pub ranks_without_nccl: Vec<u32>,
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
    /// Whether it has joined the group that is forming or complete.
    #[serde(rename = "here")]
    joined: bool,
    /// Whether it has requested a batch since the rendezvous: a further join means that it restarted.
    #[serde(rename = "asked")]
    requested: bool,
}

/// The learner's ranks. They are stored, so that a restarted coordinator does not force the ranks back to
/// their checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RankGroup {
    /// Number of ranks; 0 until the first one has joined.
    size: u32,
    /// The code version of the ranks' build; empty until the first one has joined.
    #[serde(default)]
    code_version: String,
    members: BTreeMap<u32, Member>,
    /// Number of rendezvous so far.
    #[serde(rename = "generation")]
    epoch: u64,
    complete: bool,
    /// Whether a rank has called this process. Until then a new launch may have another size or code version.
    #[serde(skip)]
    heard: bool,
}

impl RankGroup {
    /// Adds a rank. A rank that restarts breaks up a complete group, so that all ranks continue from one
    /// checkpoint.
    pub(super) fn join(&mut self, join: Join) -> Result<Rendezvous, Error> {
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
                && !member.requested
        };
        if self.complete && !self.members.get(&rank).is_some_and(repeats) {
            self.complete = false;
            self.members.values_mut().for_each(|member| member.joined = false);
        }
        let member = Member {
            learner,
            address,
            next_step,
            metrics_address,
            nccl,
            nccl_id,
            joined: true,
            requested: false,
        };
        self.members.insert(rank, member);
        if !self.complete && self.joined() == self.size {
            self.complete = true;
            self.epoch += 1;
            self.members.values_mut().for_each(|member| member.requested = false);
        }
        Ok(self.rendezvous())
    }

    fn rendezvous(&self) -> Rendezvous {
        let (address, nccl_id) = match self.members.get(&0) {
            Some(leader) => (leader.address.clone(), leader.nccl_id.clone()),
            None => Default::default(),
        };
        let without = self.members.iter().filter(|(_, member)| !member.nccl);
        let ranks_without_nccl: Vec<u32> = without.map(|(rank, _)| *rank).collect();
        let nccl_id = if ranks_without_nccl.is_empty() { nccl_id } else { Vec::new() };
        Rendezvous { complete: self.complete, address, epoch: self.epoch, nccl_id, ranks_without_nccl }
    }

    /// Returns the group without its ranks; all of them must join again.
    #[must_use]
    pub fn dissolved(&self) -> Self {
        Self { epoch: self.epoch, ..Self::default() }
    }

    /// Records that a rank requests a batch; returns `false` if it must join (again) first.
    pub(super) fn request(&mut self, rank: u32, learner: Uuid) -> bool {
        let complete = self.complete;
        match self.members.get_mut(&rank) {
            Some(member) if complete && member.learner == learner => {
                member.requested = true;
                self.heard = true;
                true
            }
            _ => false,
        }
    }

    /// Returns the rank of a process, also if it must join again.
    pub(super) fn rank_of(&self, learner: Uuid) -> Option<u32> {
        self.members.iter().find(|(_, member)| member.learner == learner).map(|(rank, _)| *rank)
    }

    /// Returns the ranks that have joined at least once, with the addresses of their metrics.
    pub(super) fn metrics_addresses(&self) -> impl Iterator<Item = (u32, &str)> {
        self.members.iter().map(|(&rank, member)| (rank, member.metrics_address.as_str()))
    }

    /// Returns whether a rank has joined the group that is forming or complete.
    pub(super) fn has_joined(&self, rank: u32) -> bool {
        self.members.get(&rank).is_some_and(|member| member.joined)
    }

    /// Returns the number of ranks; 0 until the first one has joined.
    pub const fn size(&self) -> u32 {
        self.size
    }

    /// Returns the rendezvous epoch.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Returns the number of ranks that have joined.
    pub fn joined(&self) -> u32 {
        self.members.values().filter(|member| member.joined).count() as u32
    }

    /// Returns whether all ranks have joined.
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
    fn a_rank_that_comes_back_breaks_up_the_group() {
        let mut ranks = RankGroup::default();
        assert!(!ranks.join(join(1, 2, 11)).unwrap().complete);
        let first = ranks.join(join(0, 2, 10)).unwrap();
        let expected = Rendezvous {
            complete: true,
            address: "host:10".into(),
            epoch: 1,
            nccl_id: vec![10],
            ranks_without_nccl: vec![],
        };
        assert_eq!(first, expected);
        assert_eq!(ranks.join(join(1, 2, 11)).unwrap(), first, "an answer that was lost is repeated");
        assert!(ranks.request(1, Uuid::from_u128(11)));
        assert!(!ranks.join(join(1, 2, 12)).unwrap().complete);
        assert!(!ranks.request(0, Uuid::from_u128(10)), "rank 0 has to join again");
        assert_eq!(ranks.join(join(0, 2, 10)).unwrap().epoch, 2);
        assert!(!ranks.request(1, Uuid::from_u128(11)), "the old process is out");
    }

    #[test]
    fn ranks_agree_on_their_number() {
        let mut ranks = RankGroup::default();
        assert!(matches!(ranks.join(join(2, 2, 1)), Err(Error::Rank { .. })));
        ranks.join(join(0, 1, 1)).unwrap();
        assert!(matches!(ranks.join(join(1, 2, 2)), Err(Error::WorldSize { expected: 1, .. })));
        let mut restored: RankGroup = serde_json::from_str(&serde_json::to_string(&ranks).unwrap()).unwrap();
        assert!(restored.request(0, Uuid::from_u128(1)), "a restart of the coordinator is not noticed");
        let mut relaunched: RankGroup =
            serde_json::from_str(&serde_json::to_string(&ranks).unwrap()).unwrap();
        assert!(!relaunched.join(join(1, 2, 2)).unwrap().complete);
        assert_eq!(relaunched.join(join(0, 2, 3)).unwrap().epoch, 2);
    }

    #[test]
    fn ranks_run_the_same_code() {
        let mut ranks = RankGroup::default();
        ranks.join(join(0, 2, 1)).unwrap();
        let other = Join { code_version: "2".into(), ..join(1, 2, 2) };
        let error = ranks.join(other.clone()).unwrap_err().to_string();
        assert!(error.contains("rank 1 runs code version 2, those that joined before it 1"), "{error}");
        let mut relaunched: RankGroup =
            serde_json::from_str(&serde_json::to_string(&ranks).unwrap()).unwrap();
        assert!(!relaunched.join(other).unwrap().complete, "a new launch may use new code");
    }

    #[test]
    fn nccl_is_agreed_on_where_every_rank_can() {
        let mut ranks = RankGroup::default();
        ranks.join(Join { nccl: false, ..join(1, 3, 11) }).unwrap();
        ranks.join(join(2, 3, 12)).unwrap();
        let rendezvous = ranks.join(join(0, 3, 10)).unwrap();
        assert_eq!((rendezvous.nccl_id, rendezvous.ranks_without_nccl), (vec![], vec![1]));
        ranks.join(join(1, 3, 11)).unwrap();
        ranks.join(join(2, 3, 12)).unwrap();
        let again = ranks.join(Join { nccl_id: vec![99], ..join(0, 3, 10) }).unwrap();
        assert_eq!((again.epoch, again.nccl_id), (2, vec![99]), "an id is that of its epoch");
        let id =
            |ranks: &mut RankGroup, id| ranks.join(Join { nccl_id: vec![id], ..join(0, 3, 10) }).unwrap();
        assert!(id(&mut ranks, 99).complete, "an answer that was lost is repeated");
        assert!(!id(&mut ranks, 98).complete, "another id is another group");
    }
}

//! The tables of the database.

use redb::TableDefinition;

/// The file's name under the output folder.
pub const FILE_NAME: &str = "coordinator.redb";

/// Increased whenever an older coordinator could misread the file.
pub(super) const FORMAT: &str = "2";

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
/// (step, index): `ScoredGroup` of the slot's last attempt. All earlier attempts had equal rewards, and their
/// groups are not needed.
pub(super) const GROUPS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("groups");
/// (policy version, index): `Completion`.
pub(super) const ANSWERS: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("answers");
/// (step, index, SHA-256 of the request): name and values of an external reward for completions of the slot's group.
pub(super) const REWARD_ANSWERS: TableDefinition<'_, (u64, u32, &[u8]), &[u8]> =
    TableDefinition::new("reward_answers");
pub(super) const STEPS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("steps");
pub(super) const EVALUATIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("evaluations");
/// rank: the step that its checkpoint continues with.
pub(super) const CHECKPOINTS: TableDefinition<'_, u32, u64> = TableDefinition::new("checkpoints");
/// policy version: `PolicyManifest`.
pub(super) const POLICIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("policies");

/// (step, index): `SampledBy` of the group in `GROUPS`; missing for groups older than this table.
pub(super) const SAMPLED_BY: TableDefinition<'_, (u64, u32), &[u8]> = TableDefinition::new("sampled_by");
/// (step, index, number from 0): `SetAside`.
pub(super) const SET_ASIDE: TableDefinition<'_, (u64, u32, u32), &[u8]> = TableDefinition::new("set_aside");

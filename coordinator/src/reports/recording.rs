//! `groups.jsonl`: the groups of every committed step, as `podium-learner replay` reads them.
//!
//! Unlike the other files this one is not derived from the store, which removes groups once a checkpoint
//! covers them. A step's lines are therefore durable before the step is committed. The next start cuts off
//! lines of an uncommitted step, so that each committed step is present exactly once.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use podium_files::durable;
use podium_grpo::recorded::RecordedGroup;
use podium_grpo::{Group, Step};
use serde::Deserialize;

/// The recording of a run.
#[derive(Debug)]
pub struct Recording {
    path: PathBuf,
    reward_weights: Vec<f64>,
    /// The last added step, and the offset of its first line.
    last: Mutex<Option<(Step, u64)>>,
}

/// The part of a line that determines whether it is retained.
#[derive(Deserialize)]
struct Line {
    step: u64,
}

impl Recording {
    /// Opens or creates the file of a run whose steps before `next` are committed, and cuts off all other
    /// lines.
    pub fn open(path: PathBuf, reward_weights: Vec<f64>, next: Step) -> Result<Self, durable::Error> {
        let recording = Self { path, reward_weights, last: Mutex::new(None) };
        recording.cut(next)?;
        Ok(recording)
    }

    /// Appends a step's groups in the order of their indices; they are durable on return. If the step is
    /// added again after an error before the commit, its groups replace the earlier ones.
    pub fn add(&self, step: Step, groups: &[Group]) -> Result<(), durable::Error> {
        let mut text = String::new();
        for group in groups {
            let row = RecordedGroup::new(group.clone(), self.reward_weights.clone());
            text.push_str(&serde_json::to_string(&row).expect("a row is numbers, texts and lists"));
            text.push('\n');
        }
        let write = || -> std::io::Result<()> {
            let mut file = OpenOptions::new().append(true).open(&self.path)?;
            // No code panics while it holds the lock.
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let start = match *last {
                Some((added, start)) if added == step => start,
                _ => file.metadata()?.len(),
            };
            *last = Some((step, start));
            file.set_len(start)?;
            file.write_all(text.as_bytes())?;
            file.sync_data()
        };
        write().map_err(|source| durable::Error::Write { path: self.path.clone(), source })
    }

    /// Cuts the file off before the first line that is partial or belongs to a step from `next` on.
    fn cut(&self, next: Step) -> Result<(), durable::Error> {
        let failed = |source| durable::Error::Write { path: self.path.clone(), source };
        let open = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&self.path);
        let file = open.map_err(failed)?;
        let kept = kept_bytes(&file, next).map_err(failed)?;
        if kept < file.metadata().map_err(failed)?.len() {
            tracing::info!("{} is cut off after the last committed step", self.path.display());
            file.set_len(kept).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        self.path.parent().map_or(Ok(()), durable::sync_folder)
    }
}

fn kept_bytes(file: &File, next: Step) -> std::io::Result<u64> {
    let (mut reader, mut kept, mut line) = (BufReader::new(file), 0, Vec::new());
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        let stays = line.ends_with(b"\n")
            && serde_json::from_slice::<Line>(&line).is_ok_and(|line| line.step < next.0);
        if !stays {
            return Ok(kept);
        }
        kept += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use podium_grpo::{GroupId, PolicyVersion};

    use super::*;

    fn groups(step: u64) -> Vec<Group> {
        let group = |index| Group {
            id: GroupId::first(Step(step), index),
            policy_version: PolicyVersion(step),
            prompt_ids: vec![1, 2],
            completions: vec![],
            reward_terms: vec!["form".into()],
            term_rewards: vec![],
            rewards: vec![],
            rank_credits: vec![],
        };
        [0, 1].map(group).into()
    }

    #[test]
    fn each_committed_step_is_recorded_once_through_crashes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("groups.jsonl");
        let open = |next| Recording::open(path.clone(), vec![0.5], Step(next)).unwrap();
        let recording = open(0);
        for step in [0, 0, 1, 2, 2] {
            recording.add(Step(step), &groups(step)).unwrap();
        }
        let whole = std::fs::read(&path).unwrap();
        // The process died during the write of step 2, or after it and before the commit.
        for end in [whole.len() - 1, whole.len() - 90, whole.len()] {
            std::fs::write(&path, &whole[..end]).unwrap();
            open(2).add(Step(2), &groups(2)).unwrap();
            assert!(std::fs::read(&path).unwrap() == whole, "cut at {end}");
        }
        open(3);
        assert!(std::fs::read(&path).unwrap() == whole);
        let rows: Vec<RecordedGroup> = std::str::from_utf8(&whole)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let names: Vec<_> = rows.iter().map(|row| (row.step.unwrap(), row.index.unwrap())).collect();
        assert_eq!(names, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        assert_eq!(rows[0].reward_weights, [0.5]);
    }
}

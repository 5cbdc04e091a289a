//! How the run moves on: results into slots, batches out, steps committed.

use std::collections::BTreeMap;
use std::time::Instant;

use podium_grpo::Step;
use podium_proto::convert::Slot;

use super::closing::{self, Finished};
use super::state::State;
use super::{BatchAnswer, BatchWanted, Commit, Counts, Error, Submission, blocking};
use crate::grading::filled;
use crate::machine::{Action, Event, Filled, Verdict};
use crate::metrics;
use crate::reports::forms::Source;
use crate::reports::step;
use crate::store::Results;

impl State {
    pub(super) async fn submit(&mut self, submission: Submission) -> Result<Counts, Error> {
        let Submission { worker, lease, version, content, results } = submission;
        self.parts.machine.check_worker(worker)?;
        // Results of a content that was superseded meanwhile are those of another policy.
        let current = self.parts.policies.content(version) == Some(content);
        let mut counts = [Counts::default(); 2];
        let mut slots = BTreeMap::new();
        let mut wanted = |Filled { slot, zero_variance }: Filled, training: bool| {
            let counts = &mut counts[usize::from(training)];
            match self.parts.machine.verdict_under(slot, version, lease) {
                // A message may name a slot twice.
                Verdict::Wanted if current && slots.insert(slot, zero_variance).is_none() => {
                    counts.accepted += 1;
                    return true;
                }
                _ if !current => counts.refused += 1,
                Verdict::Wanted | Verdict::Repeated => counts.repeated += 1,
                Verdict::Refused => counts.refused += 1,
            }
            false
        };
        let Results { mut groups, mut answers } = results;
        groups.retain(|group| wanted(filled(group), true));
        let answered =
            |version, index| Filled { slot: Slot::Evaluation { version, index }, zero_variance: false };
        answers.retain(|&(version, index, _)| wanted(answered(version, index), false));
        let (completions, tokens) = closing::volume(&groups);
        let kept = Results { groups, answers };
        if !kept.is_empty() {
            let (store, sampled_by) = (self.parts.store.clone(), self.sampled_by(worker));
            self.write(move || Ok(store.put_results(&kept, &sampled_by)?)).await?;
        }
        let filled = slots.into_iter().map(|(slot, zero_variance)| Filled { slot, zero_variance }).collect();
        self.step(Event::Scored { worker, lease, filled }).await;
        let [evaluation, training] = counts;
        metrics::submitted(true, training.accepted, training.repeated, training.refused);
        metrics::submitted(false, evaluation.accepted, evaluation.repeated, evaluation.refused);
        metrics::completions(completions, tokens);
        Ok(Counts {
            accepted: training.accepted + evaluation.accepted,
            repeated: training.repeated + evaluation.repeated,
            refused: training.refused + evaluation.refused,
        })
    }

    pub(super) async fn batch(&mut self, wanted: BatchWanted) -> Result<BatchAnswer, Error> {
        let BatchWanted { rank, learner, step, lost } = wanted;
        self.met_somebody = true;
        self.lose_versions(learner, lost).await?;
        if let Some(missed) = self.parts.machine.missed_commit(rank, learner, step) {
            tracing::info!("{missed} was finished before its report was lost: it is committed now");
            self.close_step(missed, None).await?;
        }
        let answer = self.step(Event::BatchWanted { rank, learner, step }).await;
        if rank == 0 {
            self.learner_waits = !matches!(answer, Some(Action::ServeBatch));
        }
        match answer {
            Some(Action::ServeBatch) => {
                Ok(BatchAnswer::Ready { world_size: self.parts.machine.world().size() })
            }
            Some(Action::Rejoin) => Ok(BatchAnswer::Rejoin),
            Some(Action::Republish { version, first_step }) => {
                Ok(BatchAnswer::Republish { version, first_step })
            }
            Some(Action::Leave { reason }) => Ok(BatchAnswer::Over(reason)),
            Some(Action::Refuse(error)) => Err(error.into()),
            _ => Ok(BatchAnswer::NotReady),
        }
    }

    pub(super) async fn commit(&mut self, commit: Commit) -> Result<bool, Error> {
        let Commit { learner, step, figures, checkpoint } = commit;
        let (rank, fresh) = self.parts.machine.check_commit(learner, step)?;
        if fresh {
            self.rank_trouble.clear();
            self.close_step(step, Some(figures)).await?;
        } else if rank == 0 {
            let store = self.parts.store.clone();
            let late = self.write(move || closing::add_report(&store, step, &figures)).await?;
            self.reports_behind |= late.is_some();
        }
        if let Some(step) = checkpoint {
            let store = self.parts.store.clone();
            self.write(move || Ok(store.put_checkpoint(rank, step)?)).await?;
            self.step(Event::CheckpointKept { rank, step }).await;
        }
        let last = step.next().0 >= self.parts.machine.last_version().0;
        let machine = &self.parts.machine;
        // A version that nobody else can make again is asked for before rank 0 leaves.
        let stays = rank == 0 && machine.to_republish(step.next()).is_some();
        let over = (last && !stays) || machine.over().is_some();
        if over {
            self.step(Event::RankTold { rank }).await;
        }
        Ok(over)
    }

    async fn close_step(&mut self, step: Step, figures: Option<BTreeMap<String, f64>>) -> Result<(), Error> {
        let (store, curriculum) = (self.parts.store.clone(), self.parts.curriculum.clone());
        let seconds = self.last_commit.elapsed().as_secs_f64();
        let plan = self.parts.machine.plan().clone();
        let finished = Finished { step, figures, seconds, steps: plan.steps };
        let recording = self.parts.recording.clone();
        let close = move || closing::close_step(&store, &curriculum, recording.as_deref(), finished);
        let record = self.write(close).await?;
        self.last_commit = Instant::now();
        self.step(Event::StepCommitted { step }).await;
        self.forms.note(Source::Step(step.0), &record.row, &record.samples);
        self.last_step = step::numbers(&record.row);
        metrics::step_committed(plan.prompts_per_step, seconds, &self.last_step);
        self.weigh_load();
        let added = self.reports.add_step(&record);
        self.reports_behind |= added.is_err();
        self.note(added.err());
        let (policies, latest) = (self.parts.policies.clone(), self.parts.machine.latest());
        let pruned: Result<(), Error> = blocking(move || Ok(policies.prune(&plan, latest)?)).await;
        self.note(pruned.err());
        Ok(())
    }
}

//! The steps of a rank group.

use std::time::Instant;

use podium_config::Colocate;
use podium_grpo::{PolicyVersion, Step};
use podium_model::{SharedDevice, memory};
use podium_proto::v1::Activity;

use super::error::Error;
use super::learner::Learner;
use super::publishing::Republished;
use super::room;
use crate::batch::Share;
use crate::rank::{self, Position, Rank};
use crate::session::Next;
use crate::update::{self, Metrics, Unusable};

/// Reason why a rank group ends.
pub(super) enum End {
    RunOver,
    /// A new rendezvous is necessary, after this many steps.
    Rejoin {
        steps: u64,
    },
    /// This rank must repeat the steps since its newest checkpoint to recompute a lost version.
    RollBack {
        version: PolicyVersion,
    },
}

impl Learner<'_> {
    /// Takes steps until the rank group ends.
    pub(super) async fn steps(&self, position: Position) -> Result<End, Error> {
        let first = position.next_step;
        let mut step = first;
        if let (Some(metrics), Some(before)) = (&position.metrics, first.0.checked_sub(1)) {
            // The checkpoint of a shutdown is written before its policy is published: the published version may be
            // missing or differ; the coordinator then replaces or refuses it.
            self.publish_current(first).await?;
            // The commit of the step before the checkpoint may have been lost; repeating it is harmless.
            self.session.commit(Step(before), metrics, Some(first)).await?;
        }
        let mut lost = Vec::new();
        loop {
            let asked = Instant::now();
            let (share, unusable) = match self.session.next(step, &lost).await? {
                Next::Share { share, unusable } => (share, unusable),
                Next::Republish(wanted) => {
                    match self.republish(wanted).await? {
                        Republished::Done => {}
                        Republished::AfterSteps => return Ok(End::RollBack { version: wanted.version }),
                        Republished::Impossible => lost.push(wanted.version),
                    }
                    continue;
                }
                Next::Rejoin => return Ok(End::Rejoin { steps: step.0 - first.0 }),
                Next::RunOver(reason) => {
                    tracing::info!("the run is over: {reason}");
                    return Ok(End::RunOver);
                }
            };
            crate::metrics::waited(asked.elapsed().as_secs_f64());
            match self.step(step, share, unusable).await {
                Ok(true) => return Ok(End::RunOver),
                Ok(false) => step = step.next(),
                Err(Error::Rank(rank::Error::Update(update::Error::Unusable { groups, .. }))) => {
                    self.set_aside(step, &groups).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes one step and reports it; returns `true` if it ends the run. `unusable`: groups that
    /// were removed from the share.
    async fn step(&self, step: Step, share: Share, unusable: Vec<Unusable>) -> Result<bool, Error> {
        let leader = self.identity.rank == 0;
        let shares_gpu = self.file.launch.colocate == Colocate::Share;
        let activities = self.session.activities().clone();
        let metrics = self
            .on_device("take a step", move |rank| {
                let shared = rank.shared();
                let _turn = shared.as_ref().map(SharedDevice::turn);
                let _updating = activities.begin(Activity::Update);
                rank.check(&share, unusable)?;
                let began = Instant::now();
                let metrics = rank.step(&share)?;
                crate::metrics::stepped(&share, &metrics);
                crate::metrics::computed(rank.flops(), began.elapsed());
                if shares_gpu || shared.is_some() {
                    memory::release_cache();
                }
                Ok::<_, rank::Error>(metrics)
            })
            .await?;
        if leader {
            self.save_policy(step.produces()).await?;
        }
        let done = step.next();
        let due =
            done.0.is_multiple_of(self.file.learner.checkpoint_every_steps) || done.0 == self.file.run.steps;
        let stop = self.stop.is_cancelled();
        let stop = self.on_device("agree on a checkpoint", move |rank| rank.agree_to_stop(stop)).await?;
        if due || stop {
            let _gathering = self.session.activities().begin(Activity::Checkpoint);
            self.on_device("gather a checkpoint", Rank::gather_checkpoint).await?;
        }
        // A shutdown may have a short deadline. Otherwise workers sample the next step while the checkpoint is written.
        if stop {
            self.write_checkpoint().await?;
        }
        if leader {
            self.publish(step.produces()).await?;
        }
        if due && !stop {
            self.write_checkpoint().await?;
        }
        let metrics = if leader { metrics } else { Metrics::new() };
        Ok(self.session.commit(step, &metrics, due.then_some(done)).await?)
    }

    /// Writes a checkpoint of the gathered state; waits for disk space.
    async fn write_checkpoint(&self) -> Result<(), Error> {
        let _writing = self.session.activities().begin(Activity::Checkpoint);
        let write = || self.on_device("write a checkpoint", Rank::write_checkpoint);
        room::wait("write a checkpoint", &self.stop, write).await
    }
}

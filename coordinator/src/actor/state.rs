//! The actor's own state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use podium_grpo::PolicyVersion;
use podium_service::logs::describe;
use tokio::sync::watch;
use uuid::Uuid;

use super::clock::Clock;
use super::closer::Closer;
use super::closes::Closes;
use super::command::Profile;
use super::offences::Offences;
use super::storage::Database;
use crate::discovery::Discovery;
use crate::external::ExternalRewards;
use crate::identity::Identity;
use crate::machine::sequencer::Sequencer;
use crate::machine::{Effect, Machine, Millis};
use crate::metrics;
use crate::policies::Policies;
use crate::reports::Reports;
use crate::reports::forms::Forms;
use crate::reports::summary::Baselines;
use crate::reports::watch::{Findings, Watch};
use crate::scaling::{Advice, Load};
use crate::store::Store;
use crate::timeline::Timeline;

/// The parts that the actor works with.
#[derive(Debug)]
pub struct Parts {
    /// The identity of the run.
    pub identity: Identity,
    /// The run's database.
    pub store: Arc<Store>,
    /// The policy versions.
    pub policies: Arc<Policies>,
    /// Creates the records of steps and evaluations.
    pub closer: Arc<dyn Closer>,
    /// Compares the ranking metrics with the reward.
    pub watch: Watch,
    /// Rankings without a policy.
    pub baselines: Baselines,
    /// The processes to scrape.
    pub discovery: Discovery,
    /// The clock of leases and workers.
    pub clock: Clock,
    /// The activities of a step.
    pub timeline: Arc<Timeline>,
    /// Rewards that a program of the user computes.
    pub external: Arc<ExternalRewards>,
    /// The output folder.
    pub out: PathBuf,
}

/// The reasons why the coordinator exits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitReason {
    /// All steps and evaluations are done.
    Complete,
    /// The run was ended early.
    Drained {
        /// The requester and the reason.
        reason: String,
    },
    /// The process was stopped; a restart continues the run.
    Stopped,
}

pub(super) struct State {
    pub(super) parts: Parts,
    pub(super) run: Sequencer<Database>,
    pub(super) closes: Closes,
    pub(super) reports: Reports,
    /// End of the last step's time and start of this one's.
    pub(super) last_commit: Instant,
    pub(super) over_since: Option<Instant>,
    pub(super) retry_at: Option<Instant>,
    /// Whether any worker or rank has called this process.
    pub(super) has_peers: bool,
    pub(super) profiles: BTreeMap<Uuid, Profile>,
    /// Whether the report files lack stored records.
    pub(super) reports_behind: bool,
    pub(super) finish_wanted: bool,
    /// By rank, the reason why it joined again or failed since the last step, as a readable line.
    pub(super) rank_trouble: BTreeMap<u32, String>,
    /// Offences of workers with unusable results.
    pub(super) offences: Offences,
    /// The current warnings about ranks and leases.
    pub(super) concerns: BTreeSet<String>,
    pub(super) last_step: BTreeMap<String, f64>,
    pub(super) last_evaluation: Option<(PolicyVersion, BTreeMap<String, f64>)>,
    pub(super) findings: Findings,
    /// Needed policy versions that cannot be served, with the reason of each.
    pub(super) missing: BTreeMap<PolicyVersion, String>,
    /// Abandoned evaluations, with the reason of each.
    pub(super) abandoned: BTreeMap<PolicyVersion, String>,
    /// The inspection of the needed versions that is in progress.
    pub(super) inspection: Option<tokio::task::JoinHandle<BTreeMap<PolicyVersion, String>>>,
    /// Start time of the last inspection.
    pub(super) inspected: Instant,
    /// Whether any completion of the run was well-formed.
    pub(super) forms: Forms,
    /// Whether rank 0 is waiting for groups.
    pub(super) learner_waits: bool,
    pub(super) load: Load,
    pub(super) load_noted: Instant,
    pub(super) advice: Option<Advice>,
    pub(super) changes: watch::Sender<u64>,
}

impl State {
    pub(super) fn new(parts: Parts, machine: Machine, changes: watch::Sender<u64>) -> Self {
        let now = Instant::now();
        Self {
            run: Sequencer::new(machine, Database::new(parts.store.clone())),
            closes: Closes::default(),
            reports: Reports::new(&parts.out),
            parts,
            last_commit: now,
            over_since: None,
            retry_at: None,
            has_peers: false,
            profiles: BTreeMap::new(),
            reports_behind: true,
            finish_wanted: false,
            rank_trouble: BTreeMap::new(),
            offences: Offences::default(),
            concerns: BTreeSet::new(),
            last_step: BTreeMap::new(),
            last_evaluation: None,
            findings: Findings::default(),
            missing: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            inspection: None,
            inspected: now,
            forms: Forms::default(),
            learner_waits: true,
            load: Load::default(),
            load_noted: now,
            advice: None,
            changes,
        }
    }

    pub(super) fn now(&self) -> Millis {
        self.parts.clock.now()
    }

    /// Performs the effects of the transitions since the last call.
    pub(super) fn perform_effects(&mut self) {
        let (effects, failures) = self.run.take_effects();
        for effect in effects {
            match effect {
                Effect::Wake => self.changes.send_modify(|count| *count += 1),
                Effect::LeaseExpired(_) => {
                    metrics::lease_expired();
                    tracing::warn!(
                        "a lease was not renewed in time: its prompts are assigned to another worker"
                    );
                }
                Effect::WorkerLost(worker) => {
                    metrics::worker_lost();
                    self.profiles.remove(&worker);
                    self.list_processes();
                    tracing::warn!(
                        "worker {worker} sent no heartbeat within network.lease_deadline_ms and is lost"
                    );
                }
                Effect::StoreRankGroup => {
                    tracing::info!(
                        "all {} learner ranks have joined",
                        self.run.machine().rank_group().size()
                    );
                }
                Effect::DropGroups { .. } => {}
                Effect::RunComplete => self.finish_wanted = true,
            }
        }
        // Not fatal: after a restart the ranks join again, and the groups are deleted with the next
        // checkpoint.
        for error in failures {
            self.note(Some(&error));
        }
    }

    /// Retains a line about a rank until the next step is committed, and logs it if it is new.
    pub(super) fn note_rank(&mut self, rank: u32, line: String) {
        if self.rank_trouble.get(&rank) != Some(&line) {
            tracing::warn!("{line}");
            self.rank_trouble.insert(rank, line);
        }
    }

    /// Logs an error, and shows it in the status until the next write.
    pub(super) fn note<E: std::error::Error + 'static>(&mut self, error: Option<&E>) {
        if let Some(error) = error {
            let trouble = describe(error);
            tracing::error!("{trouble}");
            self.run.storage_mut().note_trouble(trouble);
        }
    }
}

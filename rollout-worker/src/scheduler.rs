//! The scheduler of the worker's lease slots, as a pure state machine.
//!
//! One lease is sampled at a time, since there is one device; meanwhile another may be submitted, so that the next
//! lease is requested before the last submission ends. No clock, no network, no policy.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Maximum number of leases: one being sampled and one being submitted.
const SLOTS: usize = 2;

/// Maximum number of consecutive registrations that the coordinator forgets at once.
const MAX_FORGOTTEN: u32 = 3;

/// An action to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Register the worker.
    Register,
    /// Request a lease.
    Ask,
    /// Sample this lease.
    Sample(Uuid),
    /// Submit this lease.
    Submit(Uuid),
}

/// The reasons why no more leases are requested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// The coordinator ended the run, for this reason.
    RunOver(String),
    /// This process is shutting down.
    ShutDown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Unknown,
    Registering,
    Registered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Sampling,
    Sampled,
    Submitting,
}

/// The scheduler's state. [`Scheduler::next`] returns the next action, the other methods record results.
#[derive(Debug)]
pub(crate) struct Scheduler {
    link: Link,
    asking: bool,
    leases: BTreeMap<Uuid, Phase>,
    ending: Option<Ending>,
    forgotten_in_a_row: u32,
}

impl Scheduler {
    pub(crate) const fn new() -> Self {
        let leases = BTreeMap::new();
        Self { link: Link::Unknown, asking: false, leases, ending: None, forgotten_in_a_row: 0 }
    }

    /// Returns the next action, which counts as started; `None` until the next event.
    pub(crate) fn next(&mut self) -> Option<Action> {
        if self.is_finished() {
            return None;
        }
        if self.link == Link::Unknown {
            self.link = Link::Registering;
            return Some(Action::Register);
        }
        if self.find(Phase::Sampling).is_none()
            && let Some(id) = self.find(Phase::Waiting)
        {
            self.leases.insert(id, Phase::Sampling);
            return Some(Action::Sample(id));
        }
        if !self.is_registered() {
            return None;
        }
        if let Some(id) = self.find(Phase::Sampled) {
            self.leases.insert(id, Phase::Submitting);
            return Some(Action::Submit(id));
        }
        let device_is_free = self.find(Phase::Sampling).is_none();
        if device_is_free && !self.asking && self.ending.is_none() && self.leases.len() < SLOTS {
            self.asking = true;
            return Some(Action::Ask);
        }
        None
    }

    /// Records that the coordinator knows the worker.
    pub(crate) const fn registered(&mut self) {
        self.link = Link::Registered;
    }

    /// Records that the coordinator does not know the worker (any more), because it restarted. Returns `false` if
    /// that happens repeatedly.
    #[must_use]
    pub(crate) fn forgotten(&mut self) -> bool {
        // A delayed answer during a registration has no new information.
        if self.link == Link::Registered {
            self.link = Link::Unknown;
            self.forgotten_in_a_row += 1;
        }
        self.forgotten_in_a_row <= MAX_FORGOTTEN
    }

    /// Records that the coordinator still knows the worker.
    pub(crate) const fn known(&mut self) {
        self.forgotten_in_a_row = 0;
    }

    /// Records an assigned lease. Returns whether it is accepted: not if it is already held or the worker is shutting
    /// down.
    pub(crate) fn leased(&mut self, id: Uuid) -> bool {
        self.answered();
        if self.ending.is_some() || self.holds(id) {
            return false;
        }
        self.leases.insert(id, Phase::Waiting);
        true
    }

    /// Records an answer without a lease.
    pub(crate) const fn idle(&mut self) {
        self.answered();
    }

    /// Records a failed request, to be repeated.
    pub(crate) const fn not_answered(&mut self) {
        self.asking = false;
    }

    const fn answered(&mut self) {
        self.asking = false;
        self.known();
    }

    /// Records the end of the run.
    pub(crate) fn run_over(&mut self, reason: String) {
        self.answered();
        self.ending.get_or_insert(Ending::RunOver(reason));
    }

    /// Records the completions of a lease.
    pub(crate) fn sampled(&mut self, id: Uuid) {
        self.leases.insert(id, Phase::Sampled);
    }

    /// Records that the coordinator could not accept a lease's completions now.
    pub(crate) fn not_submitted(&mut self, id: Uuid) {
        self.leases.insert(id, Phase::Sampled);
    }

    /// Records that the coordinator has a lease's completions.
    pub(crate) fn submitted(&mut self, id: Uuid) {
        self.known();
        self.leases.remove(&id);
    }

    /// Records that the sampling of a lease was stopped.
    pub(crate) fn stopped(&mut self, id: Uuid) {
        self.leases.remove(&id);
    }

    /// Records that a lease was assigned to another worker. Returns whether to stop its sampling; finished
    /// completions are still submitted, which is safe and may be sooner.
    pub(crate) fn lost(&mut self, id: Uuid) -> bool {
        match self.leases.get(&id) {
            Some(Phase::Waiting) => {
                self.leases.remove(&id);
                false
            }
            Some(Phase::Sampling) => true,
            Some(Phase::Sampled | Phase::Submitting) | None => false,
        }
    }

    /// Starts the shutdown: started actions are finished, and no others are started.
    pub(crate) fn shut_down(&mut self) {
        self.ending.get_or_insert(Ending::ShutDown);
        self.asking = false;
        self.leases.retain(|_, phase| *phase != Phase::Waiting);
    }

    /// Returns why no more leases are requested, if so.
    pub(crate) const fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Whether all work is done. A coordinator that forgets the worker at the end of the run is not contacted again.
    pub(crate) fn is_finished(&self) -> bool {
        match self.ending {
            None => false,
            Some(Ending::ShutDown) => self.leases.is_empty(),
            Some(Ending::RunOver(_)) => self.leases.is_empty() || !self.is_registered(),
        }
    }

    /// Whether the coordinator knows the worker.
    pub(crate) fn is_registered(&self) -> bool {
        self.link == Link::Registered
    }

    /// Whether this worker holds a lease.
    pub(crate) fn holds(&self, id: Uuid) -> bool {
        self.leases.contains_key(&id)
    }

    /// The leases to extend by heartbeats.
    pub(crate) fn held(&self) -> impl Iterator<Item = Uuid> {
        self.leases.keys().copied()
    }

    fn find(&self, wanted: Phase) -> Option<Uuid> {
        self.leases.iter().find(|(_, phase)| **phase == wanted).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn begun(scheduler: &mut Scheduler) -> Vec<Action> {
        std::iter::from_fn(|| scheduler.next()).collect()
    }

    fn registered() -> Scheduler {
        let mut scheduler = Scheduler::new();
        assert_eq!(begun(&mut scheduler), [Action::Register]);
        scheduler.registered();
        assert_eq!(begun(&mut scheduler), [Action::Ask]);
        scheduler
    }

    #[test]
    fn the_next_lease_is_requested_while_the_last_is_submitted() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        assert_eq!(begun(&mut scheduler), [Action::Sample(A)]);
        scheduler.sampled(A);
        assert_eq!(begun(&mut scheduler), [Action::Submit(A), Action::Ask]);
        assert!(scheduler.leased(B));
        assert_eq!(begun(&mut scheduler), [Action::Sample(B)]);
        assert_eq!(scheduler.held().collect::<Vec<_>>(), [A, B]);
        scheduler.sampled(B);
        assert_eq!(begun(&mut scheduler), [Action::Submit(B)], "both slots are taken");
        scheduler.submitted(A);
        assert_eq!(begun(&mut scheduler), [Action::Ask]);
        scheduler.idle();
        assert_eq!(begun(&mut scheduler), [Action::Ask]);
    }

    #[test]
    fn the_worker_registers_again_after_a_coordinator_restart() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        assert_eq!(begun(&mut scheduler), [Action::Sample(A)]);
        assert!(scheduler.forgotten());
        assert_eq!(begun(&mut scheduler), [Action::Register], "sampling continues meanwhile");
        assert!(scheduler.forgotten(), "the second answer of the same kind changes nothing");
        scheduler.sampled(A);
        assert_eq!(begun(&mut scheduler), []);
        scheduler.registered();
        assert_eq!(begun(&mut scheduler), [Action::Submit(A), Action::Ask]);
        scheduler.not_submitted(A);
        scheduler.not_answered();
        assert_eq!(begun(&mut scheduler), [Action::Submit(A), Action::Ask]);
    }

    #[test]
    fn repeatedly_forgotten_registrations_are_limited() {
        let mut scheduler = registered();
        for _ in 0..MAX_FORGOTTEN {
            assert!(scheduler.forgotten());
            scheduler.not_answered();
            assert_eq!(begun(&mut scheduler), [Action::Register]);
            scheduler.registered();
            assert_eq!(begun(&mut scheduler), [Action::Ask]);
        }
        assert!(!scheduler.forgotten());
    }

    #[test]
    fn a_shutdown_finishes_started_work_and_starts_nothing() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        assert_eq!(begun(&mut scheduler), [Action::Sample(A)]);
        scheduler.shut_down();
        assert!(!scheduler.is_finished());
        scheduler.sampled(A);
        assert_eq!(begun(&mut scheduler), [Action::Submit(A)]);
        scheduler.submitted(A);
        assert!(scheduler.is_finished());
        assert_eq!(begun(&mut scheduler), []);

        let mut scheduler = registered();
        scheduler.shut_down();
        assert!(scheduler.is_finished());
        assert!(!scheduler.leased(A), "a late lease is not accepted");
        assert!(scheduler.is_finished());
    }

    #[test]
    fn the_end_of_the_run_lets_a_submission_finish() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        begun(&mut scheduler);
        scheduler.sampled(A);
        begun(&mut scheduler);
        scheduler.run_over("all steps are done".into());
        assert!(!scheduler.is_finished());
        scheduler.shut_down();
        assert_eq!(scheduler.ending(), Some(&Ending::RunOver("all steps are done".into())));
        scheduler.submitted(A);
        assert!(scheduler.is_finished());
    }

    #[test]
    fn a_lost_lease_is_stopped_unless_it_is_done() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        assert!(!scheduler.lost(A), "its sampling has not started");
        assert_eq!(begun(&mut scheduler), [Action::Ask]);
        assert!(scheduler.leased(B));
        begun(&mut scheduler);
        assert!(scheduler.lost(B));
        scheduler.stopped(B);
        assert_eq!(begun(&mut scheduler), [Action::Ask]);
        assert!(!scheduler.lost(B), "it is not held any more");
    }
}

//! What to do next: the worker's slots for leases, as a pure state machine.
//!
//! One lease is sampled at a time, since the device is one; another may be on its way to the coordinator meanwhile, so
//! that the next one is asked for while the last one is handed in. No clock, no network, no policy in here.

use std::collections::BTreeMap;

use uuid::Uuid;

/// Leases held at once: one being sampled and one being handed in.
const SLOTS: usize = 2;

/// How often in a row the coordinator may have forgotten this worker right after registering it.
const PATIENCE: u32 = 3;

/// Something to begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Introduce the worker.
    Register,
    /// Ask for a lease.
    Ask,
    /// Sample this one.
    Sample(Uuid),
    /// Hand this one in.
    Submit(Uuid),
}

/// Why no more leases are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The coordinator said so, for this reason.
    RunOver(String),
    /// This process was asked to leave.
    Leaving,
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

/// The state. [`Scheduler::next`] says what to begin, the other methods what came of it.
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

    /// The next thing to begin, which counts as begun; `None` until something changes.
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

    /// The coordinator knows the worker.
    pub(crate) const fn registered(&mut self) {
        self.link = Link::Registered;
    }

    /// The coordinator does not know the worker (any more): it has been restarted. `false` if that happens again and
    /// again.
    #[must_use]
    pub(crate) fn forgotten(&mut self) -> bool {
        // An answer that was on its way while the worker registered again says nothing new.
        if self.link == Link::Registered {
            self.link = Link::Unknown;
            self.forgotten_in_a_row += 1;
        }
        self.forgotten_in_a_row <= PATIENCE
    }

    /// The coordinator still knows the worker.
    pub(crate) const fn known(&mut self) {
        self.forgotten_in_a_row = 0;
    }

    /// A lease came. Says whether it is taken: not one that is held already, and none by a worker that leaves.
    pub(crate) fn leased(&mut self, id: Uuid) -> bool {
        self.answered();
        if self.ending.is_some() || self.holds(id) {
            return false;
        }
        self.leases.insert(id, Phase::Waiting);
        true
    }

    /// There was nothing to do, or no answer.
    pub(crate) const fn idle(&mut self) {
        self.answered();
    }

    /// Asking failed, to be done again.
    pub(crate) const fn not_answered(&mut self) {
        self.asking = false;
    }

    const fn answered(&mut self) {
        self.asking = false;
        self.known();
    }

    /// The run is over.
    pub(crate) fn run_over(&mut self, reason: String) {
        self.answered();
        self.ending.get_or_insert(Ending::RunOver(reason));
    }

    /// A lease's completions are there.
    pub(crate) fn sampled(&mut self, id: Uuid) {
        self.leases.insert(id, Phase::Sampled);
    }

    /// The coordinator could not take a lease's completions now.
    pub(crate) fn not_submitted(&mut self, id: Uuid) {
        self.leases.insert(id, Phase::Sampled);
    }

    /// The coordinator has a lease's completions.
    pub(crate) fn submitted(&mut self, id: Uuid) {
        self.known();
        self.leases.remove(&id);
    }

    /// Sampling of a lease was stopped.
    pub(crate) fn stopped(&mut self, id: Uuid) {
        self.leases.remove(&id);
    }

    /// A lease is somebody else's now. Says whether its sampling should be stopped; completions that are there already
    /// are handed in all the same, which is harmless and may be sooner.
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

    /// The process is to leave: what is begun is finished, nothing else is begun.
    pub(crate) fn leave(&mut self) {
        self.ending.get_or_insert(Ending::Leaving);
        self.asking = false;
        self.leases.retain(|_, phase| *phase != Phase::Waiting);
    }

    /// Why no more leases are asked for, if so.
    pub(crate) const fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Whether everything is done. A coordinator that forgets the worker at the end of the run is not asked again.
    pub(crate) fn is_finished(&self) -> bool {
        match self.ending {
            None => false,
            Some(Ending::Leaving) => self.leases.is_empty(),
            Some(Ending::RunOver(_)) => self.leases.is_empty() || !self.is_registered(),
        }
    }

    /// Whether the coordinator knows the worker.
    pub(crate) fn is_registered(&self) -> bool {
        self.link == Link::Registered
    }

    /// Whether a lease is this worker's.
    pub(crate) fn holds(&self, id: Uuid) -> bool {
        self.leases.contains_key(&id)
    }

    /// The leases to keep alive.
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
    fn the_next_lease_is_asked_for_while_the_last_is_handed_in() {
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
    fn a_coordinator_that_forgot_the_worker_gets_to_know_it_again() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        assert_eq!(begun(&mut scheduler), [Action::Sample(A)]);
        assert!(scheduler.forgotten());
        assert_eq!(begun(&mut scheduler), [Action::Register], "sampling goes on meanwhile");
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
    fn a_coordinator_that_forgets_at_once_is_not_asked_forever() {
        let mut scheduler = registered();
        for _ in 0..PATIENCE {
            assert!(scheduler.forgotten());
            scheduler.not_answered();
            assert_eq!(begun(&mut scheduler), [Action::Register]);
            scheduler.registered();
            assert_eq!(begun(&mut scheduler), [Action::Ask]);
        }
        assert!(!scheduler.forgotten());
    }

    #[test]
    fn who_leaves_finishes_what_is_begun_and_begins_nothing() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        assert_eq!(begun(&mut scheduler), [Action::Sample(A)]);
        scheduler.leave();
        assert!(!scheduler.is_finished());
        scheduler.sampled(A);
        assert_eq!(begun(&mut scheduler), [Action::Submit(A)]);
        scheduler.submitted(A);
        assert!(scheduler.is_finished());
        assert_eq!(begun(&mut scheduler), []);

        let mut scheduler = registered();
        scheduler.leave();
        assert!(scheduler.is_finished());
        assert!(!scheduler.leased(A), "a lease that came too late is left to the coordinator");
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
        scheduler.leave();
        assert_eq!(scheduler.ending(), Some(&Ending::RunOver("all steps are done".into())));
        scheduler.submitted(A);
        assert!(scheduler.is_finished());
    }

    #[test]
    fn a_lost_lease_is_stopped_unless_it_is_done() {
        let mut scheduler = registered();
        assert!(scheduler.leased(A));
        assert!(!scheduler.lost(A), "it has not begun");
        assert_eq!(begun(&mut scheduler), [Action::Ask]);
        assert!(scheduler.leased(B));
        begun(&mut scheduler);
        assert!(scheduler.lost(B));
        scheduler.stopped(B);
        assert_eq!(begun(&mut scheduler), [Action::Ask]);
        assert!(!scheduler.lost(B), "it is unknown by now");
    }
}

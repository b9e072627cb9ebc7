//! Who leads: decisions over one Lease, by the local monotonic clock. Pure.
//!
//! The times in the Lease are for people. A holder counts as gone when its record has not changed for the
//! record's own duration, measured here; the leader gives up when it has not renewed for [`RENEW_DEADLINE`], counted
//! from the start of its last successful request. Clocks of different machines are never compared.

use std::time::{Duration, Instant};

/// How long others wait for a record that does not change.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// How long a leader may go without renewing before it ends.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The time between two tries.
pub const RETRY: Duration = Duration::from_secs(2);

/// What the Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// How long the holder may go without renewing.
    pub duration: Duration,
    /// Changes with every write.
    pub version: String,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no Lease: make one in our name.
    Create,
    /// Nobody holds it, or the holder is gone: put our name in.
    Take,
    /// It is ours: renew it.
    Renew,
    /// Somebody else holds it.
    Wait,
}

/// The state of one candidate.
#[derive(Clone, Debug)]
pub struct Candidate {
    identity: String,
    seen: Option<(Record, Instant)>,
    renewed: Option<Instant>,
}

impl Candidate {
    /// A candidate of this name, which no other replica has.
    pub fn new(identity: impl Into<String>) -> Self {
        Self { identity: identity.into(), seen: None, renewed: None }
    }

    /// Its name.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Decides over the Lease as it was read at `now`.
    pub fn decide(&mut self, now: Instant, record: Option<Record>) -> Step {
        let Some(record) = record else {
            self.seen = None;
            return Step::Create;
        };
        let since = match &self.seen {
            Some((old, since)) if *old == record => *since,
            _ => now,
        };
        let step = if record.holder == self.identity {
            Step::Renew
        } else if record.holder.is_empty() || now.duration_since(since) >= record.duration {
            Step::Take
        } else {
            Step::Wait
        };
        self.seen = Some((record, since));
        step
    }

    /// Notes that a write which began at `began` succeeded.
    pub fn renewed(&mut self, began: Instant) {
        self.renewed = Some(began);
    }

    /// Notes that somebody else holds the Lease.
    pub fn lost(&mut self) {
        self.renewed = None;
    }

    /// Whether this candidate may act as leader.
    pub fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|at| now.duration_since(at) < RENEW_DEADLINE)
    }

    /// When leadership ends unless it is renewed before.
    pub fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|at| at + RENEW_DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn record(holder: &str, version: &str) -> Record {
        Record { holder: holder.to_owned(), duration: s(15), version: version.to_owned() }
    }

    #[test]
    fn without_a_lease_one_is_made_and_then_renewed() {
        let (mut a, t) = (Candidate::new("a"), Instant::now());
        assert_eq!(a.decide(t, None), Step::Create);
        a.renewed(t);
        assert!(a.leads(t));
        assert_eq!(a.decide(t + s(2), Some(record("a", "1"))), Step::Renew);
    }

    #[test]
    fn a_record_that_changes_keeps_others_waiting_for_ever() {
        let (mut b, t) = (Candidate::new("b"), Instant::now());
        for round in 0..100 {
            assert_eq!(b.decide(t + s(14 * round), Some(record("a", &round.to_string()))), Step::Wait);
        }
    }

    #[test]
    fn a_record_that_does_not_change_for_its_duration_is_taken() {
        let (mut b, t) = (Candidate::new("b"), Instant::now());
        assert_eq!(b.decide(t, Some(record("a", "1"))), Step::Wait);
        assert_eq!(b.decide(t + Duration::from_millis(14_999), Some(record("a", "1"))), Step::Wait);
        assert_eq!(b.decide(t + s(15), Some(record("a", "1"))), Step::Take);
    }

    #[test]
    fn a_candidate_that_just_started_waits_a_full_duration_however_old_the_record_is() {
        let (mut b, t) = (Candidate::new("b"), Instant::now());
        assert_eq!(b.decide(t, Some(record("a", "999"))), Step::Wait);
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let (mut b, t) = (Candidate::new("b"), Instant::now());
        assert_eq!(b.decide(t, Some(record("a", "1"))), Step::Wait);
        assert_eq!(b.decide(t + s(1), Some(record("", "2"))), Step::Take);
    }

    #[test]
    fn a_leader_that_cannot_renew_ends_before_anybody_else_begins() {
        let (mut a, mut b, t) = (Candidate::new("a"), Candidate::new("b"), Instant::now());
        a.renewed(t);
        // The write may have reached the server at any time after the request began.
        assert_eq!(b.decide(t, Some(record("a", "1"))), Step::Wait);
        assert!(a.leads(t + Duration::from_millis(9_999)));
        assert!(!a.leads(t + s(10)));
        assert_eq!(b.decide(t + s(10), Some(record("a", "1"))), Step::Wait);
        assert_eq!(a.deadline(), Some(t + s(10)));
    }

    #[test]
    fn who_sees_another_holder_no_longer_leads() {
        let (mut a, t) = (Candidate::new("a"), Instant::now());
        a.renewed(t);
        assert_eq!(a.decide(t + s(1), Some(record("b", "2"))), Step::Wait);
        a.lost();
        assert!(!a.leads(t + s(1)));
    }
}

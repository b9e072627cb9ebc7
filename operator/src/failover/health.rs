//! What one replica has seen of each node: answers, silence, leases. Pure: time comes with each observation.
//!
//! A target that has never answered this replica proves nothing by its silence: a firewall may stand in front of it. Where
//! none on a node ever has, the node's lease is its only word, and it counts only for a node that is out already.

use super::model::State;
use super::record::Record;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A prober that is later than this throws its round away.
pub const LATE: Duration = Duration::from_millis(200);
/// So many rounds of silence in a row make a node suspect.
pub const SILENT_ROUNDS: u32 = 3;
/// So many do within [`CALM`] of its return.
pub const SILENT_ROUNDS_CALM: u32 = 10;
/// A node that is out is used again after answering for so long.
pub const RETURN: Duration = Duration::from_secs(10);
/// So long after its return a node is not suspected lightly.
pub const CALM: Duration = Duration::from_secs(60);

/// What became of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A connection was made.
    Answered,
    /// The connection was refused: somebody is there.
    Refused,
    /// Nothing came back.
    TimedOut,
    /// It could not be tried for a reason of our own.
    Failed,
}

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The node that the target is on.
    pub node: String,
    /// The target.
    pub target: SocketAddr,
    /// What became of it.
    pub outcome: Outcome,
}

/// One round of probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// How late the prober itself was.
    pub late: Duration,
    /// All probes.
    pub answers: Vec<Answer>,
}

/// What was seen of a node's lease.
#[derive(Clone, Debug)]
struct Lease {
    renewed: String,
    /// When we saw it change, by our clock.
    changed: Instant,
    /// When it was last read by itself and was still the same.
    checked: Option<Instant>,
    /// It does not change for so long: the kubelet does not run.
    patience: Duration,
}

/// What was seen of one node.
#[derive(Clone, Debug, Default)]
struct Seen {
    silent: u32,
    /// The first and the last of the answers since its last silence.
    answering: Option<(Instant, Instant)>,
    full: bool,
    heard: bool,
    /// Since when we know that it is out.
    out_since: Option<Instant>,
    targets: usize,
    calm_until: Option<Instant>,
    /// A replica that does not lead takes a node out once for each time that it falls silent.
    spent: bool,
    lease: Option<Lease>,
}

/// What one replica has seen of all nodes.
#[derive(Clone, Debug, Default)]
pub struct Health {
    own: Option<String>,
    nodes: BTreeMap<String, Seen>,
    answered: HashSet<(String, SocketAddr)>,
    out: BTreeSet<String>,
    released: BTreeMap<String, Instant>,
}

impl Health {
    /// Nothing was seen yet. `own` is the node that this replica runs on: from there it can say nothing about it.
    pub fn new(own: Option<String>) -> Self {
        Self { own, ..Self::default() }
    }

    /// Whether this target has ever answered.
    pub fn has_answered(&self, node: &str, target: SocketAddr) -> bool {
        self.answered.contains(&(node.to_owned(), target))
    }

    /// Takes in a round that ended at `now`. Says whether its silence was thrown away.
    pub fn round(&mut self, now: Instant, round: &Round) -> bool {
        let late = round.late > LATE;
        let asked: HashSet<_> =
            round.answers.iter().map(|answer| (answer.node.clone(), answer.target)).collect();
        self.answered.retain(|known| asked.contains(known));
        let heard = |answer: &&Answer| matches!(answer.outcome, Outcome::Answered | Outcome::Refused);
        for answer in round.answers.iter().filter(heard) {
            self.answered.insert((answer.node.clone(), answer.target));
        }
        let mut words: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for answer in &round.answers {
            if answer.outcome == Outcome::Failed || !self.has_answered(&answer.node, answer.target) {
                continue;
            }
            let (answers, all) = words.entry(&answer.node).or_default();
            *answers += usize::from(answer.outcome != Outcome::TimedOut);
            *all += 1;
        }
        let names: BTreeSet<_> =
            self.nodes.keys().cloned().chain(words.keys().map(|name| (*name).to_owned())).collect();
        // Whoever asks others and hears none is cut off itself.
        let mut company = words.keys().all(|name| self.own.as_deref() == Some(name));
        for name in names.iter().filter(|name| self.own.as_ref() != Some(name)) {
            let out = self.out.contains(name);
            let seen = self.nodes.entry(name.clone()).or_default();
            match words.get(name.as_str()) {
                Some((0, all)) if !late => seen.silence(*all),
                // Neither silence nor an answer.
                Some((0, _)) => seen.answering = None,
                Some((answers, all)) => {
                    seen.answer(now, answers == all);
                    company = true;
                }
                None => {
                    seen.full = false;
                    match seen.is_stale(now) {
                        Some(false) if out => seen.answer(now, false),
                        Some(true) if out && !late => seen.silence(0),
                        _ => {}
                    }
                }
            }
        }
        if let Some(own) = self.own.clone() {
            let seen = self.nodes.entry(own).or_default();
            if company {
                seen.answer(now, false);
            } else {
                seen.answering = None;
            }
        }
        for seen in self.nodes.values_mut() {
            let answers = |(first, last): (Instant, Instant)| last.duration_since(first) >= RETURN;
            seen.spent &= !seen.answering.is_some_and(answers);
        }
        late
    }

    /// Takes in a node's lease as it was seen at `now`.
    pub fn lease(&mut self, node: &str, renewed: &str, interval: Duration, now: Instant) {
        let seen = self.nodes.entry(node.to_owned()).or_default();
        let patience = interval * 5 / 4;
        match &mut seen.lease {
            Some(lease) if lease.renewed == renewed => lease.patience = patience,
            lease => {
                *lease = Some(Lease { renewed: renewed.to_owned(), changed: now, checked: None, patience });
            }
        }
    }

    /// Takes in a lease that was read by itself, so that a watch which broke unnoticed kills nobody.
    pub fn lease_checked(&mut self, node: &str, renewed: &str, interval: Duration, now: Instant) {
        self.lease(node, renewed, interval, now);
        if let Some(lease) = self.nodes.get_mut(node).and_then(|seen| seen.lease.as_mut()) {
            lease.checked = Some(now);
        }
    }

    /// Suspects whose leases have to be read before they may be called dead.
    pub fn doubtful(&self, now: Instant) -> Vec<String> {
        let doubtful = |seen: &Seen| {
            seen.is_suspect(now)
                && seen.lease.as_ref().is_some_and(|lease| lease.is_stale(now) && !lease.is_confirmed())
        };
        self.nodes.iter().filter(|(_, seen)| doubtful(seen)).map(|(name, _)| name.clone()).collect()
    }

    /// Takes in who is out, and forgets nodes that are gone.
    pub fn see<'a>(&mut self, now: Instant, record: &Record, nodes: impl Iterator<Item = &'a String>) {
        for name in self.out.iter().filter(|name| !record.claims.contains_key(*name)) {
            if let Some(seen) = self.nodes.get_mut(name) {
                seen.calm_until = Some(now + CALM);
                seen.spent = seen.silent > 0;
                seen.out_since = None;
            }
        }
        for name in record.claims.keys() {
            self.nodes.entry(name.clone()).or_default().out_since.get_or_insert(now);
        }
        self.out = record.claims.keys().cloned().collect();
        let there: BTreeSet<_> = nodes.collect();
        self.nodes.retain(|name, _| there.contains(name));
        self.released.retain(|_, at| now.duration_since(*at) < CALM);
    }

    /// Remembers that this replica let a node be used again.
    pub fn released(&mut self, node: &str, now: Instant) {
        self.released.insert(node.to_owned(), now);
    }

    /// Whether this replica lately let the node be used again.
    pub fn has_released(&self, node: &str) -> bool {
        self.released.contains_key(node)
    }

    /// What a node is taken for.
    pub fn state(&self, node: &str, now: Instant) -> State {
        match self.nodes.get(node) {
            Some(seen) if seen.is_dead(now) => State::Dead,
            Some(seen) if seen.is_suspect(now) => State::Suspect,
            Some(seen) if seen.heard => State::Well,
            _ => State::Unknown,
        }
    }

    /// Whether all that ever answered on this node did in the last round, seen from another node.
    pub fn answers_fully(&self, node: &str) -> bool {
        self.own.as_deref() != Some(node)
            && self.nodes.get(node).is_some_and(|seen| seen.full && seen.silent == 0)
    }

    /// Whether a node that is out answers for long enough to be used again.
    pub fn has_returned(&self, node: &str) -> bool {
        let Some(seen) = self.nodes.get(node) else { return false };
        let (Some((first, last)), Some(out)) = (seen.answering, seen.out_since) else { return false };
        last.saturating_duration_since(first.max(out)) >= RETURN
    }

    /// Whether a replica that does not lead has had its say about this silence.
    pub fn is_spent(&self, node: &str) -> bool {
        self.nodes.get(node).is_some_and(|seen| seen.spent)
    }

    /// What was seen of a node that does not answer. The same text as long as the state is the same.
    pub fn evidence(&self, node: &str, now: Instant) -> String {
        let Some(seen) = self.nodes.get(node) else { return String::new() };
        let rounds = seen.threshold(now);
        let silence = match seen.targets {
            0 => "nothing on it can be asked".to_owned(),
            all => format!("{all} of {all} targets timed out, {rounds} times in a row"),
        };
        match &seen.lease {
            Some(lease) if seen.is_dead(now) => {
                let patience = lease.patience.as_secs_f64();
                format!("{silence}; its lease did not change for {patience} s")
            }
            _ => silence,
        }
    }
}

impl Seen {
    fn answer(&mut self, now: Instant, full: bool) {
        self.silent = 0;
        self.answering.get_or_insert((now, now)).1 = now;
        self.full = full;
        self.heard = true;
    }

    fn silence(&mut self, targets: usize) {
        self.silent = self.silent.saturating_add(1);
        // What is told stays the same while targets come and go.
        if self.silent <= 1 {
            self.targets = targets;
        }
        self.answering = None;
        self.full = false;
    }

    fn threshold(&self, now: Instant) -> u32 {
        if self.calm_until.is_some_and(|until| now < until) { SILENT_ROUNDS_CALM } else { SILENT_ROUNDS }
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.silent >= self.threshold(now)
    }

    fn is_stale(&self, now: Instant) -> Option<bool> {
        self.lease.as_ref().map(|lease| lease.is_stale(now))
    }

    fn is_dead(&self, now: Instant) -> bool {
        self.is_suspect(now)
            && self.lease.as_ref().is_some_and(|lease| lease.is_stale(now) && lease.is_confirmed())
    }
}

impl Lease {
    fn is_stale(&self, now: Instant) -> bool {
        now.duration_since(self.changed) >= self.patience
    }

    fn is_confirmed(&self) -> bool {
        self.checked.is_some_and(|checked| checked.duration_since(self.changed) >= self.patience)
    }
}

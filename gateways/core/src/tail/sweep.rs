//! Catching up: sessions that fell out of the ring read their partition from Kafka, together, from the lowest
//! waiting cursor up to the ring. One partition at a time, on a thread and a reader of its own.

use super::Shared;
use super::session::{Cursor, Offered, Session};
use crate::reader::{Event, Partition, RawRecord, ReadError, Reader};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// After so long another partition has its turn.
const TURN: Duration = Duration::from_secs(1);
/// How long Kafka may say nothing before another partition has its turn.
const PATIENCE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(100);

/// Who waits for which partition.
#[derive(Default)]
pub(super) struct Sweeper {
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

#[derive(Default)]
struct Waiting {
    order: VecDeque<Partition>,
    sessions: HashMap<Partition, Vec<Arc<Session>>>,
}

impl Sweeper {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session waits for these partitions; its cursors say so already.
    pub(super) fn request(&self, session: &Arc<Session>, partitions: Vec<(Partition, i64)>) {
        for (partition, _) in partitions {
            self.add(partition, vec![Arc::clone(session)]);
        }
    }

    fn add(&self, partition: Partition, sessions: Vec<Arc<Session>>) {
        let mut waiting = self.lock();
        let others = waiting.sessions.entry(partition.clone()).or_default();
        if others.is_empty() {
            others.extend(sessions);
            waiting.order.push_back(partition);
        } else {
            others.extend(sessions);
        }
        self.wake.notify_one();
    }

    /// Lets the thread look whether it is to end.
    pub(super) fn wake(&self) {
        self.wake.notify_all();
    }

    fn next(&self, timeout: Duration) -> Option<(Partition, Vec<Arc<Session>>)> {
        let mut waiting = self.lock();
        if waiting.order.is_empty() {
            waiting = self.wake.wait_timeout(waiting, timeout).unwrap_or_else(PoisonError::into_inner).0;
        }
        let partition = waiting.order.pop_front()?;
        let sessions = waiting.sessions.remove(&partition)?;
        Some((partition, sessions))
    }

    fn others_wait(&self) -> bool {
        !self.lock().order.is_empty()
    }
}

pub(super) fn spawn(shared: Arc<Shared>, reader: Box<dyn Reader>) -> Result<(), ReadError> {
    std::thread::Builder::new()
        .name("tail sweep".to_owned())
        .spawn(move || {
            while !shared.closed.is_cancelled() {
                if let Some((partition, sessions)) = shared.sweeper.next(Duration::from_secs(1)) {
                    shared.metrics.sweeps.inc();
                    sweep(&shared, reader.as_ref(), &partition, sessions);
                }
            }
        })
        .map(drop)
        .map_err(|error| ReadError::Client(error.to_string()))
}

/// A session in a sweep, and the first offset that was not looked at for it.
struct Participant {
    session: Arc<Session>,
    at: i64,
}

impl Participant {
    /// Whether the session's cursor is where this sweep has it. If not, a subscription that wants older records has
    /// moved it, and another sweep serves it.
    fn is_at(&self, cursor: &Cursor) -> bool {
        cursor.sweeping && cursor.behind == Some(self.at)
    }
}

/// Why a sweep ended.
enum End {
    /// Nobody is left in it: each has reached the ring, or is full.
    Done,
    /// Others wait, or Kafka says nothing: it goes on later.
    Turn,
}

fn sweep(shared: &Shared, reader: &dyn Reader, partition: &Partition, sessions: Vec<Arc<Session>>) {
    let mut participants: Vec<_> = sessions
        .into_iter()
        .filter_map(|session| {
            let at = session.lock().cursors.get(partition).filter(|cursor| cursor.sweeping)?.behind?;
            Some(Participant { session, at })
        })
        .collect();
    let Some(lowest) = participants.iter().map(|each| each.at).min() else { return };
    // what the ring has now, Kafka has too: at the partition's end we are at least here
    let Some(base) = shared.state.ring_base(partition) else { return };
    let end = if let Err(error) = reader.assign(partition, lowest) {
        tracing::error!(%error, %partition, "failed to begin a sweep");
        std::thread::sleep(POLL);
        End::Turn
    } else {
        let end = read(shared, reader, partition, base, &mut participants);
        if let Err(error) = reader.unassign(partition) {
            tracing::error!(%error, %partition, "failed to end a sweep");
        }
        end
    };
    match end {
        End::Done => release(partition, participants.drain(..)),
        End::Turn => {
            shared
                .sweeper
                .add(partition.clone(), participants.into_iter().map(|each| each.session).collect());
        }
    }
}

fn read(
    shared: &Shared,
    reader: &dyn Reader,
    partition: &Partition,
    base: i64,
    participants: &mut Vec<Participant>,
) -> End {
    let begun = Instant::now();
    let mut heard = begun;
    let mut end_is_certain = false;
    loop {
        match reader.poll(POLL) {
            // fetched for an earlier sweep
            Some(Event::Record(raw)) if raw.partition != *partition => continue,
            Some(Event::Record(raw)) => {
                if shared.state.ring_base(partition).is_none_or(|base| raw.offset >= base) {
                    // the ring has this one and all that follow
                    advance(partition, participants, raw.offset);
                    return End::Done;
                }
                offer(shared, partition, &raw, participants);
                heard = Instant::now();
            }
            // A broker that has just become the leader may not know yet how much is committed; when it tells where the
            // partition ends, it does. Until then its end is no reason to leave out what follows.
            Some(Event::End) if !end_is_certain => {
                end_is_certain =
                    matches!(reader.ends(std::slice::from_ref(partition), PATIENCE).pop(), Some(Ok(_)));
                let Some(lowest) = participants.iter().map(|each| each.at).min() else { return End::Done };
                let again = reader.unassign(partition).and_then(|()| reader.assign(partition, lowest));
                if let Err(error) = again {
                    tracing::error!(%error, %partition, "failed to go on with a sweep");
                    return End::Turn;
                }
            }
            Some(Event::End) => {
                advance(partition, participants, base);
                return End::Done;
            }
            Some(Event::OutOfRange) => {
                jump(shared, reader, partition, participants);
                return End::Done;
            }
            Some(Event::Error(error)) => {
                tracing::debug!(error, %partition, "a sweep's reader reported an error");
            }
            None => {}
        }
        if participants.is_empty() || shared.closed.is_cancelled() {
            return End::Done;
        }
        let in_vain = heard.elapsed() > PATIENCE;
        if in_vain {
            reader.in_vain(partition);
        }
        if in_vain || (begun.elapsed() > TURN && shared.sweeper.others_wait()) {
            return End::Turn;
        }
    }
}

/// Shows a record to all who have not looked at it; who has no room leaves.
fn offer(shared: &Shared, partition: &Partition, raw: &RawRecord, participants: &mut Vec<Participant>) {
    let kept = shared.state.keep(raw);
    let mut full = Vec::new();
    participants.retain_mut(|each| {
        if raw.offset < each.at {
            return true;
        }
        let mut own = each.session.lock();
        // unsubscribed meanwhile, or moved by a subscription that wants older ones
        if own.cursors.get(partition).is_none_or(|cursor| !each.is_at(cursor)) {
            return false;
        }
        let offered = kept
            .as_ref()
            .map_or(Offered::Unwanted, |kept| own.offer(each.session.options(), partition, kept));
        if offered == Offered::Full {
            drop(own);
            full.push(Participant { session: Arc::clone(&each.session), at: each.at });
            return false;
        }
        each.at = raw.offset + 1;
        if let Some(cursor) = own.cursors.get_mut(partition) {
            cursor.behind = Some(each.at);
        }
        drop(own);
        if offered == Offered::Taken {
            each.session.notify();
        }
        true
    });
    advance(partition, &mut full, raw.offset);
    release(partition, full.into_iter());
}

/// Nothing below `to` is left for the participants.
fn advance(partition: &Partition, participants: &mut [Participant], to: i64) {
    for each in participants {
        let to = each.at.max(to);
        if let Some(cursor) =
            each.session.lock().cursors.get_mut(partition).filter(|cursor| each.is_at(cursor))
        {
            cursor.behind = Some(to);
        }
        each.at = to;
    }
}

/// Kafka has not what the lowest cursor wants: tells those who lost something, and where it goes on.
fn jump(shared: &Shared, reader: &dyn Reader, partition: &Partition, participants: &mut [Participant]) {
    let Some(Ok(start)) = reader.starts(std::slice::from_ref(partition), PATIENCE).pop() else { return };
    let Some(base) = shared.state.ring_base(partition) else { return };
    for each in participants {
        // above Kafka's end: its log was cut; the ring is what is left
        let to = if each.at < start { start } else { base.max(each.at) };
        if to == each.at {
            continue;
        }
        let mut own = each.session.lock();
        let Some(cursor) = own.cursors.get_mut(partition).filter(|cursor| each.is_at(cursor)) else {
            continue;
        };
        cursor.behind = Some(to);
        own.gap(partition, each.at, to);
        drop(own);
        shared.metrics.gap(&partition.topic, partition.partition, each.at, to);
        each.at = to;
    }
}

/// Their sweep is over: the sessions go on by themselves.
fn release(partition: &Partition, participants: impl Iterator<Item = Participant>) {
    for each in participants {
        let mut own = each.session.lock();
        own.lagging = true;
        if let Some(cursor) = own.cursors.get_mut(partition) {
            cursor.sweeping = false;
        }
        drop(own);
        each.session.notify();
    }
}

#[cfg(test)]
mod tests;

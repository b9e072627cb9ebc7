//! What observers saw, against what was offered and acknowledged. Pure.

use crate::judge::{Known, NEVER};
use crate::verdict::{Examples, Second, Watched, second};
use std::collections::{BTreeMap, BTreeSet};

/// What is acknowledged so shortly before a subscriber's last message may still be on its way.
const ON_ITS_WAY_US: u64 = 1_000_000;

/// One observer.
#[derive(Default)]
struct Observer {
    /// Subscribed from, and the last message that came on that connection.
    windows: Vec<(u64, u64)>,
    subscribed: bool,
    /// By publisher: which sequences came, and the newest of them.
    delivered: BTreeMap<u16, (BTreeSet<u32>, u32)>,
}

/// All observers of a run.
#[derive(Default)]
pub(crate) struct Observers {
    all: BTreeMap<u16, Observer>,
    /// When messages came.
    times: Vec<u64>,
    /// Reads of something older than what was acknowledged before they were asked.
    old: Vec<(u16, Option<u32>)>,
    /// What came to an observer for the first time behind something newer: observer, publisher, sequence.
    late: Vec<(u16, u16, u32)>,
    watched: Option<Watched>,
}

impl Observers {
    fn counts(&mut self) -> &mut Watched {
        self.watched.get_or_insert_default()
    }

    pub fn subscribed(&mut self, observer: u16, at_us: u64) {
        self.counts().subscriptions += 1;
        let observer = self.all.entry(observer).or_default();
        observer.windows.push((at_us, at_us));
        observer.subscribed = true;
    }

    /// A subscription ended, or a reader got no answer.
    pub fn blind(&mut self, observer: u16) {
        let subscriber = self.all.get_mut(&observer);
        match subscriber.map(|observer| std::mem::take(&mut observer.subscribed)) {
            Some(true) => self.counts().subscriptions_broken += 1,
            Some(false) => {}
            None => self.counts().reads_failed += 1,
        }
    }

    pub fn altered(&mut self) {
        self.counts().seen_altered += 1;
    }

    pub fn seen(&mut self, number: u16, publisher: u16, sequence: u32, at_us: u64, known: Option<&Known>) {
        let counts = self.watched.get_or_insert_default();
        // A repeat of what another run or nobody sent has the checksum of a message and no place in the log.
        if known.is_none() {
            counts.seen_altered += 1;
            return;
        }
        self.times.push(at_us);
        let observer = self.all.entry(number).or_default();
        if let Some(window) = observer.windows.last_mut() {
            window.1 = at_us;
        }
        let (all, newest) = observer.delivered.entry(publisher).or_default();
        if all.insert(sequence) {
            counts.delivered += 1;
            if sequence < *newest {
                self.late.push((number, publisher, sequence));
            }
            *newest = sequence.max(*newest);
        } else {
            counts.delivered_again += 1;
        }
    }

    /// A reader got `sequence`, or that there is none; `messages` are the publisher's.
    pub fn read(&mut self, publisher: u16, sequence: Option<u32>, asked_us: u64, messages: &[Known]) {
        self.counts().reads += 1;
        let newer = messages.get(sequence.map_or(0, |sequence| sequence as usize + 1)..).unwrap_or_default();
        // The clock of the load is one: what it knew before it asked was acknowledged before.
        if newer.iter().any(|known| known.acked_us != NEVER && known.acked_us < asked_us) {
            self.old.push((publisher, sequence));
        }
    }

    pub fn fill(&self, all: &mut Vec<Second>, started: u64) {
        for at_us in &self.times {
            second(all, at_us.saturating_sub(started)).delivered += 1;
        }
    }

    /// Judges what was seen; `messages` gives those of a publisher.
    pub fn judge<'a>(
        mut self,
        publishers: u16,
        messages: impl Fn(u16) -> &'a [Known],
        examples: &mut Examples,
    ) -> Option<Watched> {
        let mut watched = self.watched.take()?;
        for (publisher, sequence) in &self.old {
            // Kafka's newest record of an address is the repeat, where there is one.
            let place = sequence.and_then(|sequence| messages(*publisher).get(sequence as usize));
            if place.is_none_or(|known| known.copies < 2) {
                watched.reads_stale += 1;
                let read = sequence.map_or_else(|| "nothing".to_owned(), |sequence| sequence.to_string());
                examples.add(|| format!("read after something newer was acknowledged: {publisher}/{read}"));
            }
        }
        for (number, publisher, sequence) in &self.late {
            // One that was not subscribed when the first copy came sees the repeat first.
            let known = messages(*publisher).get(*sequence as usize);
            if known.is_none_or(|known| known.copies < 2) {
                watched.delivered_disorder += 1;
                examples.add(|| format!("subscriber {number} got it out of order: {publisher}/{sequence}"));
            }
        }
        for (number, observer) in &self.all {
            for publisher in 0..publishers {
                let came = observer.delivered.get(&publisher).map(|(came, _)| came);
                for (sequence, known) in (0..).zip(messages(publisher)) {
                    let inside = |(from, to): &(u64, u64)| {
                        known.offered_us >= *from && known.acked_us <= to.saturating_sub(ON_ITS_WAY_US)
                    };
                    if observer.windows.iter().any(inside)
                        && came.is_none_or(|came| !came.contains(&sequence))
                    {
                        watched.missed += 1;
                        examples.add(|| format!("subscriber {number} missed: {publisher}/{sequence}"));
                    }
                }
            }
        }
        Some(watched)
    }
}

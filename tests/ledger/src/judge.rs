//! Compares what was offered and acknowledged with what Kafka holds. Pure: fed line by line, and holds one small entry
//! per message, never the lines.

use crate::latency::{Latencies, as_f64};
use crate::log::{Entry, EntryError, Message, Moment};
use crate::payload::RunId;
use crate::recovery::{Events, phases};
use crate::stored::{Line, LineError, StoredRecord, TimeKind};
use crate::verdict::{EXAMPLES, Second, Verdict, second};
use crate::watch::Observers;
use std::io::BufRead;
use std::time::Duration;

/// How the judge measures.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// An acknowledgement is early when the record's timestamp is later by more than this. Kafka's timestamps have
    /// whole milliseconds; publisher and brokers share one clock on the local cluster.
    pub clock_tolerance: Duration,
    /// After a mark, a message is late when it is acknowledged later than this after it was offered.
    pub late: Duration,
    /// Service is restored when for this long no message that was offered became late.
    pub calm: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            clock_tolerance: Duration::from_millis(5),
            late: Duration::from_millis(500),
            calm: Duration::from_secs(10),
        }
    }
}

/// Why a log or a reader's output cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum JudgeError {
    /// The file cannot be read.
    #[error("failed to read the input")]
    Io(#[from] std::io::Error),
    /// A line of the load's log is not one.
    #[error("failed to judge line {1}")]
    Entry(#[source] EntryError, u64),
    /// A line of the reader's output is not one.
    #[error("failed to judge line {1}")]
    Line(#[source] LineError, u64),
    /// The log contradicts itself.
    #[error("failed to judge line {line} of the log: {what}")]
    Log {
        /// The line.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// The reader's output contradicts itself.
    #[error("failed to judge line {line} of the reader's output: {what}")]
    Stored {
        /// The line.
        line: u64,
        /// What is wrong.
        what: &'static str,
    },
}

pub(crate) const NEVER: u64 = u64::MAX;

/// What is known of one message.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub offered_us: u64,
    pub acked_us: u64,
    acked_wall_us: u64,
    pub copies: u32,
    pub refused: bool,
}

#[derive(Default)]
struct Publisher {
    messages: Vec<Known>,
    /// When its connection was accepted, if it has one.
    connected_us: Option<u64>,
    breaks: u64,
    partition: Option<i32>,
    newest_first_copy: Option<u32>,
}

/// The judge: first the whole log, then what Kafka holds, then the verdict.
pub struct Judge {
    rules: Rules,
    run: Option<RunId>,
    rate_per_s: f64,
    payload: String,
    publishers: Vec<Publisher>,
    /// The number of the first publisher over HTTP.
    first_writer: usize,
    events: Events,
    observers: Observers,
    marks: Vec<(Moment, String)>,
    first: Option<Moment>,
    last_us: u64,
    last_ack_us: Option<u64>,
    log_complete: bool,
    lines: u64,
    offsets: Vec<(i32, i64)>,
    stored_complete: bool,
    verdict: Verdict,
}

impl Judge {
    /// Reads the whole log of a load. A last line without its line feed was cut off by a crash and is left out.
    pub fn read_log(rules: Rules, mut log: impl BufRead) -> Result<Self, JudgeError> {
        let mut judge = Self {
            rules,
            run: None,
            rate_per_s: 0.0,
            payload: String::new(),
            publishers: Vec::new(),
            first_writer: 0,
            events: Events::default(),
            observers: Observers::default(),
            marks: Vec::new(),
            first: None,
            last_us: 0,
            last_ack_us: None,
            log_complete: false,
            lines: 0,
            offsets: Vec::new(),
            stored_complete: false,
            verdict: Verdict::default(),
        };
        let mut line = String::new();
        let mut number = 0;
        while log.read_line(&mut line)? > 0 && line.ends_with('\n') {
            number += 1;
            let entry =
                line.trim_end_matches('\n').parse().map_err(|error| JudgeError::Entry(error, number))?;
            judge.entry(entry).map_err(|what| JudgeError::Log { line: number, what })?;
            line.clear();
        }
        judge.run.ok_or(JudgeError::Log { line: 1, what: "the first line does not name the run" })?;
        Ok(judge)
    }

    /// Reads all that the reader wrote.
    pub fn read_stored(&mut self, mut stored: impl BufRead) -> Result<(), JudgeError> {
        let mut line = String::new();
        while stored.read_line(&mut line)? > 0 && line.ends_with('\n') {
            let number = self.lines + 1;
            let parsed =
                line.trim_end_matches('\n').parse().map_err(|error| JudgeError::Line(error, number))?;
            self.stored(&parsed)?;
            line.clear();
        }
        Ok(())
    }

    fn entry(&mut self, entry: Entry) -> Result<(), &'static str> {
        if self.run.is_none() && !matches!(entry, Entry::Head { .. }) {
            return Err("the first line does not name the run");
        }
        match entry {
            Entry::Head { run, publishers, writers, rate_milli, payload } => {
                if self.run.is_some() {
                    return Err("a second run in one log");
                }
                self.run = Some(run);
                self.rate_per_s = as_f64(rate_milli) / 1000.0;
                self.payload = payload;
                let all = usize::from(publishers) + usize::from(writers);
                self.publishers.resize_with(all, Publisher::default);
                self.first_writer = usize::from(publishers);
                self.verdict.connections = all as u64;
            }
            Entry::Offered(message) => self.offered(message)?,
            Entry::Acknowledged(message) => self.acknowledged(message)?,
            Entry::Refused(message) => {
                self.known(message)?.refused = true;
                self.seen(message.at);
            }
            Entry::Connected { publisher, at } => {
                self.publisher(publisher)?.connected_us = Some(at.mono_us);
                self.seen(at);
            }
            Entry::Disconnected { publisher, at, reason } => {
                self.disconnected(publisher, at, reason)?;
                self.seen(at);
            }
            Entry::Probe(probe) => self.events.probe(probe, &self.rules),
            Entry::Watching { observer, at } => self.observers.subscribed(observer, at.mono_us),
            Entry::Blind { observer, .. } => self.observers.blind(observer),
            Entry::SeenAltered { .. } => self.observers.altered(),
            Entry::Seen { observer, message: Message { publisher, sequence, at } } => {
                let messages = self.publishers.get(usize::from(publisher)).map(|one| &one.messages);
                let known = messages.and_then(|all| all.get(sequence as usize));
                self.observers.seen(observer, publisher, sequence, at.mono_us, known);
            }
            Entry::Read { publisher, sequence, asked_us, .. } => {
                let messages =
                    &self.publishers.get(usize::from(publisher)).ok_or("a publisher too many")?.messages;
                self.observers.read(publisher, sequence, asked_us, messages);
            }
            Entry::Mark { at, name } => self.marks.push((at, name)),
            Entry::End(at) => {
                self.log_complete = true;
                self.seen(at);
            }
        }
        Ok(())
    }

    fn publisher(&mut self, number: u16) -> Result<&mut Publisher, &'static str> {
        self.publishers.get_mut(usize::from(number)).ok_or("a publisher too many")
    }

    fn disconnected(&mut self, publisher: u16, at: Moment, reason: String) -> Result<(), &'static str> {
        let publisher = self.publisher(publisher)?;
        let Some(accepted_us) = publisher.connected_us.take() else {
            self.verdict.connects_failed += 1;
            return Ok(());
        };
        publisher.breaks += 1;
        let breaks = publisher.breaks;
        self.events.broke(accepted_us, at.mono_us);
        self.verdict.most_breaks = self.verdict.most_breaks.max(breaks);
        self.verdict.connections_broken += 1;
        // reasons come from another process: a strange one must not fill a table
        let known = self.verdict.broken_by.len() < EXAMPLES || self.verdict.broken_by.contains_key(&reason);
        let reason = if known { reason } else { "other".to_owned() };
        *self.verdict.broken_by.entry(reason).or_default() += 1;
        Ok(())
    }

    fn seen(&mut self, at: Moment) {
        self.last_us = self.last_us.max(at.mono_us);
    }

    fn offered(&mut self, message: Message) -> Result<(), &'static str> {
        let publisher = self.publisher(message.publisher)?;
        if publisher.messages.len() != message.sequence as usize {
            return Err("a sequence that does not follow the one before");
        }
        publisher.messages.push(Known {
            offered_us: message.at.mono_us,
            acked_us: NEVER,
            acked_wall_us: NEVER,
            copies: 0,
            refused: false,
        });
        self.first.get_or_insert(message.at);
        self.seen(message.at);
        Ok(())
    }

    fn acknowledged(&mut self, message: Message) -> Result<(), &'static str> {
        let known = self.known(message)?;
        if known.acked_us != NEVER {
            return Err("a message acknowledged twice");
        }
        known.acked_us = message.at.mono_us;
        known.acked_wall_us = message.at.wall_us;
        let started = self.first.map_or(0, |first| first.mono_us);
        let gap = message.at.mono_us.saturating_sub(self.last_ack_us.unwrap_or(started));
        self.verdict.longest_gap_s = self.verdict.longest_gap_s.max(seconds(gap));
        self.last_ack_us = Some(message.at.mono_us.max(self.last_ack_us.unwrap_or(0)));
        self.seen(message.at);
        Ok(())
    }

    fn known(&mut self, message: Message) -> Result<&mut Known, &'static str> {
        self.publishers
            .get_mut(usize::from(message.publisher))
            .and_then(|publisher| publisher.messages.get_mut(message.sequence as usize))
            .ok_or("an answer to a message that was not offered")
    }

    /// Takes one line of the reader.
    pub fn stored(&mut self, line: &Line) -> Result<(), JudgeError> {
        self.lines += 1;
        let wrong = |line, what| Err(JudgeError::Stored { line, what });
        if self.stored_complete {
            return wrong(self.lines, "a line after the end");
        }
        match line {
            Line::Head { run, .. } if Some(*run) != self.run => {
                wrong(self.lines, "another run than the log's")
            }
            Line::Head { .. } => Ok(()),
            Line::Altered { partition, offset } => {
                self.verdict.altered += 1;
                self.verdict.examples.add(|| format!("altered: partition {partition} offset {offset}"));
                Ok(())
            }
            Line::End { records, .. } => {
                self.stored_complete = *records == self.verdict.records + self.verdict.altered;
                if self.stored_complete {
                    Ok(())
                } else {
                    wrong(self.lines, "lines are missing before the end")
                }
            }
            Line::Record(record) => self.record(record),
        }
    }

    fn record(&mut self, record: &StoredRecord) -> Result<(), JudgeError> {
        match self.offsets.iter_mut().find(|(partition, _)| *partition == record.partition) {
            Some((_, last)) if *last >= record.offset => {
                return Err(JudgeError::Stored { line: self.lines, what: "offsets that do not rise" });
            }
            Some((_, last)) => *last = record.offset,
            None => self.offsets.push((record.partition, record.offset)),
        }
        let StoredRecord { publisher: number, sequence, partition, offset, .. } = *record;
        let verdict = &mut self.verdict;
        verdict.records += 1;
        verdict.append_times |= record.kind == TimeKind::Append;
        let Some((publisher, known)) = self.publishers.get_mut(usize::from(number)).and_then(|publisher| {
            let known = publisher.messages.get(sequence as usize).copied()?;
            Some((publisher, known))
        }) else {
            // After a crash of the load the log may lack its newest lines; what was stored then is no mistake.
            if self.log_complete {
                verdict.unoffered += 1;
                verdict
                    .examples
                    .add(|| format!("never offered: {number}/{sequence} at {partition}/{offset}"));
            }
            return Ok(());
        };
        if *publisher.partition.get_or_insert(partition) != partition {
            verdict.misplaced += 1;
            verdict.examples.add(|| format!("second partition: {number}/{sequence} at {partition}/{offset}"));
        }
        let behind = publisher.newest_first_copy.is_some_and(|newest| sequence < newest);
        if known.copies == 0 {
            verdict.stored += 1;
            if behind {
                verdict.disorder += 1;
                verdict.examples.add(|| format!("out of order: {number}/{sequence} at {partition}/{offset}"));
            }
            publisher.newest_first_copy = publisher.newest_first_copy.max(Some(sequence));
            let tolerance = u64::try_from(self.rules.clock_tolerance.as_micros()).unwrap_or(u64::MAX);
            let stored_us = u64::try_from(record.time_ms).unwrap_or(0).saturating_mul(1000);
            if known.acked_us != NEVER && stored_us > known.acked_wall_us.saturating_add(tolerance) {
                verdict.early_acknowledged += 1;
                let by = (stored_us - known.acked_wall_us) / 1000;
                verdict
                    .examples
                    .add(|| format!("acknowledged {by} ms before it was stored: {number}/{sequence}"));
            }
        } else {
            verdict.duplicates += 1;
            verdict.stale_repeats += u64::from(behind);
        }
        publisher.messages[sequence as usize].copies += 1;
        Ok(())
    }

    /// Judges what was read.
    pub fn verdict(mut self) -> Verdict {
        let mut verdict = std::mem::take(&mut self.verdict);
        let started = self.first.map_or(0, |first| first.mono_us);
        let mut latencies = Latencies::new();
        let mut seconds_of = Vec::<Second>::new();
        for (number, publisher) in self.publishers.iter().enumerate() {
            let over_http = u64::from(number >= self.first_writer);
            for (sequence, known) in publisher.messages.iter().enumerate() {
                verdict.offered += 1;
                second(&mut seconds_of, known.offered_us - started.min(known.offered_us)).offered += 1;
                if known.acked_us != NEVER {
                    verdict.acknowledged += 1;
                    verdict.acknowledged_http += over_http;
                    let second = second(&mut seconds_of, known.acked_us.saturating_sub(started));
                    second.acknowledged += 1;
                    second.acknowledged_http += over_http;
                    latencies.add_us(known.acked_us.saturating_sub(known.offered_us));
                    if known.copies == 0 {
                        verdict.acknowledged_lost += 1;
                        verdict.examples.add(|| format!("acknowledged and lost: {number}/{sequence}"));
                    }
                } else if known.refused {
                    verdict.refused += 1;
                    second(&mut seconds_of, known.offered_us.saturating_sub(started)).refused += 1;
                } else {
                    verdict.unanswered += 1;
                    second(&mut seconds_of, known.offered_us.saturating_sub(started)).unanswered += 1;
                }
            }
        }
        if latencies.count() > 0 {
            verdict.ack_p50_ms = latencies.within_ms(0.5);
            verdict.ack_p99_ms = latencies.within_ms(0.99);
            verdict.ack_max_ms = latencies.longest_ms();
        }
        if verdict.unanswered > 0 {
            let silent = self.last_us.saturating_sub(self.last_ack_us.unwrap_or(started));
            verdict.longest_gap_s = verdict.longest_gap_s.max(seconds(silent));
        }
        verdict.run = self.run.map(|run| run.to_string()).unwrap_or_default();
        verdict.rate_per_s = self.rate_per_s;
        verdict.payload_bytes.clone_from(&self.payload);
        verdict.duration_s = seconds(self.last_us.saturating_sub(started));
        verdict.log_complete = self.log_complete;
        verdict.stored_complete = self.stored_complete;
        self.events.fill(&mut seconds_of, started);
        self.observers.fill(&mut seconds_of, started);
        verdict.per_second = seconds_of;
        verdict.probed = self.events.probed();
        let numbered = self.publishers.iter().enumerate();
        let messages: Vec<(bool, &Known)> = numbered
            .flat_map(|(number, one)| one.messages.iter().map(move |known| (number, known)))
            .map(|(number, known)| (number >= self.first_writer, known))
            .collect();
        verdict.phases = phases(&self.marks, &messages, started, self.last_us);
        let messages: Vec<&Known> = messages.into_iter().map(|(_, known)| known).collect();
        verdict.marks = self.events.marks(&self.marks, &messages, &self.rules, started);
        let of =
            |publisher: u16| self.publishers.get(usize::from(publisher)).map_or(&[][..], |one| &one.messages);
        let publishers = u16::try_from(self.publishers.len()).unwrap_or(u16::MAX);
        verdict.watched = self.observers.judge(publishers, of, &mut verdict.examples);
        verdict
    }
}

pub(crate) fn seconds(us: u64) -> f64 {
    // Whole milliseconds: nobody reads further, and JSON stays short.
    as_f64(us / 1000) / 1000.0
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

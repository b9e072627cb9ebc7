//! The lines of a load's log: every message, connection, probe and observation with its time. Pure: text in and out.

use crate::payload::RunId;
use std::fmt;
use std::str::FromStr;

/// One moment on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds since the load started, on the monotonic clock.
    pub mono_us: u64,
    /// Microseconds since 1970.
    pub wall_us: u64,
}

/// One line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The first line.
    Head {
        /// The run.
        run: RunId,
        /// The number of publishers over MQTT.
        publishers: u16,
        /// The number of publishers over HTTP; their numbers follow.
        writers: u16,
        /// The offered rate of all publishers together, in messages per 1,000 seconds.
        rate_milli: u64,
        /// The payload's bytes, as given.
        payload: String,
    },
    /// A message fell due: from here on it counts.
    Offered(Message),
    /// It was acknowledged.
    Acknowledged(Message),
    /// It was refused for good (a reason code of 0x80 or more).
    Refused(Message),
    /// A publisher's connection was accepted.
    Connected {
        /// The publisher.
        publisher: u16,
        /// When.
        at: Moment,
    },
    /// A publisher lost its connection or could not get one.
    Disconnected {
        /// The publisher.
        publisher: u16,
        /// When.
        at: Moment,
        /// Why, in one line.
        reason: String,
    },
    /// An attempt to use the service over a connection of its own.
    Probe(Probe),
    /// An observer is subscribed from here on.
    Watching {
        /// The observer.
        observer: u16,
        /// When.
        at: Moment,
    },
    /// An observer lost its connection, could not get one, or got no answer.
    Blind {
        /// The observer.
        observer: u16,
        /// When.
        at: Moment,
        /// Why, in one line.
        reason: String,
    },
    /// A message was delivered to an observer.
    Seen {
        /// The observer.
        observer: u16,
        /// The message, and when it came.
        message: Message,
    },
    /// An observer got a payload that is not what was sent.
    SeenAltered {
        /// The observer.
        observer: u16,
        /// When.
        at: Moment,
    },
    /// An observer read the newest value of a publisher's address.
    Read {
        /// The observer.
        observer: u16,
        /// Whose address.
        publisher: u16,
        /// The message that it got; none if there was none.
        sequence: Option<u32>,
        /// When it was asked for, on the monotonic clock.
        asked_us: u64,
        /// When the answer came.
        at: Moment,
    },
    /// Something happened outside that the judge is to measure from, such as a fault.
    Mark {
        /// When.
        at: Moment,
        /// Its name.
        name: String,
    },
    /// The load stopped and nothing follows.
    End(Moment),
}

/// A message of a publisher at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The publisher.
    pub publisher: u16,
    /// The sequence.
    pub sequence: u32,
    /// When.
    pub at: Moment,
}

/// What a probe uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// MQTT: CONNECT and CONNACK.
    Connect,
    /// HTTP: a request and its answer.
    Http,
}

/// One attempt of a client that connects anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What it used.
    pub kind: ProbeKind,
    /// When it began.
    pub at: Moment,
    /// How long it took.
    pub took_us: u64,
    /// Why it failed, in one line; nothing if it did not.
    pub failed: Option<String>,
}

/// A line that is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a line of the load's log: {0:?}")]
pub struct EntryError(pub String);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mono_us, self.wall_us)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.publisher, self.sequence, self.at)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head { run, publishers, writers, rate_milli, payload } => {
                write!(f, "load 2 {run} {publishers} {writers} {rate_milli} {payload}")
            }
            Self::Offered(message) => write!(f, "o {message}"),
            Self::Acknowledged(message) => write!(f, "a {message}"),
            Self::Refused(message) => write!(f, "r {message}"),
            Self::Connected { publisher, at } => write!(f, "c {publisher} {at}"),
            Self::Disconnected { publisher, at, reason } => {
                write!(f, "d {publisher} {at} {}", one_line(reason))
            }
            Self::Probe(Probe { kind, at, took_us, failed }) => {
                let kind = if *kind == ProbeKind::Connect { 'c' } else { 'h' };
                write!(f, "p {kind} {at} {took_us}")?;
                failed.as_ref().map_or(Ok(()), |why| write!(f, " {}", one_line(why)))
            }
            Self::Watching { observer, at } => write!(f, "w {observer} {at}"),
            Self::Blind { observer, at, reason } => write!(f, "b {observer} {at} {}", one_line(reason)),
            Self::Seen { observer, message } => write!(f, "s {observer} {message}"),
            Self::SeenAltered { observer, at } => write!(f, "x {observer} {at}"),
            Self::Read { observer, publisher, sequence, asked_us, at } => {
                let sequence = sequence.map_or_else(|| "-".to_owned(), |sequence| sequence.to_string());
                write!(f, "g {observer} {publisher} {sequence} {asked_us} {at}")
            }
            Self::Mark { at, name } => write!(f, "m {at} {}", one_line(name)),
            Self::End(at) => write!(f, "e {at}"),
        }
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| EntryError(text.chars().take(100).collect()))
    }
}

fn parse(text: &str) -> Option<Entry> {
    let (kind, rest) = text.split_once(' ')?;
    let mut words = Words(rest);
    let entry = match kind {
        "load" => {
            (words.next()? == "2").then_some(())?;
            Entry::Head {
                run: words.next()?.parse().ok()?,
                publishers: words.number()?,
                writers: words.number()?,
                rate_milli: words.number()?,
                payload: words.next()?.to_owned(),
            }
        }
        "o" => Entry::Offered(words.message()?),
        "a" => Entry::Acknowledged(words.message()?),
        "r" => Entry::Refused(words.message()?),
        "c" => Entry::Connected { publisher: words.number()?, at: words.moment()? },
        "d" => Entry::Disconnected {
            publisher: words.number()?,
            at: words.moment()?,
            reason: words.rest().to_owned(),
        },
        "p" => {
            let kind = match words.next()? {
                "c" => ProbeKind::Connect,
                "h" => ProbeKind::Http,
                _ => return None,
            };
            let (at, took_us) = (words.moment()?, words.number()?);
            let failed = Some(words.rest()).filter(|why| !why.is_empty()).map(str::to_owned);
            Entry::Probe(Probe { kind, at, took_us, failed })
        }
        "w" => Entry::Watching { observer: words.number()?, at: words.moment()? },
        "b" => {
            Entry::Blind { observer: words.number()?, at: words.moment()?, reason: words.rest().to_owned() }
        }
        "s" => Entry::Seen { observer: words.number()?, message: words.message()? },
        "x" => Entry::SeenAltered { observer: words.number()?, at: words.moment()? },
        "g" => {
            let (observer, publisher) = (words.number()?, words.number()?);
            let sequence = match words.next()? {
                "-" => None,
                number => Some(number.parse().ok()?),
            };
            Entry::Read { observer, publisher, sequence, asked_us: words.number()?, at: words.moment()? }
        }
        "m" => Entry::Mark { at: words.moment()?, name: words.rest().to_owned() },
        "e" => Entry::End(words.moment()?),
        _ => return None,
    };
    words.0.is_empty().then_some(entry)
}

/// The words of a line that were not read yet.
struct Words<'a>(&'a str);

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let (word, rest) = self.0.split_once(' ').unwrap_or((self.0, ""));
        self.0 = rest;
        Some(word)
    }

    fn number<T: FromStr>(&mut self) -> Option<T> {
        self.next()?.parse().ok()
    }

    fn moment(&mut self) -> Option<Moment> {
        Some(Moment { mono_us: self.number()?, wall_us: self.number()? })
    }

    fn message(&mut self) -> Option<Message> {
        Some(Message { publisher: self.number()?, sequence: self.number()?, at: self.moment()? })
    }

    fn rest(&mut self) -> &'a str {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn at(us: u64) -> Moment {
        Moment { mono_us: us, wall_us: 1_795_400_000_000_000 + us }
    }

    fn message(sequence: u32) -> Message {
        Message { publisher: 2, sequence, at: at(u64::from(sequence)) }
    }

    pub(crate) fn entries() -> Vec<Entry> {
        vec![
            Entry::Head {
                run: "abc123".parse().unwrap(),
                publishers: 2,
                writers: 1,
                rate_milli: 50_000,
                payload: "100..1000".to_owned(),
            },
            Entry::Connected { publisher: 2, at: at(0) },
            Entry::Offered(message(1)),
            Entry::Acknowledged(message(1)),
            Entry::Refused(message(2)),
            Entry::Disconnected { publisher: 2, at: at(5), reason: "closed by the gateway".to_owned() },
            Entry::Probe(Probe { kind: ProbeKind::Connect, at: at(5), took_us: 900, failed: None }),
            Entry::Probe(Probe {
                kind: ProbeKind::Http,
                at: at(5),
                took_us: 900,
                failed: Some("status 503".to_owned()),
            }),
            Entry::Watching { observer: 1, at: at(5) },
            Entry::Seen { observer: 1, message: message(1) },
            Entry::SeenAltered { observer: 1, at: at(6) },
            Entry::Read { observer: 2, publisher: 0, sequence: Some(7), asked_us: 5, at: at(6) },
            Entry::Read { observer: 2, publisher: 0, sequence: None, asked_us: 5, at: at(6) },
            Entry::Blind { observer: 1, at: at(6), reason: "closed by the gateway".to_owned() },
            Entry::Mark { at: at(6), name: "broker killed".to_owned() },
            Entry::End(at(9)),
        ]
    }

    #[test]
    fn every_entry_reads_back() {
        for entry in entries() {
            assert_eq!(entry.to_string().parse(), Ok(entry));
        }
    }

    #[test]
    fn a_torn_or_strange_line_is_refused() {
        for text in [
            "",
            "o",
            "o 1 2 3",
            "o 1 2 3 4 5",
            "x 1 2 3 4",
            "load 1 abc123 1 1 1",
            "load 2 abc123 1 1 1",
            "p z 1 1 1",
            "g 1 1 x 1 1 1",
            "a 70000 1 1 1",
        ] {
            assert!(text.parse::<Entry>().is_err(), "{text:?}");
        }
    }
}

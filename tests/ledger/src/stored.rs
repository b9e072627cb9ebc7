//! The lines in which the reader inside the cluster tells what Kafka holds. Pure: text in and out.
//!
//! One line per record of the run, in the order of each partition's offsets, then one line that says that the reader
//! came to the end; output that was cut off lacks it.

use crate::payload::RunId;
use std::fmt;
use std::str::FromStr;

/// Who set a record's timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeKind {
    /// The producer (`CreateTime`).
    Create,
    /// The partition's leader when it appended (`LogAppendTime`).
    Append,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// The first line.
    Head {
        /// The run that was looked for.
        run: RunId,
        /// The Kafka topic that was read.
        topic: String,
    },
    /// A record of the run.
    Record(StoredRecord),
    /// A record of the run whose bytes or key are not what the publisher sent.
    Altered {
        /// The partition.
        partition: i32,
        /// The offset.
        offset: i64,
    },
    /// The reader came to the end of every partition.
    End {
        /// Records of the run, altered ones included.
        records: u64,
        /// Records that it skipped because they are not of this run.
        others: u64,
    },
}

/// A record of the run as Kafka holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The record's timestamp, in milliseconds since 1970.
    pub time_ms: i64,
    /// Who set the timestamp.
    pub kind: TimeKind,
    /// The publisher.
    pub publisher: u16,
    /// The sequence.
    pub sequence: u32,
}

/// A line that no reader of this version wrote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a line of the reader: {0:?}")]
pub struct LineError(pub String);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head { run, topic } => write!(f, "stored 1 {run} {topic}"),
            Self::Record(record) => {
                let kind = if record.kind == TimeKind::Append { 'A' } else { 'C' };
                let StoredRecord { partition, offset, time_ms, publisher, sequence, .. } = record;
                write!(f, "{partition} {offset} {kind}{time_ms} {publisher} {sequence}")
            }
            Self::Altered { partition, offset } => write!(f, "altered {partition} {offset}"),
            Self::End { records, others } => write!(f, "end {records} {others}"),
        }
    }
}

impl FromStr for Line {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| LineError(text.chars().take(100).collect()))
    }
}

fn parse(text: &str) -> Option<Line> {
    let mut words = text.split(' ');
    let line = match words.next()? {
        "stored" => {
            (words.next()? == "1").then_some(())?;
            Line::Head { run: words.next()?.parse().ok()?, topic: words.next()?.to_owned() }
        }
        "altered" => Line::Altered { partition: number(&mut words)?, offset: number(&mut words)? },
        "end" => Line::End { records: number(&mut words)?, others: number(&mut words)? },
        partition => {
            let partition = partition.parse().ok()?;
            let offset = number(&mut words)?;
            let (kind, time_ms) = words.next()?.split_at_checked(1)?;
            let kind = match kind {
                "A" => TimeKind::Append,
                "C" => TimeKind::Create,
                _ => return None,
            };
            let time_ms = time_ms.parse().ok()?;
            let (publisher, sequence) = (number(&mut words)?, number(&mut words)?);
            Line::Record(StoredRecord { partition, offset, time_ms, kind, publisher, sequence })
        }
    };
    words.next().is_none().then_some(line)
}

fn number<'a, T: FromStr>(words: &mut impl Iterator<Item = &'a str>) -> Option<T> {
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_reads_back() {
        let record = StoredRecord {
            partition: 3,
            offset: 123,
            time_ms: 1_795_400_000_123,
            kind: TimeKind::Append,
            publisher: 2,
            sequence: 99,
        };
        let lines = [
            Line::Head { run: "abc123".parse().unwrap(), topic: "telemetry".to_owned() },
            Line::Record(record),
            Line::Record(StoredRecord { kind: TimeKind::Create, time_ms: -1, ..record }),
            Line::Altered { partition: 1, offset: 2 },
            Line::End { records: 5, others: 0 },
        ];
        for line in lines {
            assert_eq!(line.to_string().parse(), Ok(line));
        }
    }

    #[test]
    fn a_torn_or_strange_line_is_refused() {
        for text in ["", "3 123", "3 123 X5 1 1", "3 123 A5 1 1 1", "end 5", "stored 2 abc123 t", "3 1 é 1 1"]
        {
            assert!(text.parse::<Line>().is_err(), "{text:?}");
        }
    }
}

//! The records of `tg-directory`: what the operator tells every gateway without a restart.
//!
//! A record's key is `<kind>/<name>` and its value a JSON document; no value (a tombstone) removes the entry.
//! Unknown kinds and unknown fields are ignored, so that an older gateway reads a newer operator's directory.

use serde::{Deserialize, Serialize};

/// The key of a directory record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A `Topic` and its routing.
    Topic(String),
}

impl Key {
    /// Reads a key; nothing for a kind that this version does not know.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        match kind {
            "topic" => Some(Self::Topic(name.to_owned())),
            _ => None,
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic/{name}"),
        }
    }
}

/// The value under [`Key::Topic`]: a topic that exists in Kafka, with the filters that won their addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicEntry {
    /// The name of the `Topic` resource.
    pub name: String,
    /// The name in Kafka, prefix included.
    pub kafka_name: String,
    /// Filters whose addresses land in it, conflicts already decided.
    pub filters: Vec<String>,
    /// The number of partitions in Kafka.
    pub partitions: i32,
    /// Kafka's `max.message.bytes` of the topic, in bytes.
    pub max_message_bytes: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_written() {
        let key = Key::Topic("telemetry".to_owned());
        assert_eq!(Key::parse(&key.to_string()), Some(key));
    }

    #[test]
    fn a_newer_operators_kinds_and_fields_are_ignored() {
        assert_eq!(Key::parse("later/x"), None);
        assert_eq!(Key::parse("nonsense"), None);
        let json =
            r#"{"name":"t","kafkaName":"t","filters":["t/#"],"partitions":1,"maxMessageBytes":10,"later":1}"#;
        assert_eq!(serde_json::from_str::<TopicEntry>(json).unwrap().kafka_name, "t");
    }
}

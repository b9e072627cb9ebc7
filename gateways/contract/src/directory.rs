//! The records of `tg-directory`: what the operator tells every gateway without a restart.
//!
//! A record's key is `<kind>/<name>` and its value a JSON document; no value (a tombstone) removes the entry.
//! Unknown kinds and unknown fields are ignored, so that an older gateway reads a newer operator's directory.

use crate::principal::{Principal, check_fleet};
use serde::{Deserialize, Serialize};

/// The key of a directory record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A `Topic` and its routing.
    Topic(String),
    /// A topic in Kafka that is the platform's, by its name there: the operator made it, or was told to take it over.
    /// It outlives the `Topic`.
    Made(String),
    /// Which platform writes this directory.
    Owner,
    /// A `DeviceFleet`: `fleet/<name>`.
    Fleet(String),
    /// A device: `device/<fleet>/<device>`. It counts while its fleet has a record, whichever came first.
    Device(Principal),
}

impl Key {
    /// Reads a key; nothing for a kind that this version does not know.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('/')?;
        match kind {
            "topic" => Some(Self::Topic(name.to_owned())),
            "made" => Some(Self::Made(name.to_owned())),
            "owner" if name == "platform" => Some(Self::Owner),
            "fleet" => check_fleet(name).is_ok().then(|| Self::Fleet(name.to_owned())),
            "device" => Principal::parse(name).ok().map(Self::Device),
            _ => None,
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic/{name}"),
            Self::Made(name) => write!(f, "made/{name}"),
            Self::Owner => f.write_str("owner/platform"),
            Self::Fleet(name) => write!(f, "fleet/{name}"),
            Self::Device(principal) => write!(f, "device/{principal}"),
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

/// The value under [`Key::Made`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeEntry {
    /// Whether somebody else made it and `tidegate.io/adopt` handed it over.
    pub adopted: bool,
}

/// The value under [`Key::Owner`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerEntry {
    /// The platform's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a platform that was deleted and made again is another.
    pub uid: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_written() {
        let keys = [
            Key::Topic("telemetry".to_owned()),
            Key::Made("acme.telemetry".to_owned()),
            Key::Owner,
            Key::Fleet("meters".to_owned()),
            Key::Device(Principal::parse("meters/meter-7").unwrap()),
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.to_string()), Some(key));
        }
    }

    #[test]
    fn a_newer_operators_kinds_and_fields_are_ignored() {
        assert_eq!(Key::parse("later/x"), None);
        assert_eq!(Key::parse("nonsense"), None);
        assert_eq!(Key::parse("fleet/a/b"), None);
        assert_eq!(Key::parse("device/meters"), None);
        assert_eq!(Key::parse("device/meters/a/b"), None);
        let json =
            r#"{"name":"t","kafkaName":"t","filters":["t/#"],"partitions":1,"maxMessageBytes":10,"later":1}"#;
        assert_eq!(serde_json::from_str::<TopicEntry>(json).unwrap().kafka_name, "t");
    }
}

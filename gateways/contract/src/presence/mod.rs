//! The records of `tg-presence` and `tg-gateways`: who is connected, and which gateways live.
//!
//! A claim is a record of its own for each connection: `<fleet>/<device>/<client identifier>/<connection>`. Its offset is
//! its epoch, and of the claims on one client identifier of one device the highest epoch owns it. The key of a
//! connection is written by the process that has the connection: the claim when it comes, a tombstone when it ends. Only
//! when that process is dead somebody else, a housekeeper, writes the tombstone. So no end can erase another
//! connection's claim, in whatever order they reach Kafka.
//!
//! A process writes a heartbeat under its pod's name every [`BEAT`] and is dead [`DEAD`] after the last one, or when
//! another process has that pod's name.

mod pulse;
mod view;

pub use pulse::Pulse;
pub use view::{Held, Taken, View};

use crate::principal::Principal;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often a process says that it lives.
pub const BEAT: Duration = Duration::from_secs(1);
/// A process that has said nothing for so long is dead.
pub const DEAD: Duration = Duration::from_secs(5);

/// The key of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    text: Box<str>,
    /// Where the name ends.
    name: usize,
}

impl Key {
    /// The claim of a connection on a device's client identifier. `connection` is one that no other connection has, here or
    /// in another process, and has no `/`.
    pub fn new(principal: &Principal, client_id: &str, connection: &str) -> Self {
        let name = format!("{principal}/{client_id}");
        Self { text: format!("{name}/{connection}").into(), name: name.len() }
    }

    /// Reads a key. A fleet's, a device's and a connection's name have no `/`; a client identifier may have some.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, connection) = text.rsplit_once('/')?;
        (!connection.is_empty() && principal_of(name).is_some())
            .then(|| Self { text: text.into(), name: name.len() })
    }

    /// What can be owned: the principal and its client identifier. All claims on it are in one partition.
    pub fn name(&self) -> &str {
        &self.text[..self.name]
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// The principal, `<fleet>/<device>`, of a claim's key or name.
pub fn principal_of(text: &str) -> Option<&str> {
    let fleet = text.find('/')?;
    let device = fleet + 1 + text[fleet + 1..].find('/')?;
    let principal = &text[..device];
    (fleet > 0 && device > fleet + 1).then_some(principal)
}

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The pod of the gateway's process that has the connection.
    pub pod: String,
    /// The process in that pod.
    pub incarnation: String,
    /// The protocol that the device speaks.
    pub protocol: String,
    /// When the device connected, in milliseconds since 1970 UTC.
    pub since: i64,
    /// The epoch, of a claim that is written again because somebody took its process for dead. Absent: the record's own
    /// offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// The value of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// The process in the pod that the key names.
    pub incarnation: String,
    /// The gateway's name.
    pub gateway: String,
}

/// A process among all of a platform: its pod and which one in there.
pub fn process(pod: &str, incarnation: &str) -> String {
    format!("{pod}/{incarnation}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_claims_key_is_none() {
        for text in ["", "meters", "meters/7", "meters/7/c", "//c/1", "meters//c/1", "/7/c/1", "meters/7/c/"]
        {
            assert_eq!(Key::parse(text), None, "{text:?}");
        }
        assert_eq!(Key::parse("meters/7//1").unwrap().name(), "meters/7/");
    }

    #[test]
    fn a_newer_gateways_fields_are_ignored() {
        let json = r#"{"pod":"p","incarnation":"1","protocol":"mqtt","since":5,"will":{"address":"a"}}"#;
        assert_eq!(serde_json::from_str::<Claim>(json).unwrap().epoch, None);
    }

    proptest! {
        #[test]
        fn a_key_reads_back_as_written_whatever_a_client_calls_itself(
            fleet in "[a-z0-9]{1,8}",
            device in "[^/+#\\s\\p{Cc}.]{1,16}",
            client in "[a/#+.\u{e4} ]{1,24}",
            other in "[a/]{1,6}",
        ) {
            let principal = Principal::new(&fleet, &device).unwrap();
            let key = Key::new(&principal, &client, "00ff-1");
            prop_assert_eq!(Key::parse(key.as_str()), Some(key.clone()));
            prop_assert_eq!(principal_of(key.as_str()), Some(principal.as_str()));
            prop_assert_eq!(principal_of(key.name()), Some(principal.as_str()));
            let same = client == other;
            prop_assert_eq!(Key::new(&principal, &other, "00ff-1") == key, same);
        }
    }
}

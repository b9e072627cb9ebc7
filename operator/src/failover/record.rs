//! Which nodes are out, by whose word: the one thing that replicas of the operator share about failover. Pure.
//!
//! It is a ConfigMap in the operator's namespace with a key for each node, and it is only ever replaced in the version
//! that was read. So no two replicas can take out more nodes together than the brake allows, whatever each of them sees.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tidegate_crds::labels;

/// The ConfigMap's name.
pub const NAME: &str = "tidegate-failover";

/// A node that is out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The replica that took it out.
    pub by: String,
    /// When, by that replica's clock. For people only.
    pub since: Timestamp,
    /// What it had seen.
    pub evidence: String,
}

/// All nodes that are out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The nodes, by name.
    pub claims: BTreeMap<String, Claim>,
    /// The version that was read; nothing where there is no record yet.
    pub version: Option<String>,
}

/// How many nodes of `nodes` may be out together.
pub fn brake(nodes: usize) -> usize {
    (nodes / 3).max(1)
}

impl Record {
    /// Reads the ConfigMap. What cannot be read is no claim: the next write leaves it out.
    pub fn read(map: &ConfigMap) -> Self {
        let data = map.data.iter().flatten();
        let claims =
            data.filter_map(|(node, text)| Some((node.clone(), serde_json::from_str(text).ok()?))).collect();
        Self { claims, version: map.metadata.resource_version.clone() }
    }

    /// The ConfigMap in `namespace`.
    pub fn write(&self, namespace: &str) -> Result<ConfigMap, serde_json::Error> {
        let data: Result<BTreeMap<_, _>, _> = self
            .claims
            .iter()
            .map(|(node, claim)| Ok((node.clone(), serde_json::to_string(claim)?)))
            .collect();
        Ok(ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                namespace: Some(namespace.to_owned()),
                resource_version: self.version.clone(),
                labels: Some([(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some(data?),
            ..ConfigMap::default()
        })
    }

    /// Whether `other` was written after this one. Versions of one object grow.
    pub fn is_older_than(&self, other: &Self) -> bool {
        let number = |record: &Self| record.version.as_ref().and_then(|text| text.parse::<u64>().ok());
        match (number(self), number(other)) {
            (Some(ours), Some(theirs)) => ours < theirs,
            _ => self.version != other.version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim() -> Claim {
        Claim { by: "a".to_owned(), since: Timestamp::UNIX_EPOCH, evidence: "3 of 3".to_owned() }
    }

    #[test]
    fn at_most_a_third_of_the_nodes_and_always_one_may_be_out() {
        assert_eq!([1, 2, 3, 5, 6, 30].map(brake), [1, 1, 1, 1, 2, 10]);
    }

    #[test]
    fn what_is_written_is_read_again_and_nonsense_is_no_claim() {
        let record = Record { claims: [("node1".to_owned(), claim())].into(), version: Some("7".to_owned()) };
        let mut map = record.write("tidegate-system").unwrap();
        assert_eq!(Record::read(&map), record);
        map.data.get_or_insert_default().insert("node2".to_owned(), "nonsense".to_owned());
        assert_eq!(Record::read(&map), record);
    }

    #[test]
    fn of_two_records_the_later_one_counts() {
        let at = |version: &str| Record { version: Some(version.to_owned()), ..Record::default() };
        assert!(at("9").is_older_than(&at("10")) && !at("10").is_older_than(&at("9")));
        assert!(Record::default().is_older_than(&at("1")) && !at("1").is_older_than(&at("1")));
    }
}

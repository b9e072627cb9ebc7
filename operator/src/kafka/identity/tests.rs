//! What is kept, what is made, and what is refused.

use super::*;
use proptest::prelude::*;

fn names() -> Names {
    Names::new("plant", "plant", "cluster.local")
}

fn settle(
    brokers: i32,
    current: Option<Identity>,
    claims: &BTreeMap<i32, ClaimIdentity>,
) -> Result<Identity, IdentityError> {
    Identity::settle(&names(), brokers, current, claims, None)
}

fn claims(identity: &Identity) -> BTreeMap<i32, ClaimIdentity> {
    let read = |&id: &i32| (id, ClaimIdentity::read("c", id, &identity.annotations(id)).unwrap());
    identity.nodes.keys().map(read).collect()
}

#[test]
fn a_new_cluster_has_three_voters_and_every_node_may_format() {
    let made = settle(5, None, &BTreeMap::new()).unwrap();
    assert_eq!(made.voters, 3);
    assert!(made.nodes.values().all(|node| node.may_format));
    let data = made.data(controller(&names()));
    assert_eq!(data[INITIAL_CONTROLLERS].matches("@plant-kafka-").count(), 3);
    assert!(data["node-3"].contains("role=broker"));
}

#[test]
fn a_crash_after_the_configmap_or_any_claim_changes_nobody() {
    let made = settle(3, None, &BTreeMap::new()).unwrap();
    let mut written = claims(&made);
    assert_eq!(settle(3, Some(made.clone()), &written).unwrap(), made);
    written.remove(&1);
    assert_eq!(settle(3, Some(made.clone()), &written).unwrap(), made);
}

#[test]
fn volumes_taken_over_keep_their_identity_and_are_never_formatted() {
    let made = settle(3, None, &BTreeMap::new()).unwrap();
    let taken = settle(3, None, &claims(&made)).unwrap();
    assert_eq!(taken.cluster, made.cluster);
    for (id, node) in &taken.nodes {
        assert_eq!(node.directory, made.nodes[id].directory);
        assert!(!node.may_format);
    }
}

#[test]
fn a_lost_voter_waits_while_an_added_broker_may_format() {
    let made = settle(3, None, &BTreeMap::new()).unwrap();
    let mut left = claims(&made);
    left.remove(&1);
    let taken = settle(4, None, &left).unwrap();
    assert!(!taken.nodes[&1].may_format);
    assert!(taken.nodes[&3].may_format);
}

#[test]
fn a_node_that_was_seen_in_the_cluster_never_formats_again() {
    let mut made = settle(3, None, &BTreeMap::new()).unwrap();
    assert!(made.formed(&[0, 2]));
    assert!(!made.formed(&[0, 2]));
    assert!(made.nodes[&1].may_format && !made.nodes[&0].may_format);
    assert!(!made.is_formed());
    made.formed(&[1]);
    assert!(made.is_formed());
    let grown = settle(4, Some(made.clone()), &claims(&made)).unwrap();
    assert!(grown.is_formed() && grown.nodes[&3].may_format);
}

#[test]
fn identities_that_contradict_each_other_are_refused() {
    let (one, two) = (settle(3, None, &BTreeMap::new()), settle(3, None, &BTreeMap::new()));
    let (one, two) = (one.unwrap(), two.unwrap());
    let mut mixed = claims(&one);
    mixed.insert(2, claims(&two)[&2].clone());
    let said = settle(3, None, &mixed).unwrap_err().to_string();
    for part in
        ["volume claim data-plant-kafka-2 says", "volume claim data-plant-kafka-0 says", one.cluster.as_str()]
    {
        assert!(said.contains(part), "{said}");
    }
    let said = settle(3, Some(two.clone()), &claims(&one)).unwrap_err().to_string();
    assert!(said.contains(&format!("ConfigMap plant-kafka-identity says {}", two.cluster)), "{said}");
    let mut swapped = claims(&one);
    swapped.insert(2, claims(&one)[&1].clone());
    let said = settle(3, Some(one.clone()), &swapped).unwrap_err().to_string();
    for part in [
        format!("volume claim data-plant-kafka-2 has directory id {}", one.nodes[&1].directory),
        format!(
            "ConfigMap plant-kafka-identity has {} (directory-id in key node-2)",
            one.nodes[&2].directory
        ),
        "meta.properties".to_owned(),
    ] {
        assert!(said.contains(&part), "{said}");
    }
    let lost = Identity::settle(&names(), 3, None, &BTreeMap::new(), Some(&one.cluster));
    assert!(matches!(lost, Err(IdentityError::Lost(..))));
}

#[test]
fn a_configmap_reads_back_as_written() {
    let mut made = settle(4, None, &BTreeMap::new()).unwrap();
    made.formed(&[1]);
    let data = made.data(controller(&names()));
    assert_eq!(Identity::read("i", &data).unwrap(), Some(made));
    assert_eq!(Identity::read("i", &BTreeMap::new()).unwrap(), None);
    let mut broken = data;
    broken.insert("node-1".to_owned(), "cluster-id=-bad".to_owned());
    assert!(matches!(Identity::read("i", &broken), Err(IdentityError::ConfigMap(..))));
}

proptest! {
    #[test]
    fn no_id_looks_like_an_option(_ in 0..200) {
        let uuid = Uuid::random();
        prop_assert_eq!(uuid.as_str().len(), 22);
        prop_assert!(!uuid.as_str().starts_with('-'));
    }

    #[test]
    fn settling_twice_changes_nothing(brokers in 1..7_i32, more in 0..4_i32) {
        let made = settle(brokers, None, &BTreeMap::new()).unwrap();
        let grown = settle(brokers + more, Some(made.clone()), &claims(&made)).unwrap();
        prop_assert_eq!(grown.voters, made.voters);
        prop_assert_eq!(settle(brokers + more, Some(grown.clone()), &claims(&grown)).unwrap(), grown);
    }
}

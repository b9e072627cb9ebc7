//! When a lost disk is replaced, step by step; when it is not; and that no step is taken twice.

use super::replace::{Seen, Told, advance};
use super::rollout::Known;
use crate::kafka::identity::{Identity, Uuid};
use crate::kafka::names::Names;
use crate::kafka::snapshot::Exchanged;
use crate::kafka::survey::{Partition, Survey};
use crate::kafka::wire::quorum::{Quorum, Replica};
use crate::kafka::wire::voters::{Exchange, Next};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A formed cluster.
fn formed(brokers: i32) -> Identity {
    let mut identity =
        Identity::settle(&Names::new("iot", "plant", "cluster.local"), brokers, None, &BTreeMap::new(), None)
            .unwrap();
    identity.formed(&(0..brokers).collect::<Vec<_>>());
    identity
}

/// Kafka with these brokers, and controllers that have caught up; each votes with the disk that `identity` has.
fn survey(identity: &Identity, brokers: &[i32], caught_up: &[i32], in_sync: &[i32]) -> Survey {
    let partition = Partition {
        topic: "telemetry".to_owned(),
        number: 4,
        replicas: vec![0, 1, 2],
        in_sync: in_sync.to_vec(),
        min_in_sync: Some(2),
    };
    let replica = |id: i32| {
        let directory = identity.nodes.get(&id).map(|node| node.directory.clone());
        (id, Replica { directory, caught_up: caught_up.contains(&id), lag: 0 })
    };
    let quorum =
        Quorum { leader: 0, voters: (0..identity.voters).map(replica).collect(), ..Quorum::default() };
    Survey::of(brokers.iter().copied().collect(), &[partition], quorum)
}

fn seen<'a>(survey: &'a Survey, empty: &[i32]) -> Seen<'a> {
    Seen {
        known: Known::Now(survey),
        fresh: true,
        empty: empty.iter().copied().collect(),
        trouble: None,
        exchange: None,
    }
}

fn says(told: Option<Told>, reason: &str, words: &str) {
    let told = told.unwrap();
    assert_eq!(told.reason, reason, "{told:?}");
    assert!(told.message.contains(words), "{told:?}");
}

#[test]
fn a_lost_disk_of_a_voter_is_formatted_exchanged_and_filled_and_the_request_is_answered_once() {
    let mut identity = formed(3);
    let before = identity.clone();
    let lost = survey(&identity, &[0, 2], &[0, 2], &[0, 2]);
    let told = advance(&mut identity, 3, Some("1"), &seen(&lost, &[1])).unwrap();
    assert!(told.event);
    says(Some(told), "ReplacingDisk", "may be formatted");
    let node = identity.nodes[&1].clone();
    assert!(node.may_format && node.directory != before.nodes[&1].directory);
    assert_eq!(node.replaces.as_ref(), Some(&before.nodes[&1].directory));
    assert!(identity.is_formed(), "the others are what they were");
    assert_eq!(identity.nodes[&0], before.nodes[&0]);

    says(advance(&mut identity, 3, Some("1"), &seen(&lost, &[1])), "ReplacingDisk", "starts on an empty one");
    assert_eq!(identity.nodes[&1], node, "one request, one disk");

    identity.formed(&[0, 1, 2]);
    assert!(!identity.nodes[&1].may_format, "it never formats again");
    let joined = survey(&before, &[0, 1, 2], &[0, 2], &[0, 2]);
    let wanted = Exchange {
        cluster: identity.cluster.clone(),
        node: 1,
        directory: node.directory.clone(),
        host: String::new(),
        port: 9093,
    };
    let exchange = Exchanged { wanted, left: Ok(Next::Wait("controller 2 has not caught up".to_owned())) };
    let reads = Seen { exchange: Some(&exchange), ..seen(&joined, &[]) };
    says(advance(&mut identity, 3, Some("1"), &reads), "ReplacingDisk", "controller 2 has not caught up");
    says(advance(&mut identity, 3, Some("1"), &seen(&joined, &[])), "ReplacingDisk", "takes its vote");

    let votes = survey(&identity, &[0, 1, 2], &[0, 1, 2], &[0, 2]);
    says(advance(&mut identity, 3, Some("1"), &seen(&votes, &[])), "ReplacingDisk", "partition telemetry/4");
    let whole = survey(&identity, &[0, 1, 2], &[0, 1, 2], &[0, 1, 2]);
    let stale = Seen { fresh: false, ..seen(&whole, &[]) };
    says(advance(&mut identity, 3, Some("1"), &stale), "ReplacingDisk", "asked");
    says(advance(&mut identity, 3, Some("1"), &seen(&whole, &[])), "DiskReplaced", "everything");
    assert_eq!(identity.replacing(), None);

    // The same annotation is answered; the next loss needs a new one.
    assert_eq!(advance(&mut identity, 3, Some("1"), &seen(&lost, &[1])), None);
    assert_eq!(advance(&mut identity, 3, None, &seen(&lost, &[1])), None);
    says(advance(&mut identity, 3, Some("1"), &seen(&lost, &[1])), "ReplacingDisk", "may be formatted");
}

#[test]
fn a_broker_that_does_not_vote_needs_no_exchange() {
    let mut identity = formed(4);
    let lost = survey(&identity, &[0, 1, 2], &[0, 1, 2], &[0, 1, 2]);
    says(advance(&mut identity, 4, Some("3"), &seen(&lost, &[3])), "ReplacingDisk", "may be formatted");
    let whole = survey(&identity, &[0, 1, 2, 3], &[0, 1, 2], &[0, 1, 2]);
    says(advance(&mut identity, 4, Some("3"), &seen(&whole, &[])), "DiskReplaced", "everything");
}

#[test]
fn what_is_not_safe_is_refused_with_what_to_do_and_changes_nobody() {
    let whole = formed(3);
    let lost = |caught_up: &[i32], in_sync: &[i32]| survey(&whole, &[0, 2], caught_up, in_sync);
    let good = lost(&[0, 2], &[0, 2]);
    let lags = lost(&[0], &[0, 2]);
    let only = survey(&whole, &[0, 2], &[0, 2], &[1]);
    let there = survey(&whole, &[0, 1, 2], &[0, 1, 2], &[0, 1, 2]);
    for (asked, survey, empty, words) in [
        ("one", &good, vec![1], "\"one\" is no broker: write a node id from 0 to 2"),
        ("3", &good, vec![1], "no broker"),
        ("1", &good, vec![], "says that its disk is empty"),
        ("2", &good, vec![1], "says that its disk is empty"),
        ("1", &there, vec![1], "in the cluster"),
        ("1", &lags, vec![1], "controller 2 has not caught up"),
        ("1", &only, vec![1], "partition telemetry/4 may have its newest records on the disk of node 1 only"),
    ] {
        let mut identity = whole.clone();
        says(advance(&mut identity, 3, Some(asked), &seen(survey, &empty)), "DiskNotReplaced", words);
        assert_eq!(identity, whole);
    }
    let mut identity = whole.clone();
    let unknown = Seen { known: Known::Not("no answer"), ..seen(&good, &[1]) };
    says(advance(&mut identity, 3, Some("1"), &unknown), "DiskNotReplaced", "no answer");
    let stale = Seen { fresh: false, ..seen(&good, &[1]) };
    says(advance(&mut identity, 3, Some("1"), &stale), "ReplacingDisk", "asked");
    assert_eq!(identity, whole, "what was known a while ago is not acted on");

    let two = formed(2);
    let rest = survey(&two, &[0], &[0], &[0]);
    let mut identity = two.clone();
    says(advance(&mut identity, 2, Some("1"), &seen(&rest, &[1])), "DiskNotReplaced", "none can be spared");
    assert_eq!(identity, two);
}

#[test]
fn another_operator_goes_on_from_what_is_written_wherever_the_first_one_ended() {
    let names = Names::new("iot", "plant", "cluster.local");
    let mut identity = formed(3);
    let before = identity.clone();
    let claims = |identity: &Identity| {
        let read = |id: i32| crate::kafka::identity::ClaimIdentity::read("c", id, &identity.annotations(id));
        (0..3).map(|id| (id, read(id).unwrap())).collect::<BTreeMap<_, _>>()
    };
    identity.replace(1, "1");
    let data = identity.data(|node| format!("host-{node}:1"));
    let read = Identity::read("i", &data).unwrap().unwrap();
    assert_eq!(read, identity);
    // The claim still has the lost disk's id, or has the new one's.
    for claims in [claims(&before), claims(&identity)] {
        let settled = Identity::settle(&names, 3, Some(read.clone()), &claims, None).unwrap();
        assert_eq!(settled, identity);
    }
    let mut strange = claims(&before);
    strange.get_mut(&1).unwrap().directory = Uuid::random();
    assert!(Identity::settle(&names, 3, Some(read), &strange, None).is_err());
}

proptest! {
    /// Whatever is asked for and seen: a disk is given up only where every other controller has caught up, its broker is
    /// away, its pod says that it is empty, and no partition lives there alone.
    #[test]
    fn no_disk_is_formatted_that_could_be_needed(
        asked in 0..4_i32, empty in prop::collection::btree_set(0..3_i32, 0..4),
        brokers in prop::collection::btree_set(0..3_i32, 0..4), caught_up in prop::collection::btree_set(0..3_i32, 0..4),
        in_sync in prop::collection::btree_set(0..3_i32, 0..4), fresh: bool,
    ) {
        let list = |set: &BTreeSet<i32>| set.iter().copied().collect::<Vec<_>>();
        let whole = formed(3);
        let survey = survey(&whole, &list(&brokers), &list(&caught_up), &list(&in_sync));
        let mut identity = whole.clone();
        let seen = Seen { fresh, ..seen(&survey, &list(&empty)) };
        let _ = advance(&mut identity, 3, Some(&asked.to_string()), &seen);
        let others: BTreeSet<_> = (0..3).filter(|node| *node != asked).collect();
        let safe = fresh && asked < 3 && empty.contains(&asked) && !brokers.contains(&asked)
            && others.is_subset(&caught_up) && in_sync.intersection(&brokers).count() > 0;
        prop_assert_eq!(identity.replacing().is_some(), safe);
        for node in others.into_iter().filter(|node| *node < 3) {
            prop_assert_eq!(&identity.nodes[&node], &whole.nodes[&node]);
        }
    }
}

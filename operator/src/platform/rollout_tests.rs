//! Which broker restarts next: by example, and against random clusters.

use super::rollout::{BEHIND, BROKEN, Broker, CONTROLLER, Known, STARTS_WITHIN, Step, decide};
use crate::kafka::survey::{Partition, Survey};
use crate::kafka::wire::quorum::{Quorum, Replica};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

fn broker(node: i32, new: bool) -> Broker {
    Broker { node, pod: format!("plant-kafka-{node}"), new, ready: true, ..Broker::default() }
}

fn partition(topic: &str, replicas: &[i32], in_sync: &[i32], min: usize) -> Partition {
    Partition {
        topic: topic.to_owned(),
        number: 0,
        replicas: replicas.to_vec(),
        in_sync: in_sync.to_vec(),
        min_in_sync: Some(min),
    }
}

fn quorum(leader: i32, caught_up: [bool; 3]) -> Quorum {
    let voter = |(id, caught_up)| (id, Replica { directory: None, caught_up, lag: 0 });
    Quorum { leader, voters: (0..).zip(caught_up).map(voter).collect(), observers: BTreeMap::new() }
}

fn survey(brokers: &[i32], partitions: &[Partition], leader: i32) -> Survey {
    Survey::of(brokers.iter().copied().collect(), partitions, quorum(leader, [true; 3]))
}

fn well(leader: i32) -> Survey {
    survey(&[0, 1, 2], &[partition("telemetry", &[0, 1, 2], &[0, 1, 2], 2)], leader)
}

fn wait(step: Step) -> (String, bool) {
    match step {
        Step::Wait(wait) => (wait.why, wait.stopped),
        other => panic!("{other:?}"),
    }
}

#[test]
fn brokers_go_one_after_another_and_the_active_controller_is_the_last() {
    let mut brokers = [broker(0, false), broker(1, false), broker(2, false)];
    let survey = well(2);
    for (node, why) in [(1, BEHIND), (0, BEHIND), (2, CONTROLLER)] {
        assert_eq!(decide(3, &brokers, &Known::Now(&survey)), Step::Restart { node, why });
        brokers[usize::try_from(node).unwrap()].new = true;
    }
    assert_eq!(decide(3, &brokers, &Known::Now(&survey)), Step::Done);
}

#[test]
fn nobody_goes_while_another_is_away_or_behind() {
    let survey_ = well(0);
    let known = Known::Now(&survey_);
    let going = [broker(0, false), broker(1, false), Broker { going: true, ..broker(2, false) }];
    assert!(wait(decide(3, &going, &known)).0.contains("plant-kafka-2 hands its partitions over"));
    assert!(wait(decide(3, &going[..2], &known)).0.contains("node 2 is not there yet"));
    let starting = [broker(0, false), broker(1, false), Broker { ready: false, ..broker(2, true) }];
    assert_eq!(wait(decide(3, &starting, &known)), ("plant-kafka-2 starts".to_owned(), false));

    let all = [broker(0, false), broker(1, false), broker(2, true)];
    let fenced = survey(&[0, 1], &[], 0);
    assert!(
        wait(decide(3, &all, &Known::Now(&fenced))).0.contains("plant-kafka-2 is not back in the cluster")
    );
    let lagging = survey(&[0, 1, 2], &[partition("__consumer_offsets", &[0, 1, 2], &[0, 1], 1)], 0);
    let (why, _) = wait(decide(3, &all, &Known::Now(&lagging)));
    assert_eq!(why, "plant-kafka-2 has not caught up with partition __consumer_offsets/0 yet");
    assert!(wait(decide(3, &all, &Known::Soon)).0.contains("is asked"));
    assert!(wait(decide(3, &all, &Known::Not("no answer"))).0.contains("no answer"));
}

#[test]
fn a_partition_at_its_minimum_keeps_its_brokers_and_one_that_never_can_spare_any_does_not() {
    let all = [broker(0, true), broker(1, false), broker(2, true)];
    // Broker 7 is gone: two of three replicas are left.
    let short = survey(&[0, 1, 2], &[partition("telemetry", &[1, 2, 7], &[1, 2], 2)], 0);
    let (why, stopped) = wait(decide(3, &all, &Known::Now(&short)));
    assert_eq!(why, "partition telemetry/0 would have too few in-sync replicas without plant-kafka-1");
    assert!(!stopped);
    let single = survey(&[0, 1, 2], &[partition("scratch", &[1], &[1], 1)], 0);
    assert_eq!(decide(3, &all, &Known::Now(&single)), Step::Restart { node: 1, why: BEHIND });
    assert_eq!(single.fragile.unwrap().to_string(), "partition scratch/0");
}

#[test]
fn a_controller_that_has_not_caught_up_keeps_the_others() {
    let all = [broker(0, false), broker(1, true), broker(2, true)];
    let survey = Survey { quorum: quorum(1, [true, true, false]), ..well(1) };
    assert!(wait(decide(3, &all, &Known::Now(&survey))).0.contains("other controllers have not caught up"));
    // The one that lags may go: it is not part of the majority.
    let lagging = [broker(0, true), broker(1, true), broker(2, false)];
    assert_eq!(decide(3, &lagging, &Known::Now(&survey)), Step::Restart { node: 2, why: BEHIND });
}

#[test]
fn a_broker_that_does_not_start_with_new_settings_stops_the_roll_and_older_settings_heal_it() {
    let trouble = Some("pod plant-kafka-2 ends again and again".to_owned());
    let broken = Broker { ready: false, trouble, ..broker(2, true) };
    let survey = survey(&[0, 1], &[], 0);
    let stopped = [broker(0, false), broker(1, false), broken.clone()];
    let (why, needs_person) = wait(decide(3, &stopped, &Known::Now(&survey)));
    assert!(needs_person && why.contains("ends again and again; it runs the newest settings"), "{why}");
    // Set back, the two that kept their settings are new again and the broken one is behind.
    let back = [broker(0, true), broker(1, true), Broker { new: false, ..broken }];
    assert_eq!(decide(3, &back, &Known::Now(&survey)), Step::Restart { node: 2, why: BROKEN });
}

#[test]
fn without_kafkas_answer_only_what_does_not_run_is_restarted() {
    let slow = |unready_for| Broker { ready: false, unready_for, ..broker(1, false) };
    let with = |one: Broker| [broker(0, false), one, broker(2, false)];
    let known = Known::Not("no controller answers");
    assert_eq!(wait(decide(3, &with(slow(Duration::from_secs(20))), &known)).0, "plant-kafka-1 starts");
    assert_eq!(decide(3, &with(slow(STARTS_WITHIN)), &known), Step::Restart { node: 1, why: BROKEN });
    assert!(wait(decide(3, &with(slow(STARTS_WITHIN)), &Known::Soon)).1);
}

/// A random cluster: partitions of any shape, brokers in any state, controllers that keep up or not.
fn cluster() -> impl Strategy<Value = (Vec<Broker>, BTreeSet<i32>, Vec<Partition>, Quorum)> {
    let one = |node: i32| {
        (any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.85), 0..300_u64, any::<bool>())
            .prop_map(move |(new, going, ready, seconds, trouble)| Broker {
                node,
                pod: format!("k-{node}"),
                new,
                going,
                ready,
                unready_for: Duration::from_secs(seconds),
                trouble: (trouble && !ready).then(|| "it ends".to_owned()),
            })
    };
    let brokers = (one(0), one(1), one(2), one(3), one(4), 0..6_usize).prop_map(|(a, b, c, d, e, drop)| {
        let mut all = vec![a, b, c, d, e];
        if drop < 5 && drop % 2 == 0 {
            all.remove(drop);
        }
        all
    });
    let ids = || prop::sample::subsequence(vec![0, 1, 2, 3, 4], 1..=5);
    let partition = (ids(), prop::bool::weighted(0.7), 0..32_u8, prop::option::weighted(0.9, 1..4_usize))
        .prop_map(|(replicas, whole, mask, min_in_sync)| {
            let held = |id: &&i32| whole || mask & (1 << **id) != 0;
            let in_sync = replicas.iter().filter(held).copied().collect();
            Partition { topic: "t".to_owned(), number: 0, replicas, in_sync, min_in_sync }
        });
    let alive = prop_oneof![
        3 => Just(BTreeSet::from([0, 1, 2, 3, 4])),
        1 => ids().prop_map(|ids| ids.into_iter().collect::<BTreeSet<_>>())
    ];
    let quorum = (0..3, prop::array::uniform3(prop::bool::weighted(0.9))).prop_map(|(leader, mut up)| {
        up[usize::try_from(leader).unwrap()] = true;
        quorum(leader, up)
    });
    (brokers, alive, prop::collection::vec(partition, 0..4), quorum)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]
    #[test]
    fn no_restart_ever_costs_what_was_acknowledged_or_the_controllers((brokers, alive, partitions, quorum) in cluster()) {
        let survey = Survey::of(alive.clone(), &partitions, quorum.clone());
        let Step::Restart { node, .. } = decide(5, &brokers, &Known::Now(&survey)) else { return Ok(()) };
        let it = brokers.iter().find(|broker| broker.node == node).unwrap();
        prop_assert!(!it.new && !it.going);
        // The controllers' majority, where there can be one without it.
        let others = quorum.voters.iter().filter(|(id, voter)| **id != node && voter.caught_up).count();
        prop_assert!(!quorum.voters.contains_key(&node) || others >= 2);
        let serves = |broker: &Broker| broker.ready && !broker.going && alive.contains(&broker.node);
        if serves(it) {
            prop_assert_eq!(brokers.iter().filter(|broker| serves(broker)).count(), 5, "another is away");
            let waits = |broker: &&Broker| !broker.new && broker.node != node;
            prop_assert!(quorum.leader != node || brokers.iter().filter(waits).count() == 0, "not the last");
            for partition in &partitions {
                let whole = partition.replicas.iter().all(|id| partition.in_sync.contains(id) || !alive.contains(id));
                prop_assert!(whole, "somebody is behind");
            }
        }
        for partition in &partitions {
            let left = partition.in_sync.iter().filter(|&id| alive.contains(id) && *id != node).count();
            let had = partition.in_sync.iter().filter(|&id| alive.contains(id)).count();
            let min = partition.min_in_sync.unwrap_or(partition.replicas.len().max(2) - 1);
            let never = partition.replicas.len() <= min;
            prop_assert!(left == had || left >= min || never, "{left} of {min} in sync are left");
        }
    }

    #[test]
    fn a_broker_that_is_well_is_never_restarted_blindly((brokers, ..) in cluster()) {
        for known in [Known::Soon, Known::Not("away")] {
            if let Step::Restart { node, .. } = decide(5, &brokers, &known) {
                let it = brokers.iter().find(|broker| broker.node == node).unwrap();
                prop_assert!(!it.ready, "{it:?}");
            }
        }
    }

    #[test]
    fn a_cluster_that_is_well_always_goes_on(new in prop::array::uniform3(any::<bool>()), leader in 0..3) {
        let brokers: Vec<_> = (0..).zip(new).map(|(node, new)| broker(node, new)).collect();
        let step = decide(3, &brokers, &Known::Now(&well(leader)));
        prop_assert_eq!(matches!(step, Step::Done), new.iter().all(|new| *new), "{:?}", step);
        prop_assert!(!matches!(step, Step::Wait(_)));
    }
}

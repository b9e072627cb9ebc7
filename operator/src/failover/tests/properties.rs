//! What holds in every cluster, whatever fails in it and in whatever order.

use super::sim::{Deed, STEP, Sim, node};
use crate::failover::health::LATE;
use crate::failover::model::{Action, Pod};
use crate::failover::record::brake;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Something that happens.
#[derive(Clone, Debug)]
enum Turn {
    Power { node: usize, on: bool },
    Lease { node: usize, renews: bool },
    Link { replica: usize, node: usize, up: bool },
    Slow { replica: usize, slow: bool },
    Works { replica: usize, works: bool },
    Lags { replica: usize, lags: bool },
    Leader { replica: usize },
}

fn turn() -> impl Strategy<Value = Turn> {
    let (node, replica) = (1..=7_usize, 0..2_usize);
    prop_oneof![
        (node.clone(), any::<bool>()).prop_map(|(node, on)| Turn::Power { node, on }),
        (node.clone(), any::<bool>()).prop_map(|(node, renews)| Turn::Lease { node, renews }),
        (replica.clone(), node, any::<bool>()).prop_map(|(replica, node, up)| Turn::Link {
            replica,
            node,
            up
        }),
        (replica.clone(), any::<bool>()).prop_map(|(replica, slow)| Turn::Slow { replica, slow }),
        (replica.clone(), any::<bool>()).prop_map(|(replica, works)| Turn::Works { replica, works }),
        (replica.clone(), any::<bool>()).prop_map(|(replica, lags)| Turn::Lags { replica, lags }),
        replica.prop_map(|replica| Turn::Leader { replica }),
    ]
}

/// What happens, and how many rounds pass after it.
fn turns() -> impl Strategy<Value = Vec<(Turn, u32)>> {
    proptest::collection::vec((turn(), 0..50_u32), 1..16)
}

fn apply(sim: &mut Sim, turn: &Turn) {
    let set = |set: &mut std::collections::BTreeSet<String>, number: usize, there: bool| {
        if there {
            set.insert(node(number));
        } else {
            set.remove(&node(number));
        }
    };
    match *turn {
        Turn::Power { node, on } => set(&mut sim.off, node, !on),
        Turn::Lease { node, renews } => set(&mut sim.frozen, node, !renews),
        Turn::Link { replica, node, up } => set(&mut sim.replicas[replica].cut_from, node, !up),
        Turn::Slow { replica, slow } => {
            sim.replicas[replica].late = if slow { LATE + STEP } else { Duration::ZERO };
        }
        Turn::Works { replica, works } => sim.replicas[replica].works = works,
        Turn::Lags { replica, lags } => sim.replicas[replica].lags = lags,
        Turn::Leader { replica } => {
            // At most one leads at a time.
            for (index, one) in sim.replicas.iter_mut().enumerate() {
                one.leads = index == replica;
            }
        }
    }
}

/// Whether another pod serves what this one does.
fn is_replaced(sim: &Sim, pod: &Pod) -> bool {
    sim.world.pods.iter().any(|other| other.uid != pod.uid && other.is_sibling(pod) && other.is_endpoint())
}

/// What must hold at each deed.
fn check(sim: &Sim, deed: &Deed) {
    let claims = &sim.world.record.claims;
    match &deed.action {
        Action::Record { record, claimed, .. } if !claimed.is_empty() => {
            assert!(record.claims.len() <= brake(sim.world.nodes.len()), "the brake: {deed:?}");
        }
        Action::Label { pod, in_service: false } => {
            let pod = sim.world.pods.iter().find(|one| one.uid == pod.uid).unwrap();
            let renewed = sim.now - sim.renewed[&pod.node].1;
            if renewed < Duration::from_millis(6250) {
                assert!(is_replaced(sim, pod), "a suspect takes the last endpoint: {deed:?}");
            }
        }
        Action::Replace { pod } => {
            let pod = sim.world.pods.iter().find(|one| one.uid == pod.uid).unwrap();
            assert!(!pod.in_service, "deleted before its label: {deed:?}");
            let renewed = sim.now - sim.renewed[&pod.node].1;
            assert!(renewed >= Duration::from_millis(6250), "deleted although its node lives: {deed:?}");
            let leads = sim.replicas.iter().any(|one| one.leads && one.identity == deed.by);
            let took_out = claims.get(&pod.node).is_some_and(|claim| claim.by == deed.by);
            let lags = sim.replicas.iter().any(|one| one.lags);
            assert!(leads || took_out || lags, "deleted by one that has no part in it: {deed:?}");
        }
        Action::Mark { node, in_service: false, .. } => {
            let lags = sim.replicas.iter().any(|one| one.lags);
            assert!(lags || claims.contains_key(node), "marked without a claim: {deed:?}");
        }
        Action::Select { .. } | Action::Announce { .. } | Action::Withdraw { .. } => {
            panic!("MetalLB's objects stay as they are, whatever nodes do: {deed:?}");
        }
        _ => {}
    }
}

/// Each case is minutes of a cluster's life; `PROPTEST_CASES` asks for more of them.
fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig { cases: cases.unwrap_or(64), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_more_nodes_are_out_than_the_brake_allows_and_no_suspect_takes_a_last_endpoint(
        nodes in 2..=7_usize,
        pods in proptest::collection::vec(1..=7_usize, 1..6),
        turns in turns(),
    ) {
        let pods: Vec<_> = pods.into_iter().map(|pod| (pod - 1) % nodes + 1).collect();
        let mut sim = Sim::new(nodes, &pods);
        sim.run(5 * SECOND, check);
        for (turn, rounds) in &turns {
            apply(&mut sim, turn);
            sim.run(STEP * *rounds, check);
        }
    }

    #[test]
    fn two_replicas_never_fight_however_differently_they_see(
        nodes in 3..=7_usize,
        turns in turns(),
        pods in proptest::collection::vec(1..=7_usize, 1..6),
    ) {
        let pods: Vec<_> = pods.into_iter().map(|pod| (pod - 1) % nodes + 1).collect();
        let mut sim = Sim::new(nodes, &pods);
        sim.pass(5 * SECOND);
        for (turn, rounds) in &turns {
            apply(&mut sim, turn);
            sim.pass(STEP * *rounds);
        }
        // Whatever each of them sees from now on, it is always the same.
        sim.replicas.iter_mut().for_each(|replica| replica.lags = false);
        sim.pass(120 * SECOND);
        sim.deeds.clear();
        sim.pass(60 * SECOND);
        prop_assert!(sim.deeds.is_empty(), "{:?}", sim.deeds);
    }

    #[test]
    fn an_operator_that_is_cut_off_harms_nothing(
        nodes in 2..=7_usize,
        replica in 0..2_usize,
        pods in proptest::collection::vec(1..=7_usize, 1..6),
        others in turns(),
    ) {
        let pods: Vec<_> = pods.into_iter().map(|pod| (pod - 1) % nodes + 1).collect();
        let mut sim = Sim::new(nodes, &pods);
        sim.pass(15 * SECOND);
        sim.replicas[replica].cut_from = (1..=nodes).map(node).collect();
        sim.replicas[1 - replica].works = false;
        for (turn, rounds) in &others {
            // What happens to others is not its fault; all leases go on, so nobody dies.
            if let Turn::Lags { .. } | Turn::Leader { .. } = turn {
                apply(&mut sim, turn);
            }
            sim.pass(STEP * *rounds);
        }
        prop_assert!(sim.deeds.is_empty(), "{:?}", sim.deeds);
    }

    #[test]
    fn a_slow_prober_suspects_nobody(
        nodes in 2..=7_usize,
        off in proptest::collection::btree_set(1..=7_usize, 0..5),
        late in 201..5000_u64,
    ) {
        let mut sim = Sim::new(nodes, &[1, 2]);
        sim.pass(5 * SECOND);
        sim.replicas.iter_mut().for_each(|replica| replica.late = Duration::from_millis(late));
        sim.off = off.into_iter().map(node).collect();
        sim.pass(30 * SECOND);
        prop_assert!(sim.deeds.is_empty(), "{:?}", sim.deeds);
    }

    #[test]
    fn what_was_taken_out_is_used_again_once_all_is_well(nodes in 3..=7_usize, turns in turns()) {
        let mut sim = Sim::new(nodes, &[1, 2, 3]);
        sim.pass(5 * SECOND);
        for (turn, rounds) in &turns {
            apply(&mut sim, turn);
            sim.pass(STEP * *rounds);
        }
        sim.off.clear();
        sim.frozen.clear();
        for replica in &mut sim.replicas {
            (replica.works, replica.lags, replica.late) = (true, false, Duration::ZERO);
            replica.cut_from.clear();
        }
        sim.pass(30 * SECOND);
        let used: BTreeMap<_, _> =
            sim.world.pods.iter().map(|pod| (&pod.name, pod.in_service || pod.leaving)).collect();
        prop_assert!(sim.out().is_empty() && sim.excluded().is_empty(), "{:?}", sim.deeds);
        prop_assert!(used.values().all(|used| *used), "{used:?}");
    }
}

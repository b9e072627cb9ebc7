//! Stories on the simulated cluster.

use super::sim::{STEP, Sim, node};
use crate::failover::health::{CALM, RETURN};
use crate::failover::model::{Action, Announcers, Held, Owner, State};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn calm(nodes: usize, pods: &[usize]) -> Sim {
    let mut sim = Sim::new(nodes, pods);
    sim.pass(20 * SECOND);
    assert!(sim.deeds.is_empty(), "{:?}", sim.deeds);
    sim
}

#[test]
fn a_node_that_is_switched_off_is_out_of_services_and_announcements_after_three_rounds() {
    let mut sim = calm(4, &[2, 3]);
    sim.off.insert(node(3));
    let took = sim.until(5 * SECOND, |sim| {
        sim.pods_on(3).all(|pod| !pod.in_service) && sim.excluded().contains("node3")
    });
    // The record in the third silent round, the levers in the next decision.
    assert!(took <= 4 * STEP, "{took:?}");
    assert_eq!(sim.out(), ["node3"]);
}

#[test]
fn the_dead_are_replaced_once_their_lease_stops_and_only_after_their_label() {
    let mut sim = calm(4, &[2, 3]);
    sim.off.insert(node(3));
    let took = sim.until(20 * SECOND, |sim| sim.pods_on(3).all(|pod| pod.leaving));
    assert!(took > SECOND && took <= Duration::from_millis(6250) + 3 * STEP, "{took:?}");
    let order: Vec<_> = sim.deeds.iter().map(|deed| (deed.action.kind(), deed.by.as_str())).collect();
    let at = |kind: &str| order.iter().position(|(one, _)| *one == kind).unwrap();
    assert!(at("record") < at("label_out") && at("label_out") < at("replace"), "{order:?}");
    assert_eq!(order[at("replace")].1, "operator-1", "the leader, who took it out");
    assert_eq!(sim.replicas[0].last.ill["node3"].state, State::Dead);
    assert!(sim.replicas[0].last.ill["node3"].evidence.contains("6.25 s"));
}

#[test]
fn a_node_whose_lease_goes_on_is_never_replaced() {
    let mut sim = calm(4, &[2, 3]);
    sim.cut(3);
    sim.pass(60 * SECOND);
    assert!(sim.pods_on(3).all(|pod| !pod.in_service && !pod.leaving));
    assert_eq!(sim.out(), ["node3"]);
}

#[test]
fn a_suspect_keeps_the_last_endpoint_and_the_dead_do_not() {
    let mut sim = calm(4, &[3]);
    // Its lease has just been renewed.
    sim.pass(SECOND);
    sim.off.insert(node(3));
    sim.pass(3 * SECOND);
    assert_eq!(sim.out(), ["node3"]);
    assert!(sim.excluded().contains("node3"), "its addresses move all the same");
    assert!(sim.pods_on(3).all(|pod| pod.in_service));
    sim.until(10 * SECOND, |sim| sim.pods_on(3).all(|pod| !pod.in_service && pod.leaving));
}

#[test]
fn a_node_that_answers_for_ten_seconds_is_used_again_and_not_suspected_lightly() {
    let mut sim = calm(4, &[2, 3]);
    sim.cut(3);
    sim.pass(5 * SECOND);
    sim.mend();
    let took = sim.until(20 * SECOND, |sim| {
        sim.pods_on(3).all(|pod| pod.in_service) && sim.excluded().is_empty() && sim.out().is_empty()
    });
    assert!(took >= RETURN && took < RETURN + SECOND, "{took:?}");
    // Silent for two seconds again: that is nothing now, and enough a minute later.
    let blink = |sim: &mut Sim| {
        sim.cut(3);
        sim.pass(2 * SECOND);
        let out = !sim.out().is_empty();
        sim.mend();
        sim.pass(Duration::from_millis(600));
        out
    };
    assert!(!blink(&mut sim));
    sim.pass(CALM);
    assert!(blink(&mut sim));
}

#[test]
fn the_node_of_the_leader_is_taken_out_and_replaced_by_the_other_replica() {
    let mut sim = calm(4, &[1, 3]);
    sim.off.insert(node(1));
    let took = sim.until(5 * SECOND, |sim| sim.pods_on(1).all(|pod| !pod.in_service));
    assert!(took <= 4 * STEP, "{took:?}");
    sim.replicas[0].leads = false;
    let took = sim.until(10 * SECOND, |sim| sim.pods_on(1).all(|pod| pod.leaving));
    assert!(took <= Duration::from_millis(6250), "nobody leads, and nobody has to: {took:?}");
}

#[test]
fn of_two_nodes_one_is_out_only_when_its_lease_has_stopped_too() {
    let mut sim = calm(2, &[1, 2]);
    sim.replicas[0].cut_from.insert(node(2));
    sim.replicas[1].cut_from.insert(node(1));
    sim.pass(30 * SECOND);
    assert!(sim.deeds.is_empty(), "{:?}", sim.deeds);
    sim.off.insert(node(2));
    sim.until(10 * SECOND, |sim| sim.pods_on(2).all(|pod| pod.leaving));
}

#[test]
fn the_brake_holds_the_second_of_four_nodes_and_says_so() {
    let mut sim = calm(4, &[2, 3, 4]);
    sim.off.insert(node(3));
    sim.pass(5 * SECOND);
    sim.off.insert(node(4));
    sim.pass(20 * SECOND);
    assert_eq!(sim.out(), ["node3"]);
    assert_eq!(sim.replicas[0].last.held["node4"], Held::Brake);
    assert!(sim.pods_on(4).all(|pod| pod.in_service));
}

#[test]
fn a_replica_that_sees_otherwise_than_the_leader_has_its_say_once() {
    let mut sim = calm(4, &[2, 3, 4]);
    sim.replicas[1].cut_from.insert(node(3));
    sim.pass(90 * SECOND);
    let kinds: Vec<_> = sim.deeds.iter().map(|deed| deed.action.kind()).collect();
    let count = |kind: &str| kinds.iter().filter(|one| **one == kind).count();
    assert_eq!((count("label_out"), count("label_in"), count("record")), (1, 1, 2), "{kinds:?}");
    assert!(sim.out().is_empty() && sim.excluded().is_empty());
}

#[test]
fn a_target_that_has_never_answered_proves_nothing() {
    let mut sim = Sim::new(4, &[2, 3]);
    sim.cut(3);
    sim.pass(30 * SECOND);
    assert!(sim.deeds.is_empty(), "{:?}", sim.deeds);
}

#[test]
fn a_node_that_came_back_while_nothing_on_it_can_be_asked_is_used_again_by_its_lease() {
    let mut sim = calm(4, &[2, 3]);
    sim.off.insert(node(3));
    sim.pass(20 * SECOND);
    // A new replica has never heard the node, and a firewall keeps it from doing so.
    sim.replicas[0].decider = crate::failover::decide::Decider::new(Some(node(1)));
    sim.replicas[0].cut_from.insert(node(3));
    sim.pass(10 * SECOND);
    assert_eq!(sim.out(), ["node3"]);
    sim.off.clear();
    sim.until(30 * SECOND, |sim| sim.out().is_empty() && sim.excluded().is_empty());
}

#[test]
fn what_somebody_took_out_by_hand_is_put_back_by_the_leader() {
    let mut sim = calm(3, &[2, 3]);
    sim.world.pods[0].in_service = false;
    sim.world.nodes.get_mut("node3").unwrap().in_service = false;
    sim.world.adverts.as_mut().unwrap()[0].from = Announcers::Others;
    sim.pass(4 * SECOND);
    assert!(sim.world.pods[0].in_service && sim.excluded().is_empty());
    assert_eq!(sim.world.adverts.as_ref().unwrap()[0].from, Announcers::InService);
    assert!(sim.deeds.iter().all(|deed| deed.by == "operator-1"), "{:?}", sim.deeds);
}

#[test]
fn switched_off_for_all_platforms_everything_is_put_back() {
    let mut sim = calm(4, &[2, 3]);
    sim.cut(3);
    sim.pass(5 * SECOND);
    sim.world.platforms.values_mut().for_each(|on| *on = false);
    sim.world.pools.values_mut().for_each(|pool| pool.failover = false);
    sim.pass(5 * SECOND);
    assert!(sim.pods_on(3).all(|pod| pod.in_service) && sim.excluded().is_empty() && sim.out().is_empty());
    assert_eq!(sim.world.adverts.as_ref().unwrap()[0].from, Announcers::All);
}

#[test]
fn an_administrators_advertisement_defeats_ours_which_is_withdrawn() {
    let mut sim = calm(3, &[2, 3]);
    let adverts = sim.world.adverts.as_mut().unwrap();
    let mut theirs = adverts[0].clone();
    (theirs.name, theirs.uid, theirs.owner) = ("theirs".to_owned(), "x".to_owned(), Owner::Foreign);
    adverts.push(theirs);
    sim.pass(SECOND);
    let withdrawn = Action::Withdraw { advert: "tidegate.devices".to_owned(), uid: "advert".to_owned() };
    assert!(sim.deeds.iter().all(|deed| deed.action == withdrawn && deed.by == "operator-1"));
    assert!(sim.replicas[0].last.defeated["devices"].contains("L2Advertisement theirs"));
    sim.world.adverts = Some(Vec::new());
    sim.deeds.clear();
    sim.pass(SECOND);
    let announced = Action::Announce { pool: "devices".to_owned(), from: Announcers::InService };
    assert_eq!(sim.deeds[0].action, announced);
    // Somebody's platform cannot be read: its pool may be this one.
    let mut sim = calm(3, &[2, 3]);
    sim.world.pools.clear();
    sim.world.blind = true;
    sim.pass(SECOND);
    assert!(sim.deeds.is_empty(), "{:?}", sim.deeds);
}

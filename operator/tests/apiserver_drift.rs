//! Drift: everything that the operator owns is deleted, changed and added to, one at a time, and watched until it is as it
//! was. The list comes from `metadata.managedFields`, not from this file: an owned field without a row is a failure. The
//! resync is at an hour, so that only watch events repair.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on must fail"
)]

mod apiserver_support;
mod drift_support;

use apiserver_support::World;
use drift_support::additions::additions;
use drift_support::owned::{Owned, discover, kinds};
use drift_support::{Outcome, Table, apply_all};
use kube::Client;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tidegate_ledger::report::campaign;

/// Each repair's wait limit.
const LIMIT: Duration = Duration::from_secs(5);

#[test]
fn what_others_delete_change_or_add_is_put_back_by_events() {
    let world = World::new();
    apply_all(&world, drift_support::DECLARED);
    let _operator = world.operator_with(
        "drift",
        &[
            ("TIDEGATE_RESYNC", "1h"),
            ("TIDEGATE_LOOK_AGAIN", "1h"),
            ("TIDEGATE_ADDRESS_ALLOW_LIST", "192.0.2.0/24"),
            ("TIDEGATE_NETWORK_ALLOW_LIST", "macvlan:eth1,hostDevice:eth2"),
        ],
    );
    world.wait("deployment/mqtt", ".metadata.name", "mqtt");
    world.wait("deployment/http", ".metadata.name", "http");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = world.client().await;
        let all = settle(&client).await;
        let mut table = Table::start();
        for object in &all {
            rows(&client, object, &mut table).await;
            // What is not repaired may stand in the way of everything after it.
            assert!(table.problems.is_empty(), "{}\n{}", table.problems.join("\n"), world.everything());
        }
        what_is_paused_stays_and_is_put_back_afterwards(&client, &world, &mut table).await;
        assert!(table.problems.is_empty(), "{}\n{}", table.problems.join("\n"), world.everything());
        table.write();
        a_restart_stays(&client, &all).await;
        a_quiet_system_makes_no_writes(&client).await;
    });
}

/// Waits until the operator has made everything and rests.
async fn settle(client: &Client) -> Vec<Owned> {
    let kinds = kinds(client).await;
    let (mut last, mut since) = (Vec::new(), Instant::now());
    let deadline = Instant::now() + apiserver_support::PATIENCE;
    loop {
        let now = discover(client, &kinds).await;
        let same = now.iter().map(Owned::version).eq(last.iter().map(Owned::version));
        if !same {
            since = Instant::now();
        }
        if same && !now.is_empty() && since.elapsed() > Duration::from_secs(3) {
            let made: BTreeSet<_> = now.iter().map(|one| one.resource.kind.clone()).collect();
            for kind in [
                "ConfigMap",
                "Deployment",
                "HorizontalPodAutoscaler",
                "IPAddressPool",
                "L2Advertisement",
                "NetworkAttachmentDefinition",
                "PersistentVolumeClaim",
                "PodDisruptionBudget",
                "Secret",
                "Service",
                "ServiceAccount",
                "StatefulSet",
            ] {
                assert!(made.contains(kind), "the operator made no {kind}: {made:?}");
            }
            return now;
        }
        assert!(Instant::now() < deadline, "the operator does not rest");
        last = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// All rows of one object. Deletion comes last: it gives the object another uid.
async fn rows(client: &Client, object: &Owned, table: &mut Table) {
    let fields = object.fields();
    assert!(!fields.is_empty(), "{} has no owned field", object.what());
    // The short form changes one field that the API server lets people change.
    let mut changed = 0;
    for field in &fields {
        if !campaign() && changed > 0 {
            break;
        }
        let outcome = object.change(client, field, LIMIT).await;
        changed += usize::from(outcome.repaired.is_some());
        if campaign() || outcome.repaired.is_some() || !outcome.problem.is_empty() {
            table.row(&object.what(), &format!("{field} changed"), outcome);
        }
        if !table.problems.is_empty() {
            return;
        }
    }
    for (name, patch) in additions(&object.resource.kind) {
        if !table.problems.is_empty() {
            return;
        }
        table.row(&object.what(), &format!("added {name}"), object.add(client, patch, LIMIT).await);
    }
    table.row(&object.what(), "deleted", object.delete(client, LIMIT).await);
}

/// Somebody edits everything while everything is paused, and deletes some of it.
async fn what_is_paused_stays_and_is_put_back_afterwards(client: &Client, world: &World, table: &mut Table) {
    const DECLARED: [&str; 3] = ["iotp/plant", "pgw/mqtt", "pgw/http"];
    const DELETED: [&str; 2] = ["service/mqtt", "deployment/http"];
    for object in DECLARED {
        world.kubectl(&["--namespace=plant", "annotate", object, "tidegate.io/paused=true"]);
        world.condition(object, "Reconciling", "Paused");
    }
    let before = settle(client).await;
    for object in &before {
        object.mislabel(client).await;
    }
    for object in DELETED {
        world.kubectl(&["--namespace=plant", "delete", object, "--wait=false"]);
    }
    // It rests: whatever these edits brought has been done.
    let during = settle(client).await;
    assert_eq!(during.len(), before.len() - DELETED.len(), "something came back although it is paused");
    let touched: Vec<_> = during.iter().filter(|one| !one.is_mislabelled()).map(Owned::what).collect();
    assert!(touched.is_empty(), "written although it is paused: {touched:?}");

    for object in DECLARED {
        world.kubectl(&["--namespace=plant", "annotate", object, "tidegate.io/paused-"]);
    }
    let (began, kinds) = (Instant::now(), kinds(client).await);
    let wanted: Vec<_> = before.iter().map(Owned::what).collect();
    let mut outcome = Outcome::default();
    while outcome.repaired.is_none() && outcome.problem.is_empty() {
        let now = discover(client, &kinds).await;
        let wrong: Vec<_> = now.iter().filter(|one| one.is_mislabelled()).map(Owned::what).collect();
        let names: Vec<_> = now.iter().map(Owned::what).collect();
        if wrong.is_empty() && names == wanted {
            outcome.repaired = Some(began.elapsed());
        } else if began.elapsed() > LIMIT {
            outcome.problem = format!("not put back: {wrong:?}; there are {names:?} instead of {wanted:?}");
        }
    }
    table.row("Everything", "changed and deleted while paused, after unpausing", outcome);
}

async fn a_restart_stays(client: &Client, all: &[Owned]) {
    for object in all.iter().filter(|one| matches!(one.resource.kind.as_str(), "Deployment" | "StatefulSet"))
    {
        object.restart(client, LIMIT).await;
    }
}

async fn a_quiet_system_makes_no_writes(client: &Client) {
    let before = settle(client).await;
    let events = drift_support::events(client).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = discover(client, &kinds(client).await).await;
    assert!(before.iter().map(Owned::version).eq(after.iter().map(Owned::version)));
    assert_eq!(events, drift_support::events(client).await, "an Event was published for nothing");
}

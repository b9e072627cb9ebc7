//! The tables of rights, tried over each protocol, and what came of it.

use super::Who;
use super::world::World;
use tidegate_contract::fleet::{DeviceLimits, FleetEntry};
use tidegate_testkit::request::path;
use tidegate_testkit::rights::{CASES, DESIRED, PASSWORD, Verb, configured, declare, fleet};

/// What came of the tries of a table.
#[derive(Default)]
pub struct Count {
    pub tried: usize,
    pub denied: usize,
    /// Given although the table denies it.
    pub leaks: usize,
    /// Denied although the table allows it.
    pub missing: usize,
}

impl Count {
    fn add(&mut self, allowed: bool, given: bool) {
        self.tried += 1;
        self.denied += usize::from(!allowed);
        self.leaks += usize::from(given && !allowed);
        self.missing += usize::from(allowed && !given);
    }
}

/// A device, its fleet, and what it tries with what comes of it.
type Table = (&'static str, FleetEntry, &'static [(Verb, &'static str, bool)]);

fn tables() -> Vec<Table> {
    let limits = DeviceLimits::default();
    let mut all: Vec<_> = CASES
        .iter()
        .map(|case| (case.username, fleet(case.publish, case.subscribe, limits), case.tries))
        .collect();
    all.push(("meters/m1", configured(fleet(&["#"], &["#"], limits), "first"), DESIRED));
    all
}

async fn world_of(username: &str, entry: &FleetEntry) -> World {
    let world = World::new(&["#"]).await;
    let principal = declare(world.roster(), username, &[], &[]).unwrap();
    world.roster().put_fleet(principal.fleet(), Some(entry));
    world
}

pub async fn tried_over_mqtt(v5: bool) -> Count {
    let mut count = Count::default();
    for (username, entry, tries) in tables() {
        let world = world_of(username, &entry).await;
        let mut client = world.mqtt(v5).await;
        client.enter("x", Who::new(username, PASSWORD), None).await;
        for &(verb, target, allowed) in tries {
            let before = world.kafka.stored(target).len();
            let told = if verb == Verb::Publish {
                client.publish(target).await;
                client.hear().await
            } else {
                client.subscribe(target).await
            };
            let given = ["PUBACK 0x00", "PUBACK", "SUBACK 0x00"].contains(&told.as_str());
            count.add(allowed, given || world.kafka.stored(target).len() > before);
            if target.starts_with('.') && given {
                assert_eq!(client.hear().await, format!("PUBLISH {target}"));
            }
            if told == "closed" {
                client = world.mqtt(v5).await;
                client.enter("x", Who::new(username, PASSWORD), None).await;
            }
        }
    }
    count
}

pub async fn tried_over_http() -> Count {
    let mut count = Count::default();
    for (username, entry, tries) in tables() {
        let world = world_of(username, &entry).await;
        let mut client = world.http().await;
        for &(verb, address, allowed) in tries.iter().filter(|(verb, ..)| *verb != Verb::Subscribe) {
            let method = if verb == Verb::Publish { "PUT" } else { "GET" };
            if verb == Verb::Read && !address.starts_with('.') {
                world.kafka.append(address, b"of another").unwrap();
            }
            let told = client.ask(method, &path(address), Who::new(username, PASSWORD)).await;
            count.add(allowed, told.starts_with('2'));
        }
    }
    count
}

/// Subscribed to `plant/#`, which is then allowed only in part.
pub async fn delivered(v5: bool) -> Count {
    let denied = [
        "plant/secret",
        "plant",
        "plant/a",
        "plant/a/m1",
        "plant/a/m2",
        "plant/open",
        "plant/open/m2",
        "plant/open/m11",
        "plant/open/M1",
        "plant//m1",
        "plant/open//m1",
        "plant/x/open/m1",
        "plant/b/c/d/e/f",
    ];
    let allowed = ["plant/open/m1", "plant/open/m1/x", "plant/open/m1/x/y"];
    let world = World::new(&["#"]).await;
    declare(world.roster(), "meters/m1", &[], &["plant/#"]).unwrap();
    let mut client = world.mqtt(v5).await;
    client.enter("x", Who::new("meters/m1", PASSWORD), None).await;
    client.subscribe("plant/#").await;
    world.kafka.append("plant/secret", b"before").unwrap();
    assert_eq!(client.hear().await, "PUBLISH plant/secret");
    let entry = fleet(&[], &["plant/open/{device}/#", "end"], DeviceLimits::default());
    world.roster().put_fleet("meters", Some(&entry));
    for address in denied.iter().chain(&allowed) {
        world.kafka.append(address, b"after").unwrap();
    }
    let mut heard = Vec::new();
    // every record was looked at when all that is denied is counted
    let dropped = format!("tidegate_mqtt_deliveries_dropped_total{{reason=\"Denied\"}} {}", denied.len());
    while !world.services.telemetry.encode().lines().any(|line| line == dropped) {
        tokio::task::yield_now().await;
    }
    client.ping().await;
    loop {
        match client.hear().await {
            pong if pong == "PINGRESP" && heard.len() == allowed.len() => break,
            pong if pong == "PINGRESP" => client.ping().await,
            other => heard.push(other),
        }
    }
    let mut count = Count::default();
    for address in denied {
        count.add(false, heard.contains(&format!("PUBLISH {address}")));
    }
    for address in allowed {
        count.add(true, heard.contains(&format!("PUBLISH {address}")));
    }
    count
}

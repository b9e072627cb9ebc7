//! Nodes fail under load: devices go on within seconds, nothing acknowledged is lost, and the node is used again by itself.
//!
//! Each row stands alone. The short form runs two; `cargo xtask campaign nodes` runs all, with failover on and off, goes
//! on where it was cut off, and repeats one with `--row`.

mod seen;

use anyhow::{Context, Result, ensure};
use seen::{ASKED, BACK, Seen};
use serde_json::json;
use std::time::{Duration, Instant};
use tidegate_cluster::faults::Fault;
use tidegate_e2e::disks::{self, Disk};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::ledger::{Pod, load, reports};
use tidegate_e2e::nodes::{Roles, Victim, no_operator, operators, well};
use tidegate_e2e::{Story, campaign, story, until};
use tidegate_ledger::report::Row;
use tidegate_ledger::{Load, Report};

const TOPIC: &str = "telemetry";
/// Connections of the load over MQTT, and over HTTP: enough for every replica to have some.
const CONNECTIONS: u16 = 12;
/// Messages per second over each.
const RATE: f64 = 50.0;
/// Acknowledgements flow again, replacements serve, a returned node is used within this, or the row says that they did not.
const LIMIT: Duration = Duration::from_secs(180);
/// How often a node flaps, and how long it is gone and there each time.
const FLAPS: usize = 6;
const FLAP: Duration = Duration::from_millis(2500);
/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Course {
    /// A node is switched off, and on again.
    Off(Victim),
    /// Its cable is pulled, and plugged in again; everything on it goes on running.
    Link,
    /// A node is switched off, and after its return another.
    Twice,
    /// A node's cable is loose.
    Flapping,
    /// A node is switched off while no operator runs.
    NoOperator,
    /// The node of a broker is switched off, and the broker's disk is empty when it is back; a person allows another one.
    LostDisk,
}

/// A row of the table.
struct Case {
    name: &'static str,
    course: Course,
    /// Whether it also runs with failover off.
    beside: bool,
    /// Whether the short form runs it.
    short: bool,
}

const fn case(name: &'static str, course: Course) -> Case {
    Case { name, course, beside: true, short: false }
}

const CASES: [Case; 10] = [
    Case { short: true, ..case("load balancer's node off", Course::Off(Victim::LoadBalancer)) },
    Case { short: true, ..case("gateway's node off", Course::Off(Victim::Gateway)) },
    case("broker's node off", Course::Off(Victim::Broker)),
    case("active controller's node off", Course::Off(Victim::Controller)),
    case("operator leader's node off", Course::Off(Victim::Leader)),
    case("link cut and restored", Course::Link),
    case("one node, and after its return another", Course::Twice),
    case("flapping", Course::Flapping),
    Case { beside: false, ..case("node off while no operator runs", Course::NoOperator) },
    // The last: should it break off, a broker stays without its disk.
    Case {
        beside: false,
        ..case("broker's node off, its volume discarded and then replaced", Course::LostDisk)
    },
];

#[test]
fn node_off_devices_go_on_and_the_node_is_used_again() {
    story("node-off", &["Kafka", "kafka", "broker", "leadership", "directory"], |story| {
        let least = if campaign() { 4 } else { 3 };
        ensure!(
            cluster()?.plan().size() >= least,
            "{least} nodes are needed: cargo xtask cluster up --nodes 4"
        );
        let mut report = Report::resume("nodes", &reports());
        let wanted = std::env::var("TIDEGATE_ROW").ok();
        let mut failed = Vec::new();
        for (name, course, failover) in chosen(wanted.as_deref()) {
            let done = report.rows.iter().any(|row| row.case == name && !row.figures.contains_key("faults"));
            if wanted.is_none() && campaign() && done {
                continue;
            }
            println!("--- {name}");
            let run =
                Run { story, name: &name, course, failover, enough: if campaign() { 1000 } else { 250 } };
            match run.row() {
                Ok(row) => {
                    println!("{}", serde_json::to_string(&row)?);
                    if let Some(faults) = row.figures.get("faults") {
                        failed.push(format!("{name}: {faults}"));
                    }
                    report.replace(row);
                    report.write(&reports())?;
                }
                Err(error) => failed.push(format!("{name}: {error:#}")),
            }
            tidy(story).with_context(|| format!("after {name}"))?;
        }
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    });
}

/// The row of this name, or all that have it in theirs.
fn chosen(wanted: Option<&str>) -> Vec<(String, Course, bool)> {
    let (mut all, text) = (rows(), wanted.unwrap_or_default());
    let exactly = all.iter().any(|(name, ..)| name == text);
    all.retain(|(name, ..)| if exactly { name == text } else { name.contains(text) });
    all
}

fn rows() -> Vec<(String, Course, bool)> {
    let cases = CASES.iter().filter(|case| campaign() || case.short);
    let both = cases.flat_map(|case| {
        let beside = case.beside && campaign();
        let off = beside.then(|| (format!("{}, failover off", case.name), case.course, false));
        [Some((case.name.to_owned(), case.course, true)), off]
    });
    both.flatten().collect()
}

/// Undoes whatever a row that broke off has left.
fn tidy(story: &Story) -> Result<()> {
    cluster()?.heal(&[])?;
    operators(2)?;
    disks::forget(&story.kubectl)?;
    switch_failover(story, true)
}

fn switch_failover(story: &Story, on: bool) -> Result<()> {
    let patch = json!({"spec": {"failover": {"enabled": on}}}).to_string();
    story.kubectl.run(&["patch", "iotp/plant", "--type=merge", "--patch", &patch]).map(drop)
}

/// One row while it runs.
struct Run<'a> {
    story: &'a Story,
    name: &'a str,
    course: Course,
    failover: bool,
    /// Acknowledgements on each side of each fault.
    enough: u64,
}

impl Run<'_> {
    /// Whether somebody watches nodes.
    fn is_watched(&self) -> bool {
        self.failover && self.course != Course::NoOperator
    }

    fn row(&self) -> Result<Row> {
        switch_failover(self.story, self.failover)?;
        well(self.story, self.failover)?;
        let start = Pod::start(self.story)?.offsets(TOPIC)?;
        let (load, options) = load(self.story, |options| {
            (options.publishers, options.rate) = (CONNECTIONS, RATE);
            (options.writers, options.http_rate) = (CONNECTIONS, RATE);
            (options.subscribers, options.readers, options.probe) = (2, 2, true);
        })?;
        load.wait_acknowledged(self.enough, LIMIT)?;
        let seen = self.happens(&load)?;
        load.stop(Duration::from_secs(60))?;
        operators(2)?;
        well(self.story, self.failover)?;
        let verdict = Pod::start(self.story)?.judge(&options, TOPIC, &start)?;
        seen::write_timeline(self.name, &verdict)?;
        Ok(seen::row(self, &seen, &verdict))
    }

    fn happens(&self, load: &Load) -> Result<Vec<Seen>> {
        let roles = Roles::look(self.story)?;
        let off = |node: &str| Fault::PowerOff { node: node.to_owned() };
        match self.course {
            Course::Off(victim) => {
                let node = roles.choose(victim, None)?;
                Ok(vec![self.strike(load, &roles, &node, off(&node))?])
            }
            Course::Link => {
                let node = roles.choose(Victim::Gateway, None)?;
                Ok(vec![self.strike(load, &roles, &node, Fault::LinkDown { node: node.clone() })?])
            }
            Course::Twice => {
                let first = roles.choose(Victim::Gateway, None)?;
                let one = self.strike(load, &roles, &first, off(&first))?;
                well(self.story, self.failover)?;
                let roles = Roles::look(self.story)?;
                let second = roles.choose(Victim::Gateway, Some(&first))?;
                Ok(vec![one, self.strike(load, &roles, &second, off(&second))?])
            }
            Course::Flapping => {
                let node = roles.choose(Victim::Gateway, None)?;
                self.flap(load, &roles, &node).map(|seen| vec![seen])
            }
            Course::NoOperator => {
                let node = roles.choose(Victim::Gateway, None)?;
                no_operator()?;
                Ok(vec![self.strike(load, &roles, &node, off(&node))?])
            }
            Course::LostDisk => {
                let node = roles.choose(Victim::Broker, None)?;
                self.loses_disk(load, &roles, &node, off(&node)).map(|seen| vec![seen])
            }
        }
    }

    /// A node fails; when all that can be expected has happened, it comes back.
    fn strike(&self, load: &Load, roles: &Roles, node: &str, fault: Fault) -> Result<Seen> {
        self.strike_and(load, roles, node, fault, || Ok(()))
    }

    /// A broker's node fails and loses the broker's disk; the broker waits, until another disk is asked for.
    fn loses_disk(&self, load: &Load, roles: &Roles, node: &str, fault: Fault) -> Result<Seen> {
        let disk = Disk::on(&self.story.kubectl, node)?;
        let mut seen = self.strike_and(load, roles, node, fault, || disk.discard())?;
        let told = disk.is_told(seen.back.context("it is not back")?)?;
        disk.waits()?;
        load.mark(&format!("{node}{ASKED}"));
        seen.disk = Some((told, disk.replace()?));
        load.wait_acknowledged(load.acknowledged() + self.enough, LIMIT)?;
        disks::forget(&self.story.kubectl)?;
        Ok(seen)
    }

    /// [`Run::strike`], and something more just before it comes back.
    fn strike_and(
        &self,
        load: &Load,
        roles: &Roles,
        node: &str,
        fault: Fault,
        then: impl FnOnce() -> Result<()>,
    ) -> Result<Seen> {
        let cluster = cluster()?;
        let mut seen = Seen::before(roles, node);
        load.mark(node);
        let cut = Instant::now();
        let injected = cluster.inject_for_now(fault)?;
        // Whatever does not come is told by the row, not by an error.
        let watched = self.is_watched();
        let _ = until("what follows", LIMIT, || seen.look(&self.story.kubectl, node, cut, watched));
        let _ = load.wait_caught_up(LIMIT);
        load.wait_acknowledged(load.acknowledged() + self.enough, LIMIT)?;
        then()?;
        load.mark(&format!("{node}{BACK}"));
        let on = Instant::now();
        injected.heal()?;
        seen.returns(&self.story.kubectl, node, on);
        load.wait_acknowledged(load.acknowledged() + self.enough, LIMIT)?;
        Ok(seen)
    }

    /// A node's link goes and comes.
    fn flap(&self, load: &Load, roles: &Roles, node: &str) -> Result<Seen> {
        let cluster = cluster()?;
        let mut seen = Seen::before(roles, node);
        load.mark(node);
        let cut = Instant::now();
        for _ in 0..FLAPS {
            let down = cluster.inject_for_now(Fault::LinkDown { node: node.to_owned() })?;
            seen.watch(&self.story.kubectl, node, cut, FLAP);
            down.heal()?;
            seen.watch(&self.story.kubectl, node, cut, FLAP);
        }
        load.mark(&format!("{node}{BACK}"));
        seen.returns(&self.story.kubectl, node, Instant::now());
        let _ = load.wait_caught_up(LIMIT);
        load.wait_acknowledged(load.acknowledged() + self.enough, LIMIT)?;
        Ok(seen)
    }
}

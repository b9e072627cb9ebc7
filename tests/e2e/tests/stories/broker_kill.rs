//! The broker that leads the load's partitions dies under load, and nothing that was acknowledged is lost.

use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_e2e::kafka::{BROKERS, kill};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::ledger::{Pod, load, reports};
use tidegate_e2e::{Story, story, until};
use tidegate_ledger::{Report, Verdict};

const TOPIC: &str = "telemetry";
/// Acknowledgements on each side of the fault.
const ENOUGH: u64 = 1_000;
/// The offered rate is acknowledged again within this.
const SERVED: f64 = 10.0;

#[test]
fn broker_kill_costs_nothing_that_was_acknowledged() {
    // a broker that is killed breaks connections, and our components say so
    story("broker-kill", &["Kafka", "kafka", "broker"], |story| {
        let mut report = Report::start("broker-kill");
        let pod = Pod::start(story)?;
        let start = pod.offsets(TOPIC)?;
        let (load, options) = load(story, |_| {})?;
        load.wait_acknowledged(ENOUGH, Duration::from_secs(120))?;

        let before = pod.leaders(TOPIC)?;
        let used = partitions_of_the_load(&pod, &start)?;
        let victim = leader_of_most(&before, &used).context("the load reached no partition")?;
        let name = BROKERS[usize::try_from(victim)?];
        load.mark("broker killed");
        kill(&cluster()?, name)?;
        let after = new_leaders(&pod, victim)?;

        load.wait_acknowledged(load.acknowledged() + ENOUGH, Duration::from_secs(180))?;
        whole_again(story)?;
        load.stop(Duration::from_secs(60))?;

        let verdict = pod.judge(&options, TOPIC, &start)?;
        let mut row = verdict.row("leader killed, 50 msg/s QoS 1", false);
        // told below in words of this story, or only of use to somebody who looks for a fault
        for key in ["marks", "examples", "append_times", "log_complete", "stored_complete", "run"] {
            row.figures.remove(key);
        }
        if let Some(mark) = verdict.marks.first() {
            row.set("acknowledged_before", mark.acknowledged_before);
            row.set("acknowledged_after", mark.acknowledged_after);
            row.set("served_after_s", mark.served_after_s);
        }
        row.set("killed", name);
        row.set("partitions_of_the_load", &used);
        row.set("leaders_before", leaders(&before, &used));
        row.set("leaders_after", leaders(&after, &used));
        report.push(row);
        report.write(&reports())?;
        check(&verdict)
    });
}

fn check(verdict: &Verdict) -> Result<()> {
    ensure!(verdict.is_clean(), "{:?}", verdict.faults());
    let mark = verdict.marks.first().context("no mark")?;
    ensure!(mark.acknowledged_before >= ENOUGH && mark.acknowledged_after >= ENOUGH, "too few: {mark:?}");
    ensure!(mark.served_after_s.is_some_and(|seconds| seconds <= SERVED), "acknowledged late: {mark:?}");
    Ok(())
}

/// Partitions that grew since the load began.
fn partitions_of_the_load(pod: &Pod<'_>, start: &tidegate_ledger::read::Offsets) -> Result<BTreeSet<i32>> {
    let now = pod.offsets(TOPIC)?;
    Ok(now.0.into_iter().filter(|(p, offset)| start.0.get(p) != Some(offset)).map(|(p, _)| p).collect())
}

fn leader_of_most(leaders: &BTreeMap<i32, i32>, partitions: &BTreeSet<i32>) -> Option<i32> {
    let mut count = BTreeMap::new();
    for broker in partitions.iter().filter_map(|partition| leaders.get(partition)) {
        *count.entry(*broker).or_insert(0) += 1;
    }
    count.into_iter().max_by_key(|(_, partitions)| *partitions).map(|(broker, _)| broker)
}

fn new_leaders(pod: &Pod<'_>, dead: i32) -> Result<BTreeMap<i32, i32>> {
    until("other leaders", Duration::from_secs(30), || {
        let leaders = pod.leaders(TOPIC)?;
        ensure!(leaders.values().all(|broker| *broker != dead && *broker >= 0), "{leaders:?}");
        Ok(leaders)
    })
}

/// `partition → broker`, for the report.
fn leaders(all: &BTreeMap<i32, i32>, used: &BTreeSet<i32>) -> String {
    let each: Vec<_> =
        all.iter().filter(|(p, _)| used.contains(p)).map(|(p, broker)| format!("{p}→{broker}")).collect();
    each.join(" ")
}

/// The platform is Ready again, with every broker.
fn whole_again(story: &Story) -> Result<()> {
    until("all brokers", Duration::from_secs(120), || {
        let platform = story.kubectl.get(&["iotp/plant"])?;
        ensure!(platform["status"]["kafka"]["brokersReady"] == 3, "{}", platform["status"]["kafka"]);
        Ok(())
    })?;
    story.kubectl.condition("iotp/plant", "Ready", "True", Duration::from_secs(60)).map(drop)
}

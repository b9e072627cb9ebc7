//! A broker's disk is lost under load: it waits and says so; once told that it may, it begins anew on an empty one and is a
//! voter and in sync again. Nothing acknowledged is lost.

use anyhow::{Context, Result, ensure};
use std::time::{Duration, Instant};
use tidegate_e2e::disks::{self, Disk, tenths, whole};
use tidegate_e2e::ledger::{Pod, load, reports};
use tidegate_e2e::{Story, campaign, story};
use tidegate_ledger::Report;
use tidegate_ledger::report::Row;

const TOPIC: &str = "telemetry";
/// Acknowledgements before the loss, while the broker waits, and after it is back.
const AROUND: u64 = 250;

#[test]
fn lost_disk_waits_until_it_may_be_replaced_and_then_is_back_in_sync() {
    story("lost-disk", &["Kafka", "kafka", "broker", "directory"], |story| {
        let mut report = Report::resume("lost-disk", &reports());
        // The long form loses the disk of every broker in turn, so that of the active controller too.
        let nodes = if campaign() { vec![0, 1, 2] } else { vec![1] };
        for node in nodes {
            let row = lose(story, node).with_context(|| format!("the disk of node {node}"))?;
            report.replace(row);
            report.write(&reports())?;
        }
        Ok(())
    });
}

fn lose(story: &Story, node: usize) -> Result<Row> {
    let kubectl = &story.kubectl;
    let disk = Disk::of(kubectl, node);
    whole(kubectl)?;
    let ledger = Pod::start(story)?;
    let start = ledger.offsets(TOPIC)?;
    let (load, options) = load(story, |_| {})?;
    load.wait_acknowledged(AROUND, Duration::from_secs(120))?;
    let before = disk.volume()?;

    load.mark("disk lost");
    let lost = Instant::now();
    disk.discard()?;
    // What an administrator does whose storage is gone: the claim goes as soon as its pod is.
    kubectl.run(&["delete", "pvc", &disk.claim(), "--wait=false"])?;
    kubectl.run(&["delete", "pod", disk.pod(), "--grace-period=1"])?;
    let told = disk.is_told(lost)?;
    ensure!(disk.volume()?.uid != before.uid, "the claim is on the volume that it had");
    load.wait_acknowledged(load.acknowledged() + AROUND, Duration::from_secs(60))?;
    disk.waits()?;

    load.mark("replacement asked for");
    let replaced = disk.replace()?;
    // The annotation stands there still, and is answered.
    let now = disk.volume()?;
    load.wait_acknowledged(load.acknowledged() + AROUND, Duration::from_secs(60))?;
    ensure!(disk.volume()? == now, "it was answered twice");
    disks::forget(kubectl)?;
    load.stop(Duration::from_secs(60))?;

    let verdict = ledger.judge(&options, TOPIC, &start)?;
    let mut row = Row::new(&format!("disk of broker {node} lost"));
    row.set("told_after_s", tenths(told));
    replaced.fill(&mut row);
    row.set("served_after_s", verdict.marks.first().and_then(|mark| mark.served_after_s));
    row.set("acknowledged", verdict.acknowledged).set("acknowledged_lost", verdict.acknowledged_lost);
    row.set("duplicates", verdict.duplicates).set("disorder", verdict.disorder);
    row.set("stale_repeats", verdict.stale_repeats).set("longest_gap_s", verdict.longest_gap_s);
    println!("{row:?}");
    ensure!(verdict.is_clean(), "{:?} {row:?}", verdict.faults());
    Ok(row)
}

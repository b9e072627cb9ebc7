//! What a node's fault looks like from the API, and what becomes of it in the report.

use super::{LIMIT, Run};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::fs;
use std::time::{Duration, Instant};
use tidegate_e2e::disks::{Replaced, tenths};
use tidegate_e2e::ledger::reports;
use tidegate_e2e::nodes::{GATEWAYS, REPLICAS, Roles, gateways, ill, is_used, serves};
use tidegate_e2e::{Kubectl, until};
use tidegate_ledger::Verdict;
use tidegate_ledger::report::Row;
use tidegate_ledger::verdict::Mark;

/// The ends of the names of marks that are no fault: the node comes back, and another disk is asked for.
pub const BACK: &str = " back";
pub const ASKED: &str = " asked for another disk";

/// A node that fails and comes back. Seconds from the fault, or from the return.
#[derive(Debug, Default)]
pub struct Seen {
    held: String,
    /// Nothing is to be replaced where it had no gateway.
    replaces: bool,
    suspect: Option<f64>,
    dead: Option<f64>,
    replaced: Option<f64>,
    used_again: Option<f64>,
    /// When it came back.
    pub back: Option<Instant>,
    /// From its return until the disk that it has lost is told, and from asking for another one.
    pub disk: Option<(Duration, Replaced)>,
}

impl Seen {
    /// Before the fault.
    pub fn before(roles: &Roles, node: &str) -> Self {
        Self { held: roles.holds(node), replaces: roles.has_gateway(node), ..Self::default() }
    }

    /// Looks once. An error while there is more to come; `told` says whether somebody watches nodes.
    pub fn look(&mut self, kubectl: &Kubectl, node: &str, cut: Instant, told: bool) -> Result<()> {
        let platform = kubectl.get(&["iotp/plant"])?;
        let state = ill(&platform, node).map(|ill| ill["state"].clone());
        let after = Some(tenths(cut.elapsed()));
        if state.is_some() {
            self.suspect = self.suspect.or(after);
        }
        if state.is_some_and(|state| state == "Dead") {
            self.dead = self.dead.or(after);
        }
        let pods = gateways(kubectl)?;
        let elsewhere = |gateway: &str| {
            let serves = |pod: &&Value| serves(pod, gateway) && pod["spec"]["nodeName"] != node;
            pods.iter().filter(serves).count() >= REPLICAS
        };
        if self.replaces && GATEWAYS.into_iter().all(elsewhere) {
            self.replaced = self.replaced.or(after);
        }
        ensure!(self.dead.is_some() || !told, "{self:?}");
        ensure!(self.replaced.is_some() || !self.replaces, "{self:?}");
        Ok(())
    }

    /// Goes on looking for so long.
    pub fn watch(&mut self, kubectl: &Kubectl, node: &str, cut: Instant, time: Duration) {
        let _ = until::<()>("the end of it", time, || {
            self.look(kubectl, node, cut, true)?;
            bail!("all of it is there")
        });
    }

    /// Waits until the node is used again.
    pub fn returns(&mut self, kubectl: &Kubectl, node: &str, on: Instant) {
        self.back = Some(on);
        if until("the returned node", LIMIT, || is_used(kubectl, node)).is_ok() {
            self.used_again = Some(tenths(on.elapsed()));
        }
    }
}

/// The figures of a run; of several faults the slowest.
pub fn row(run: &Run<'_>, seen: &[Seen], verdict: &Verdict) -> Row {
    let mut row = Row::new(run.name);
    let held = seen.iter().map(|one| one.held.as_str()).collect::<Vec<_>>().join("; then ");
    row.set("node_held", held);
    let faults: Vec<_> = verdict.marks.iter().filter(|mark| is_fault(&mark.name)).collect();
    let of_marks = |figure: fn(&Mark) -> Option<f64>| slowest(faults.iter().map(|mark| figure(mark)));
    row.set("connect_after_s", of_marks(|mark| mark.recovered.and_then(|one| one.connect_after_s)));
    row.set("http_after_s", of_marks(|mark| mark.recovered.and_then(|one| one.http_after_s)));
    let told = faults
        .iter()
        .filter_map(|mark| mark.told_after_s)
        .fold(None, |max: Option<f64>, one| Some(max.map_or(one, |max| max.max(one))));
    row.set("told_after_s", told.map_or_else(|| json!("none broke"), |told| json!(told)));
    row.set("served_after_s", of_marks(|mark| mark.served_after_s));
    if run.is_watched() {
        row.set("suspect_after_s", slowest(seen.iter().map(|one| one.suspect)));
        row.set("dead_after_s", slowest(seen.iter().map(|one| one.dead)));
    }
    let mut replaced = seen.iter().filter(|one| one.replaces).peekable();
    if replaced.peek().is_some() {
        row.set("replaced_after_s", slowest(replaced.map(|one| one.replaced)));
    } else {
        row.set("replaced_after_s", "nothing to replace");
    }
    row.set("used_again_after_s", slowest(seen.iter().map(|one| one.used_again)));
    for (told, replaced) in seen.iter().filter_map(|one| one.disk.as_ref()) {
        row.set("disk_told_after_s", tenths(*told));
        replaced.fill(&mut row);
    }
    row.set("acknowledged", verdict.acknowledged).set("acknowledged_http", verdict.acknowledged_http);
    row.set("acknowledged_lost", verdict.acknowledged_lost);
    row.set("duplicates", verdict.duplicates).set("disorder", verdict.disorder);
    row.set("stale_repeats", verdict.stale_repeats).set("longest_gap_s", verdict.longest_gap_s);
    row.set("connections_broken", verdict.connections_broken).set("most_breaks", verdict.most_breaks);
    let mut wrong = verdict.faults();
    wrong.extend(verdict.thin_phases(run.enough));
    if !wrong.is_empty() {
        row.set("faults", format!("{}; {:?}", wrong.join("; "), verdict.examples.0));
    }
    row
}

fn is_fault(mark: &str) -> bool {
    ![BACK, ASKED].iter().any(|end| mark.ends_with(end))
}

/// The slowest of several, or that one of them did not come.
fn slowest(all: impl Iterator<Item = Option<f64>>) -> Value {
    let all: Option<Vec<f64>> = all.collect();
    match all {
        Some(all) => json!(all.into_iter().fold(0.0, f64::max)),
        None => json!(format!("not within {} s", LIMIT.as_secs())),
    }
}

/// Writes the run second by second, column by column, for a plot.
pub fn write_timeline(name: &str, verdict: &Verdict) -> Result<()> {
    let folder = reports().join("timelines/nodes");
    fs::create_dir_all(&folder)?;
    let mut columns: Map<String, Value> = Map::new();
    for second in &verdict.per_second {
        for (key, value) in serde_json::to_value(second)?.as_object().context("a second is no object")? {
            let column = columns.entry(key).or_insert_with(|| json!([]));
            column.as_array_mut().context("a column is no list")?.push(value.clone());
        }
    }
    let marks: Vec<_> =
        verdict.marks.iter().map(|mark| json!({"name": mark.name, "at_s": mark.at_s})).collect();
    let timeline = json!({"case": name, "marks": marks, "per_second": columns});
    let file: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    fs::write(folder.join(file + ".json"), timeline.to_string() + "\n")?;
    Ok(())
}

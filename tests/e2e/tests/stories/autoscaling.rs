//! A gateway grows under load and shrinks after it: pods follow the load through `/scale`, and nothing acknowledged is lost.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::fs;
use std::time::{Duration, Instant};
use tidegate_e2e::client::host_and_port;
use tidegate_e2e::ledger::{Pod, load, reports};
use tidegate_e2e::{Kubectl, Story, campaign, story};
use tidegate_ledger::report::Row;
use tidegate_ledger::{Load, Report, Verdict};

const TOPIC: &str = "telemetry";
const GATEWAY: &str = "grows";
/// How often pods and their use of CPU are looked at: metrics-server itself looks every ten seconds.
const LOOK: u64 = 5;
/// The steady load, which is there all the time, and the peak on top of it, in messages per second.
const STEADY: f64 = 20.0;
const PEAK: f64 = 1500.0;
const MOST: u64 = 3;

/// The short form has its own, short time for cooling down.
struct Shape {
    cool_down: &'static str,
    /// Seconds of steady load alone before the peak.
    before: u64,
    /// Seconds of the peak at least.
    peak: u64,
    /// Seconds that growing, and shrinking, may take at most.
    limit: u64,
}

const SHORT: Shape = Shape { cool_down: "10s", before: 10, peak: 20, limit: 240 };
/// With the API's default of 300 s.
const LONG: Shape = Shape { cool_down: "300s", before: 60, peak: 180, limit: 700 };

#[test]
fn autoscaling_follows_the_load_up_and_down_and_loses_nothing() {
    story("autoscaling", &[], |story| {
        let result = scale(story, if campaign() { &LONG } else { &SHORT });
        let gone = story.kubectl.run(&["delete", "pgw", GATEWAY, "--ignore-not-found"]);
        result.and(gone.map(drop))
    });
}

fn scale(story: &Story, shape: &Shape) -> Result<()> {
    let kubectl = &story.kubectl;
    declare(kubectl, shape)?;
    kubectl.condition(&format!("pgw/{GATEWAY}"), "Ready", "True", Duration::from_secs(120))?;
    // The cluster's scaler knows what the pods use, and keeps the tolerances.
    kubectl.condition(&format!("pgw/{GATEWAY}"), "ScalingLimited", "False", Duration::from_secs(180))?;
    let (host, port) = host_and_port(&story.url(GATEWAY)?)?;
    let target = format!("{host}:{port}");
    let ledger = Pod::start(story)?;
    let start = ledger.offsets(TOPIC)?;

    let (steady, steady_options) = load(story, |options| {
        options.target.clone_from(&target);
        options.rate = STEADY;
    })?;
    let mut series = Series { began: Instant::now(), looks: Vec::new() };
    series.go(kubectl, &steady, Duration::from_secs(shape.before), |_| false)?;
    let (peak, peak_options) = load(story, |options| {
        options.target.clone_from(&target);
        options.publishers = 24;
        options.rate = PEAK;
        "sites/berlin/telemetry/peak-{run}-{publisher}".clone_into(&mut options.address);
    })?;
    let up = Instant::now();
    let limit = Duration::from_secs(shape.limit);
    let grown = series.go(kubectl, &steady, limit, |look| look.ready > 1)?;
    ensure!(grown, "it did not grow within {limit:?}: {:?}", series.looks.last());
    let grown_after = up.elapsed();
    series.go(kubectl, &steady, Duration::from_secs(shape.peak), |_| false)?;
    let most = series.looks.iter().map(|look| look.ready).max().unwrap_or(0);
    peak.stop(Duration::from_secs(60))?;
    let down = Instant::now();
    let shrunk = series.go(kubectl, &steady, limit, |look| look.ready == 1 && look.wanted == 1)?;
    ensure!(shrunk, "it did not shrink within {limit:?}: {:?}", series.looks.last());
    let shrunk_after = down.elapsed();
    steady.stop(Duration::from_secs(60))?;

    let verdict = ledger.judge(&steady_options, TOPIC, &start)?;
    let mut row = Row::new("load up and down");
    row.set("cool_down", shape.cool_down);
    row.set("steady_per_s", STEADY).set("peak_per_s", PEAK);
    row.set("grown_after_s", tenths(grown_after)).set("shrunk_after_s", tenths(shrunk_after));
    row.set("most_replicas", most);
    let at_peak = ledger.judge(&peak_options, TOPIC, &start)?;
    row.set("acknowledged", verdict.acknowledged + at_peak.acknowledged);
    row.set("acknowledged_lost", verdict.acknowledged_lost + at_peak.acknowledged_lost);
    row.set("duplicates", verdict.duplicates + at_peak.duplicates);
    row.set("disorder", verdict.disorder + at_peak.disorder);
    row.set("ack_p50_ms", verdict.ack_p50_ms).set("ack_p99_ms", verdict.ack_p99_ms);
    row.set("ack_p50_peak_ms", at_peak.ack_p50_ms).set("ack_p99_peak_ms", at_peak.ack_p99_ms);
    println!("{row:?}");
    let peak = [up, down].map(|at| at.duration_since(series.began).as_secs());
    series.write(&verdict, &at_peak, peak)?;
    let mut report = Report::start("autoscale");
    report.push(row);
    report.write(&reports())?;
    for verdict in [&verdict, &at_peak] {
        ensure!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
    }
    ensure!(most <= MOST, "{most} pods, and {MOST} are the most");
    ensure!(series.looks.iter().all(|look| look.platform), "the gateway was not Ready all the time");
    Ok(())
}

fn declare(kubectl: &Kubectl, shape: &Shape) -> Result<()> {
    kubectl.apply(&format!(
        "
apiVersion: tidegate.io/v1alpha1
kind: ProtocolGateway
metadata: {{name: {GATEWAY}}}
spec:
  platformRef: {{name: plant}}
  mqtt: {{listeners: [{{name: mqtt, port: 1883}}]}}
  resources: {{requests: {{cpu: 80m, memory: 64Mi}}, limits: {{memory: 256Mi}}}}
  autoscaling: {{minReplicas: 1, maxReplicas: {MOST}, coolDown: {}}}
",
        shape.cool_down
    ))
}

/// What the cluster showed at one moment.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Seconds from the start.
    at_s: u64,
    wanted: u64,
    ready: u64,
    /// Use of the requested CPU, as the scaler knows it.
    cpu_percent: Option<u64>,
    /// Whether the gateway says that it is Ready.
    platform: bool,
}

struct Series {
    began: Instant,
    looks: Vec<Look>,
}

impl Series {
    /// Looks on for so long at most, or until `enough` says so, and whether it did; every second is a phase of the steady load.
    fn go(
        &mut self,
        kubectl: &Kubectl,
        steady: &Load,
        limit: Duration,
        enough: impl Fn(&Look) -> bool,
    ) -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            let at_s = self.began.elapsed().as_secs();
            steady.mark(&format!("second {at_s}"));
            if at_s.is_multiple_of(LOOK) || self.looks.is_empty() {
                let look = look(kubectl, at_s)?;
                self.looks.push(look);
                if enough(&look) {
                    return Ok(true);
                }
            }
            let next = self.began + Duration::from_secs(at_s + 1);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        Ok(false)
    }

    /// Second by second, column by column, for a plot: both loads together, what the cluster showed last, and how long the
    /// steady load's acknowledgements took. The peak lasted from one second to another.
    fn write(&self, steady: &Verdict, peak: &Verdict, [from, to]: [u64; 2]) -> Result<()> {
        let mut columns: [(&str, Vec<f64>); 6] =
            ["offered", "acknowledged", "replicas", "cpu_percent", "ack_p50_ms", "ack_p99_ms"]
                .map(|name| (name, Vec::new()));
        for (second, base) in (0_u64..).zip(&steady.per_second) {
            let place = second.checked_sub(from).and_then(|place| usize::try_from(place).ok());
            let over = place.and_then(|place| peak.per_second.get(place)).copied().unwrap_or_default();
            let look = self.looks.iter().rfind(|look| look.at_s <= second);
            let name = format!("second {second}");
            let phase = steady.phases.iter().find(|phase| phase.name == name && phase.acknowledged > 0);
            let figures = [
                count(base.offered + over.offered),
                count(base.acknowledged + over.acknowledged),
                look.map_or(0.0, |look| count(look.ready)),
                look.and_then(|look| look.cpu_percent).map_or(0.0, count),
                phase.map_or(0.0, |phase| phase.ack_p50_ms),
                phase.map_or(0.0, |phase| phase.ack_p99_ms),
            ];
            columns.iter_mut().zip(figures).for_each(|((_, column), figure)| column.push(figure));
        }
        let per_second: Map<_, _> =
            columns.into_iter().map(|(name, column)| (name.to_owned(), json!(column))).collect();
        let marks = json!([{"name": "peak begins", "at_s": from}, {"name": "peak ends", "at_s": to}]);
        let timeline = json!({"case": "load up and down", "marks": marks, "per_second": per_second});
        let folder = reports().join("timelines/autoscale");
        fs::create_dir_all(&folder)?;
        Ok(fs::write(folder.join("load-up-and-down.json"), timeline.to_string() + "\n")?)
    }
}

/// Counts here are small.
fn count(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

fn look(kubectl: &Kubectl, at_s: u64) -> Result<Look> {
    let gateway = kubectl.get(&["pgw", GATEWAY])?;
    let scaler = kubectl.get(&["hpa", GATEWAY])?;
    let ready = gateway["status"]["conditions"].as_array().into_iter().flatten();
    let mut ready = ready.into_iter().filter(|one| one["type"] == "Ready");
    Ok(Look {
        at_s,
        wanted: gateway["spec"]["replicas"].as_u64().context("no replicas")?,
        ready: gateway["status"]["readyReplicas"].as_u64().unwrap_or(0),
        cpu_percent: used(&scaler),
        platform: ready.any(|one| one["status"] == "True"),
    })
}

fn used(scaler: &Value) -> Option<u64> {
    scaler["status"]["currentMetrics"][0]["resource"]["current"]["averageUtilization"].as_u64()
}

fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

//! Certificates and both authorities are exchanged under load, one after another: nothing that was acknowledged is lost, and
//! no gateway breaks a connection. The short form exchanges leaves only.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tidegate_e2e::rollout::{Breaks, Case, Rollouts};
use tidegate_e2e::story::campaign;
use tidegate_e2e::{Kubectl, story};

const OPERATOR: &str = "deployment/tidegate-operator";
/// The kubelet's sync (60 s and up to half of that more), a gateway's look, and a margin. The default has room for large
/// clusters, which this is none of.
const SPREAD: u64 = 120;
/// New leaves of the same authority need no care: the old ones work on.
const SHORT_SPREAD: u64 = 20;
/// Three rolls of the brokers and three waits.
const LIMIT: Duration = Duration::from_secs(900);

/// A row: its name, the request, whose status tells how far it is, and whether the ledger's own certificate becomes useless.
const ROWS: [(&str, &str, &str, bool); 3] = [
    ("all certificates", "certificates", "KafkaAuthority", false),
    ("the devices' authority", "devices-authority", "DevicesAuthority", false),
    ("Kafka's authority", "kafka-authority", "KafkaAuthority", true),
];

#[test]
fn rotation_certificates_and_authorities_are_exchanged_without_losing_what_was_acknowledged() {
    story("rotation", &["Kafka", "kafka", "broker"], |story| {
        let operator = Kubectl::new("tidegate-system");
        let seconds = if campaign() { SPREAD } else { SHORT_SPREAD };
        spread(&operator, &format!("TIDEGATE_SECRET_SPREAD={seconds}s"))?;
        let mut rows = Rollouts::of(story, "rotation", 5)?;
        let count = if campaign() { ROWS.len() } else { 1 };
        let measured =
            ROWS.iter().take(count).try_for_each(|row| measure(&mut rows, &story.kubectl, row, seconds));
        // other stories go on with what is usual
        spread(&operator, "TIDEGATE_SECRET_SPREAD-")?;
        measured
    });
}

fn measure(
    rows: &mut Rollouts<'_>,
    kubectl: &Kubectl,
    &(name, request, whose, new_certificates): &(&str, &str, &str, bool),
    spread: u64,
) -> Result<()> {
    let wanted = std::env::var("TIDEGATE_ROW").map_or_else(|_| !rows.has(name), |only| name.contains(&only));
    if campaign() && !wanted {
        return Ok(());
    }
    let mark = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let before = brokers(kubectl)?;
    let seen = RefCell::new(Vec::<(String, Instant)>::new());
    let ended = RefCell::new(None);
    let case = Case { limit: LIMIT, new_certificates, ..Case::new(name, Breaks::Nothing) };
    rows.run(
        &case,
        || ask(kubectl, request, mark),
        || {
            let platform = kubectl.get(&["iotp/plant"])?;
            let ready = condition(&platform, "Ready")?;
            ensure!(ready["status"] == "True", "the platform is not Ready: {}", ready["message"]);
            let shown = certificate(&platform, whose)?;
            let step = shown["step"].as_str().unwrap_or_default();
            let mut seen = seen.borrow_mut();
            if !step.is_empty() && seen.last().is_none_or(|(last, _)| last != step) {
                seen.push((step.to_owned(), Instant::now()));
            }
            // devices would be given years
            if shown["waitsFor"].as_str().is_some_and(|waits| waits.starts_with("devices have until")) {
                ask(kubectl, "devices-authority-next", mark + seen.len() as u64)?;
            }
            ensure!(!seen.is_empty() && step.is_empty(), "{shown}");
            ended.borrow_mut().get_or_insert_with(Instant::now);
            let reconciling = condition(&platform, "Reconciling")?;
            ensure!(reconciling["status"] == "False", "{}", reconciling["message"]);
            Ok(())
        },
    )?;
    let changed = brokers(kubectl)?.is_disjoint(&before);
    ensure!(changed == (whose == "KafkaAuthority"), "which brokers restarted is not as it should be");

    let (seen, ended) = (seen.into_inner(), ended.into_inner().context("it has no end")?);
    let ends = seen.iter().skip(1).map(|(_, at)| *at).chain([ended]);
    for ((step, began), end) in seen.iter().zip(ends) {
        let took = ((end - *began).as_secs_f64() * 10.0).round() / 10.0;
        rows.add(name, &format!("{}_s", snake(step)), took)?;
    }
    rows.add(name, "secret_spread_s", spread)
}

fn snake(step: &str) -> &'static str {
    match step {
        "TrustBoth" => "trust_both",
        "NewLeaves" => "new_leaves",
        "DropOld" => "drop_old",
        _ => "renew",
    }
}

fn ask(kubectl: &Kubectl, what: &str, mark: u64) -> Result<()> {
    let request = format!("tidegate.io/rotate={what}/{mark}");
    kubectl.run(&["annotate", "iotp/plant", "--overwrite", &request]).map(drop)
}

/// Another setting of the operator, in effect.
fn spread(operator: &Kubectl, setting: &str) -> Result<()> {
    operator.run(&["set", "env", OPERATOR, setting])?;
    operator.run(&["rollout", "status", OPERATOR, "--timeout=120s"]).map(drop)
}

fn certificate(platform: &Value, whose: &str) -> Result<Value> {
    let all = platform["status"]["certificates"].as_array().context("no certificates in the status")?;
    all.iter().find(|one| one["name"] == whose).cloned().with_context(|| format!("no {whose}"))
}

fn condition(platform: &Value, kind: &str) -> Result<Value> {
    let all = platform["status"]["conditions"].as_array().context("no conditions")?;
    all.iter().find(|one| one["type"] == kind).cloned().with_context(|| format!("no condition {kind}"))
}

fn brokers(kubectl: &Kubectl) -> Result<BTreeSet<String>> {
    let pods = kubectl.get(&["pods", "--selector=app.kubernetes.io/name=tidegate-kafka"])?;
    let pods = pods["items"].as_array().context("no list of pods")?;
    Ok(pods.iter().filter_map(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned)).collect())
}

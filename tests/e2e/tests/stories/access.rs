//! How long a change of who may do what takes to reach a device: from `kubectl apply` until a gateway does as it says, on a
//! connection that is open and on one that is made. `cargo xtask campaign access` makes 100 changes of each kind.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tidegate_e2e::client::host_and_port;
use tidegate_e2e::ledger::reports;
use tidegate_e2e::{Credentials, Story, campaign, fleet, story};
use tidegate_ledger::device::{Device, Heard};
use tidegate_ledger::report::Row;
use tidegate_ledger::{Login, Report};

const FLEET: &str = "changing";
const DEVICE: &str = "changing-1";
const ADDRESS: &str = "sites/berlin/telemetry/changing-1/state";
const NOT_AUTHORIZED: u8 = 0x87;
/// Until a change is in effect at the latest.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn access_changes_reach_devices_and_how_long_that_takes_is_measured() {
    story("access", &[], |story| {
        let measured = measure(story);
        story.kubectl.run(&["delete", &format!("dfl/{FLEET}"), "--ignore-not-found"])?;
        story.kubectl.run(&["delete", "secret", DEVICE, "--ignore-not-found"])?;
        measured
    });
}

fn measure(story: &Story) -> Result<()> {
    let changes = if campaign() { 100 } else { 5 };
    let mut report = Report::resume("access", &reports());
    let changing = Changing::new(story)?;
    let all: [(Measure<'_>, [&str; 2]); 3] = [
        (Changing::rights, ["right given", "right taken"]),
        (Changing::disabled, ["device enabled, let in", "device disabled, disconnected"]),
        (Changing::password, ["password changed, let in with it", "password changed, disconnected"]),
    ];
    for (measure, cases) in all {
        if campaign() && cases.iter().all(|case| report.rows.iter().any(|row| row.case == *case)) {
            continue;
        }
        let times = measure(&changing, changes).with_context(|| cases.join(", "))?;
        for (case, times) in cases.into_iter().zip(times) {
            let row = times.row(case);
            println!("{row:?}");
            report.replace(row);
        }
        report.write(&reports())?;
    }
    Ok(())
}

/// Makes so many changes and takes their times.
type Measure<'a> = fn(&Changing<'a>, usize) -> Result<[Times; 2]>;

/// Of each change: from the start of kubectl until its effect, and kubectl's own part of that.
#[derive(Default)]
struct Times {
    effect: Vec<Duration>,
    kubectl: Vec<Duration>,
}

impl Times {
    /// Makes a change and waits for its effect.
    fn take(
        &mut self,
        change: impl FnOnce() -> Result<()>,
        effect: impl FnOnce() -> Result<Instant>,
    ) -> Result<()> {
        let began = Instant::now();
        change()?;
        self.kubectl.push(began.elapsed());
        let at = effect()?;
        ensure!(at > began, "it was so before the change");
        self.effect.push(at - began);
        Ok(())
    }

    fn row(mut self, case: &str) -> Row {
        self.effect.sort_unstable();
        self.kubectl.sort_unstable();
        let mut row = Row::new(case);
        row.set("changes", self.effect.len())
            .set("effect_p50_ms", within(&self.effect, 50))
            .set("effect_p99_ms", within(&self.effect, 99))
            .set("effect_max_ms", within(&self.effect, 100))
            .set("kubectl_p50_ms", within(&self.kubectl, 50));
        row
    }
}

/// The time that so many of a hundred stay within, in milliseconds.
fn within(sorted: &[Duration], percent: usize) -> u128 {
    let place = (sorted.len() * percent).div_ceil(100).max(1) - 1;
    sorted.get(place).map_or(0, Duration::as_millis)
}

/// A fleet that is changed, and the gateway where its device is.
struct Changing<'a> {
    story: &'a Story,
    target: String,
}

impl<'a> Changing<'a> {
    fn new(story: &'a Story) -> Result<Self> {
        let (host, port) = host_and_port(&story.url("mqtt")?)?;
        let changing = Self { story, target: format!("{host}:{port}") };
        fleet::kept(&story.kubectl, FLEET, DEVICE)?;
        changing.declare(&declared(&["#"]))?;
        story.kubectl.condition(&format!("dfl/{FLEET}"), "Ready", "True", LIMIT)?;
        Ok(changing)
    }

    fn declare(&self, fleet: &Value) -> Result<()> {
        self.story.kubectl.apply(&fleet.to_string())
    }

    fn device(&self, who: &Credentials) -> Result<Device> {
        let login = Login { username: who.username.clone(), password: who.password.clone() };
        let device = Device::start(&self.target, &login, ADDRESS)?;
        device.hears("an acknowledgement", LIMIT, is_stored)?;
        Ok(device)
    }

    /// A permission is taken and given again; the connection stays.
    fn rights(&self, changes: usize) -> Result<[Times; 2]> {
        let device = self.device(&fleet::kept(&self.story.kubectl, FLEET, DEVICE)?)?;
        let (mut given, mut taken) = (Times::default(), Times::default());
        for _ in 0..changes {
            taken.take(
                || self.declare(&declared(&[])),
                || Ok(device.hears("a refusal", LIMIT, |heard| *heard == Heard::Refused(NOT_AUTHORIZED))?),
            )?;
            given.take(
                || self.declare(&declared(&["#"])),
                || Ok(device.hears("an acknowledgement", LIMIT, is_stored)?),
            )?;
        }
        Ok([given, taken])
    }

    /// The device is disabled and enabled again.
    fn disabled(&self, changes: usize) -> Result<[Times; 2]> {
        let device = self.device(&fleet::kept(&self.story.kubectl, FLEET, DEVICE)?)?;
        let with = |disabled: bool| {
            let mut fleet = declared(&["#"]);
            fleet["spec"]["devices"][0]["disabled"] = json!(disabled);
            self.declare(&fleet)
        };
        let (mut enabled, mut disabled) = (Times::default(), Times::default());
        for _ in 0..changes {
            disabled.take(|| with(true), || Ok(device.hears("its disconnection", LIMIT, is_out)?))?;
            enabled.take(|| with(false), || Ok(device.hears("an acknowledgement", LIMIT, is_stored)?))?;
        }
        Ok([enabled, disabled])
    }

    /// Its Secret gets another password.
    fn password(&self, changes: usize) -> Result<[Times; 2]> {
        let kubectl = &self.story.kubectl;
        let mut device = self.device(&fleet::kept(kubectl, FLEET, DEVICE)?)?;
        let (mut let_in, mut out) = (Times::default(), Times::default());
        for _ in 0..changes {
            let began = Instant::now();
            let mut renewed = None;
            out.take(
                || {
                    renewed = Some(fleet::renew(kubectl, FLEET, DEVICE)?);
                    Ok(())
                },
                || Ok(device.hears("its disconnection", LIMIT, is_out)?),
            )?;
            // The one with the old password must not go on trying.
            drop(device);
            device = self.device(&renewed.context("no password")?)?;
            let_in.effect.push(began.elapsed());
            let_in.kubectl.extend(out.kubectl.last());
        }
        Ok([let_in, out])
    }
}

/// The fleet, whose device may publish so much.
fn declared(publish: &[&str]) -> Value {
    fleet::declared(FLEET, "plant", &[DEVICE], publish, &[])
}

fn is_stored(heard: &Heard) -> bool {
    *heard == Heard::Stored
}

fn is_out(heard: &Heard) -> bool {
    matches!(heard, Heard::Out(_))
}

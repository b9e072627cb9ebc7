//! A fleet lets in whom it names and nobody else, on MQTT and HTTP alike, and every change of it reaches who is connected:
//! another password, a device that is disabled, a permission that is taken, the end of the fleet. Without operator and API
//! server gateways go on with what they know. What clients were told goes into the report `admission`.

use anyhow::{Context, Result, bail, ensure};
use std::time::{Duration, Instant};
use tidegate_cluster::Fault;
use tidegate_cluster::credentials;
use tidegate_e2e::client::{Answer, curl, mosquitto};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::ledger::reports;
use tidegate_e2e::nodes::{both_operators, no_operator};
use tidegate_e2e::{Client, Credentials, Kubectl, Story, fleet, story, until};
use tidegate_ledger::Report;
use tidegate_ledger::report::Row;

const FLEET: &str = "doors";
const DOOR: &str = "door-1";
const ADDRESS: &str = "sites/berlin/telemetry/door-1/state";
const PUBLISH: &str = "sites/+/telemetry/{device}/#";
const SUBSCRIBE: &str = "sites/+/telemetry/#";
/// A client says what it heard within this.
const ANSWER: Duration = Duration::from_secs(15);
/// A change is in effect within this. It takes about a second; the story `access` measures it.
const EFFECT: Duration = Duration::from_secs(30);
/// What is not delivered within this is not delivered: what is takes milliseconds.
const QUIET: Duration = Duration::from_secs(1);
/// Codes of CONNACK, DISCONNECT and PUBACK (MQTT 5 §2.4), and of CONNACK in 3.1.1 (§3.2.2.3).
const NOT_AUTHORIZED: &str = "135";
const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

#[test]
fn device_fleet_lets_in_whom_it_names_and_changes_reach_who_is_connected() {
    let tolerated = ["lease", "leadership", "Kafka", "kafka", "directory"];
    story("device-fleet", &tolerated, |story| {
        let mut report = Report::resume("admission", &reports());
        let told = tell(story, &mut report);
        story.kubectl.run(&["delete", &format!("dfl/{FLEET}"), "--ignore-not-found"])?;
        story.kubectl.run(&["delete", "secret", DOOR, "--ignore-not-found"])?;
        report.write(&reports())?;
        told
    });
}

fn tell(story: &Story, report: &mut Report) -> Result<()> {
    let at = Gateways { mqtt: story.url("mqtt")?, http: story.url("http")? };
    let kubectl = &story.kubectl;
    let door = fleet::kept(kubectl, FLEET, DOOR)?;
    declare(kubectl, &[PUBLISH], &[SUBSCRIBE], false)?;
    kubectl.condition(&format!("dfl/{FLEET}"), "Ready", "True", EFFECT)?;
    at.lets_in(&door)?;
    report.replace(at.told("right password", Some(&door))?.0);

    refused_alike(&at, &door, report)?;
    let door = another_password(kubectl, &at, &door, report)?;
    is_disabled(kubectl, &at, &door, report)?;
    a_permission_is_taken(story, &at, &door, report)?;
    nobody_to_ask(&at, &door)?;
    the_fleet_is_deleted(kubectl, &at, &door, report)
}

fn declare(kubectl: &Kubectl, publish: &[&str], subscribe: &[&str], disabled: bool) -> Result<()> {
    let mut fleet = fleet::declared(FLEET, "plant", &[DOOR], publish, subscribe);
    fleet["spec"]["devices"][0]["disabled"] = disabled.into();
    kubectl.apply(&fleet.to_string())
}

/// A wrong password, a name that nobody has, and none at all. The first two are answered alike.
fn refused_alike(at: &Gateways, door: &Credentials, report: &mut Report) -> Result<()> {
    let wrong = Credentials::new(FLEET, DOOR, &credentials::password()?);
    // Other names in each run: who is wrong too often is told something else for a while.
    let nobodys = format!("nobodys-{}", &credentials::password()?[..8]);
    let unknown = Credentials::new(FLEET, &nobodys, &door.password);
    let elsewhere = Credentials::new(&nobodys, DOOR, &door.password);
    let (told, one) = at.told("wrong password", Some(&wrong))?;
    ensure!(told.figures["mqtt_311"] == 4 && told.figures["mqtt_5"] == "0x86", "{told:?}");
    ensure!(told.figures["http"] == 401, "{told:?}");
    for (case, who) in [("unknown device", &unknown), ("unknown fleet", &elsewhere)] {
        let (other, two) = at.told(case, Some(who))?;
        ensure!(other.figures == told.figures, "{case}: {other:?}, and for a wrong password {told:?}");
        let names = |answer: &Answer| answer.headers.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        ensure!(one.body == two.body && names(&one) == names(&two), "{one:?} {two:?}");
        report.replace(other);
    }
    report.replace(told);
    let (nobody, _) = at.told("no credentials", None)?;
    ensure!(nobody.figures["mqtt_311"] == 5 && nobody.figures["mqtt_5"] == "0x87", "{nobody:?}");
    ensure!(nobody.figures["http"] == 401, "{nobody:?}");
    report.replace(nobody);
    Ok(())
}

/// Its Secret changes: it is told to go, and only the new password lets it in.
fn another_password(
    kubectl: &Kubectl,
    at: &Gateways,
    old: &Credentials,
    report: &mut Report,
) -> Result<Credentials> {
    let connected = at.subscribe(old)?;
    let changed = Instant::now();
    let new = fleet::renew(kubectl, FLEET, DOOR)?;
    disconnected(&connected, "another password", changed)?;
    at.lets_in(&new)?;
    report.replace(at.keeps_out("password of before", old, ["4", "\"0x86\"", "401"])?);
    Ok(new)
}

fn is_disabled(kubectl: &Kubectl, at: &Gateways, door: &Credentials, report: &mut Report) -> Result<()> {
    let connected = at.subscribe(door)?;
    let changed = Instant::now();
    declare(kubectl, &[PUBLISH], &[SUBSCRIBE], true)?;
    disconnected(&connected, "disabled", changed)?;
    report.replace(at.keeps_out("disabled device", door, ["5", "\"0x87\"", "403"])?);
    declare(kubectl, &[PUBLISH], &[SUBSCRIBE], false)?;
    at.lets_in(door)
}

/// What it may write and read shrinks under an open connection: its next publish is refused, and nothing more is delivered.
fn a_permission_is_taken(
    story: &Story,
    at: &Gateways,
    door: &Credentials,
    report: &mut Report,
) -> Result<()> {
    let kubectl = &story.kubectl;
    let (reader, control) = (at.subscribe(door)?, at.subscribe(story.tester()?)?);
    // Everybody who may gets it; whether the reader does is what this returns.
    let delivered = |text: &str| -> Result<bool> {
        let publish = ["-V", "mqttv5", "-d", "-q", "1", "-t", ADDRESS, "-m", text];
        let publisher = Client::start(story.tester()?.mosquitto("mosquitto_pub", &at.mqtt)?.args(publish))?;
        publisher.line_with("received PUBACK", ANSWER)?;
        control.line_with(text, ANSWER)?;
        let mut seen = Vec::new();
        while let Ok((_, line)) = reader.line(QUIET) {
            if line.contains("not for the reader") {
                bail!("delivered without the right to read it: {line}");
            }
            if line.contains(text) {
                return Ok(true);
            }
            seen.push(line);
        }
        Ok(false)
    };
    ensure!(delivered("before")?, "the reader does not get what it may read");

    declare(kubectl, &[], &[], false)?;
    until("a refused publish", EFFECT, || {
        let answer = at.put(Some(door))?;
        ensure!(answer.status == 403 && answer.body.contains("Denied"), "{answer:?}");
        Ok(())
    })?;
    until("no delivery", EFFECT, || {
        ensure!(!delivered("still")?, "it gets everything");
        Ok(())
    })?;
    for number in 0..3 {
        ensure!(!delivered(&format!("not for the reader {number}"))?, "it came all the same");
    }
    let mut row = Row::new("no right");
    row.set("http", at.put(Some(door))?.status);
    let publish = ["-V", "mqttv5", "-d", "-q", "1", "-t", ADDRESS, "-m", "x"];
    let publisher = Client::start(door.mosquitto("mosquitto_pub", &at.mqtt)?.args(publish))?;
    let (_, puback) = publisher.line_with("received PUBACK", ANSWER)?;
    ensure!(puback.contains(&format!("RC:{NOT_AUTHORIZED}")), "{puback}");
    row.set("mqtt_5", "PUBACK 0x87").set("mqtt_311", "closed");
    let publish = ["-V", "mqttv311", "-d", "-q", "1", "-t", ADDRESS, "-m", "x"];
    let publisher = Client::start(door.mosquitto("mosquitto_pub", &at.mqtt)?.args(publish))?;
    publisher.line_with("CONNACK (0)", ANSWER)?;
    ensure!(publisher.line_with("received PUBACK", QUIET).is_err(), "3.1.1 knows no refusal: it is closed");
    report.replace(row);

    // The subscription stands, and brings again what it may.
    declare(kubectl, &[PUBLISH], &[SUBSCRIBE], false)?;
    until("deliveries again", EFFECT, || {
        ensure!(delivered("again")?, "nothing comes");
        Ok(())
    })?;
    at.lets_in(door)
}

/// Operator and API server are away: who was let in before is let in still, from memory, and nobody else.
fn nobody_to_ask(at: &Gateways, door: &Credentials) -> Result<()> {
    let cluster = cluster()?;
    no_operator()?;
    let frozen = cluster.inject_for_now(Fault::FreezeApiServer)?;
    let let_in = at.lets_in(door).and_then(|()| {
        let answer = at.put(None)?;
        ensure!(answer.status == 401, "{answer:?}");
        Ok(())
    });
    frozen.heal()?;
    both_operators()?;
    let_in.context("without operator and API server")
}

fn the_fleet_is_deleted(
    kubectl: &Kubectl,
    at: &Gateways,
    door: &Credentials,
    report: &mut Report,
) -> Result<()> {
    let connected = at.subscribe(door)?;
    let changed = Instant::now();
    kubectl.run(&["delete", &format!("dfl/{FLEET}")])?;
    disconnected(&connected, "the fleet is deleted", changed)?;
    report.replace(at.keeps_out("device of a deleted fleet", door, ["4", "\"0x86\"", "401"])?);
    Ok(())
}

/// A client of version 5 is told that it is not authorised any more.
fn disconnected(client: &Client, why: &str, changed: Instant) -> Result<()> {
    let (at, _) = client
        .line_with(&format!("DISCONNECT ({NOT_AUTHORIZED})"), EFFECT)
        .with_context(|| format!("{why}: it stays connected"))?;
    println!("{why}: disconnected after {} ms", at.saturating_duration_since(changed).as_millis());
    Ok(())
}

/// Where devices come in.
struct Gateways {
    mqtt: String,
    http: String,
}

impl Gateways {
    /// The code of CONNACK that a client of a version saw.
    fn connack(&self, who: Option<&Credentials>, version: &str) -> Result<u8> {
        let mut command = match who {
            Some(who) => who.mosquitto("mosquitto_pub", &self.mqtt)?,
            None => mosquitto("mosquitto_pub", &self.mqtt)?,
        };
        let publish = ["-V", version, "-d", "-q", "1", "-t", ADDRESS, "-m", version];
        let client = Client::start(command.args(publish))?;
        let (_, line) = client.line_with("received CONNACK (", ANSWER)?;
        let code = line.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(')')?.parse().ok());
        let code = code.with_context(|| format!("no code: {line}"))?;
        if code == 0 {
            client.line_with("received PUBACK", ANSWER)?;
        }
        Ok(code)
    }

    fn put(&self, who: Option<&Credentials>) -> Result<Answer> {
        let url = format!("{}/{ADDRESS}", self.http);
        let arguments = ["--request", "PUT", "--data", "open", &url];
        who.map_or_else(|| curl(&arguments), |who| who.curl(&arguments))
    }

    /// It gets in on MQTT, in both versions, and on HTTP, and what it writes is stored.
    fn lets_in(&self, who: &Credentials) -> Result<()> {
        until("the device to be let in", EFFECT, || {
            for version in VERSIONS {
                let code = self.connack(Some(who), version)?;
                ensure!(code == 0, "{version}: CONNACK {code}");
            }
            let answer = self.put(Some(who))?;
            ensure!(answer.status == 204, "{answer:?}");
            Ok(())
        })
    }

    /// Nobody lets it in any more: MQTT 3.1.1, MQTT 5 and HTTP say so.
    fn keeps_out(&self, case: &str, who: &Credentials, codes: [&str; 3]) -> Result<Row> {
        until(&format!("{case}: to be kept out"), EFFECT, || {
            let (told, _) = self.told(case, Some(who))?;
            let said = ["mqtt_311", "mqtt_5", "http"].map(|key| told.figures[key].to_string());
            ensure!(said == codes, "{told:?}");
            Ok(told)
        })
    }

    /// What each protocol says to somebody; HTTP's answer.
    fn told(&self, case: &str, who: Option<&Credentials>) -> Result<(Row, Answer)> {
        let (mut row, answer) = (Row::new(case), self.put(who)?);
        row.set("mqtt_311", self.connack(who, "mqttv311")?)
            .set("mqtt_5", format!("0x{:02X}", self.connack(who, "mqttv5")?))
            .set("http", answer.status);
        Ok((row, answer))
    }

    /// A client of version 5 that reads everything that it may.
    fn subscribe(&self, who: &Credentials) -> Result<Client> {
        let arguments = ["-V", "mqttv5", "-d", "-q", "1", "-v", "-t", SUBSCRIBE];
        let client = Client::start(who.mosquitto("mosquitto_sub", &self.mqtt)?.args(arguments))?;
        client.line_with("Subscribed", ANSWER)?;
        Ok(client)
    }
}

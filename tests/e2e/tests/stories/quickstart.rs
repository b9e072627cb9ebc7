//! The README's promise, from outside the cluster, with the ordinary clients.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use tidegate_e2e::client::{curl, mosquitto};
use tidegate_e2e::{Client, Story, fleet, story};

const ADDRESS: &str = "sites/berlin/telemetry/meter-7/power";
const LIMIT: Duration = Duration::from_secs(15);

#[test]
fn quickstart_an_mqtt_message_reaches_an_mqtt_subscriber_and_an_http_reader() {
    story("quickstart", &[], |story| {
        for version in ["mqttv311", "mqttv5"] {
            one_message(story, version)?;
        }
        Ok(())
    });
}

fn one_message(story: &Story, version: &str) -> Result<()> {
    let (mqtt, http) = (story.url("mqtt")?, story.url("http")?);
    let meter = fleet::kept(&story.kubectl, "meters", "meter-7")?;
    let dashboard = fleet::kept(&story.kubectl, "readers", "dashboard")?;
    let subscriber = Client::start(dashboard.mosquitto("mosquitto_sub", &mqtt)?.args([
        "-V",
        version,
        "-d",
        "-q",
        "1",
        "-v",
        "-t",
        "sites/+/telemetry/#",
    ]))?;
    subscriber.line_with("SUBACK", LIMIT).or_else(|_| subscriber.line_with("Subscribed", LIMIT))?;

    let payload = format!("1350 W, {version}, {:?}", std::time::SystemTime::now());
    let publisher = Client::start(
        meter
            .mosquitto("mosquitto_pub", &mqtt)?
            .args(["-V", version, "-d", "-q", "1", "-t", ADDRESS, "-m", &payload]),
    )?;
    publisher.line_with("PUBACK", LIMIT)?;

    subscriber.line_with(&format!("{ADDRESS} {payload}"), LIMIT)?;

    let answer = dashboard.curl(&[&format!("{http}/{ADDRESS}")])?;
    ensure!(answer.status == 200 && answer.body == payload, "{answer:?}");
    ensure!(answer.header("tidegate-topic") == Some("telemetry"), "{answer:?}");
    for name in ["tidegate-partition", "tidegate-offset"] {
        answer
            .header(name)
            .and_then(|v| v.parse::<u64>().ok())
            .with_context(|| format!("no {name} in {answer:?}"))?;
    }
    Ok(())
}

#[test]
fn quickstart_an_http_message_reaches_an_mqtt_subscriber_and_the_history() {
    story("quickstart-http", &[], |story| {
        let (mqtt, http) = (story.url("mqtt")?, story.url("http")?);
        let address = "sites/paris/telemetry/room 1/温度";
        let url = format!("{http}/sites/paris/telemetry/room%201/%E6%B8%A9%E5%BA%A6");
        let tester = story.tester()?;
        let subscriber = Client::start(tester.mosquitto("mosquitto_sub", &mqtt)?.args([
            "-d",
            "-q",
            "1",
            "-v",
            "-t",
            "sites/paris/#",
        ]))?;
        subscriber.line_with("Subscribed", LIMIT)?;
        let mut payloads = Vec::new();
        for number in 0..3 {
            let payload = format!("{number} {:?}", std::time::SystemTime::now());
            let answer = tester.curl(&[
                "--request",
                "PUT",
                "--header",
                "content-type: text/plain",
                "--data",
                &payload,
                &url,
            ])?;
            ensure!(answer.status == 204 && answer.header("tidegate-offset").is_some(), "{answer:?}");
            subscriber.line_with(&format!("{address} {payload}"), LIMIT)?;
            payloads.push(payload);
        }
        let answer = tester.curl(&[&format!("{url}?last=3")])?;
        let mut data = Vec::new();
        for line in answer.body.lines() {
            let record: serde_json::Value = serde_json::from_str(line)?;
            ensure!(record["address"] == address && record["contentType"] == "text/plain", "{record}");
            data.push(record["data"].as_str().unwrap_or_default().to_owned());
        }
        data.sort();
        ensure!(data == payloads, "{data:?} instead of {payloads:?}");
        Ok(())
    });
}

#[test]
fn quickstart_refusals_say_what_to_write_instead() {
    story("quickstart-refusals", &[], |story| {
        let http = story.url("http")?;
        let tester = story.tester()?;
        let put = |path: &str| {
            tester.curl(&["--path-as-is", "--request", "PUT", "--data", "x", &format!("{http}{path}")])
        };
        for (path, status, text) in [
            ("/nowhere/at/all", 404, "Topic"),
            ("/sites/a/telemetry/%2B", 400, "wildcard"),
            ("/sites/../telemetry", 400, ".."),
            ("/.well-known/x", 404, ""),
        ] {
            let answer = put(path)?;
            ensure!(answer.status == status && answer.body.contains(text), "{path}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn quickstart_nobody_gets_in_without_credentials_or_beyond_them() {
    story("quickstart-closed", &[], |story| {
        let (mqtt, http) = (story.url("mqtt")?, story.url("http")?);
        let url = format!("{http}/{ADDRESS}");
        let answer = curl(&[&url])?;
        ensure!(answer.status == 401 && answer.header("www-authenticate").is_some(), "{answer:?}");
        let publish = ["-d", "-q", "1", "-t", ADDRESS, "-m", "nobody's"];
        let nobody = Client::start(mosquitto("mosquitto_pub", &mqtt)?.args(publish))?;
        nobody.line_with("CONNACK (5)", LIMIT)?;

        // a meter writes under its own name only, and a dashboard reads only
        let meter = fleet::kept(&story.kubectl, "meters", "meter-7")?;
        let others = format!("{http}/sites/berlin/telemetry/meter-8/power");
        for (who, url) in [(&meter, &others), (&fleet::kept(&story.kubectl, "readers", "dashboard")?, &url)] {
            let answer = who.curl(&["--request", "PUT", "--data", "x", url])?;
            ensure!(answer.status == 403 && answer.body.contains("Denied"), "{who:?}: {answer:?}");
        }
        Ok(())
    });
}

#[test]
fn quickstart_kubectl_get_tells_the_truth() {
    story("quickstart-columns", &[], |story| {
        let table = story.kubectl.run(&["get", "iotp,pgw,tgt,dfl"])?;
        let rows: Vec<&str> = table.lines().filter(|line| line.contains(".tidegate.io/")).collect();
        ensure!(rows.len() == 8 && rows.iter().all(|row| row.contains("True")), "{table}");
        Ok(())
    });
}

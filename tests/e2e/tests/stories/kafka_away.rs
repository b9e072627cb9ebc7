//! Kafka stands still: nothing is acknowledged, gateways stay up and ready, metric and condition tell, and work goes on when it returns.

use anyhow::{Result, ensure};
use std::time::Duration;
use tidegate_e2e::kafka::freeze;
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::ledger::{Pod, load};
use tidegate_e2e::{Client, Story, story, until};

const TOPIC: &str = "telemetry";

#[test]
fn kafka_away_nothing_is_acknowledged_and_work_goes_on_when_it_returns() {
    story("kafka-away", &["Kafka", "kafka", "broker"], |story| {
        let pod = Pod::start(story)?;
        let start = pod.offsets(TOPIC)?;
        let (load, options) = load(story, |_| {})?;
        load.wait_acknowledged(100, Duration::from_secs(60))?;

        let cluster = cluster()?;
        let frozen = freeze(&cluster)?;
        load.mark("Kafka away");
        told(story)?;
        ensure!(silent_publish(story)?, "a publish was acknowledged while no broker ran");
        let answer = story.tester()?.curl(&[
            "--request",
            "PUT",
            "--data",
            "x",
            &format!("{}/sites/a/telemetry/b", story.url("http")?),
        ])?;
        ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{answer:?}");
        ready(story)?;
        let count = load.acknowledged();
        drop(frozen);
        load.mark("Kafka back");

        load.wait_acknowledged(count + 500, Duration::from_secs(120))?;
        story.kubectl.condition("iotp/plant", "Ready", "True", Duration::from_secs(60))?;
        load.stop(Duration::from_secs(60))?;
        let verdict = pod.judge(&options, TOPIC, &start)?;
        ensure!(verdict.is_clean(), "{:?}", verdict.faults());
        Ok(())
    });
}

/// Condition and metric say that Kafka is away.
fn told(story: &Story) -> Result<()> {
    let limit = Duration::from_secs(60);
    let condition = story.kubectl.condition("iotp/plant", "Ready", "False", limit)?;
    ensure!(condition["reason"] == "KafkaUnreachable", "{condition}");
    until("the gateways' metric", limit, || {
        let pods = story.kubectl.get(&["pods", "--selector=app.kubernetes.io/instance=mqtt"])?;
        for pod in pods["items"].as_array().into_iter().flatten() {
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("/api/v1/namespaces/plant/pods/{name}:9100/proxy/metrics");
            let metrics = story.kubectl.run(&["get", "--raw", &path])?;
            ensure!(
                metrics.lines().any(|line| line == "tidegate_kafka_available 0"),
                "{name} says that Kafka is there"
            );
        }
        Ok(())
    })
}

/// Whether a publish stays without its acknowledgement for as long as a gateway tries.
fn silent_publish(story: &Story) -> Result<bool> {
    let publisher = Client::start(story.tester()?.mosquitto("mosquitto_pub", &story.url("mqtt")?)?.args([
        "-d",
        "-q",
        "1",
        "-t",
        "sites/berlin/telemetry/away",
        "-m",
        "x",
    ]))?;
    Ok(publisher.line_with("PUBACK", Duration::from_secs(12)).is_err())
}

/// Every gateway pod is ready, and none was restarted.
fn ready(story: &Story) -> Result<()> {
    let pods = story.kubectl.get(&["pods", "--selector=app.kubernetes.io/component=gateway"])?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let status = &pod["status"]["containerStatuses"][0];
        ensure!(status["ready"] == true && status["restartCount"] == 0, "{status}");
    }
    Ok(())
}

//! Publish-to-ack and end-to-end latency over the whole path, beside the bare librdkafka of the same run.

use anyhow::{Context, Result, ensure};
use tidegate_e2e::client::host_and_port;
use tidegate_e2e::ledger::{Pod, login, reports};
use tidegate_e2e::{campaign, story};
use tidegate_ledger::bench::{self, Plan};
use tidegate_ledger::report::Row;
use tidegate_ledger::{PayloadSize, Report};

/// A campaign measures this many samples at 1, 10 and 100 msg/s; the short form fewer, at the two higher rates.
const SAMPLES: u32 = 300;

#[test]
fn latency_of_the_whole_path_is_measured_beside_the_bare_client() {
    story("latency", &[], |story| {
        let long = campaign();
        let (rates, samples) =
            if long { (vec![1.0, 10.0, 100.0], SAMPLES) } else { (vec![10.0, 100.0], 100) };
        let mut report = Report::start("latency");
        let pod = Pod::start(story)?;
        let (host, port) = host_and_port(&story.url("mqtt")?)?;
        let (target, login) = (format!("{host}:{port}"), login(story)?);
        for rate in rates {
            let plan = Plan {
                rates: vec![rate],
                samples,
                payload: PayloadSize::fixed(100),
                address: "sites/berlin/telemetry/bench".to_owned(),
                addresses: 10,
            };
            let (bare, path) = std::thread::scope(|scope| -> Result<_> {
                // at one message a second both fit beside each other; at higher rates each gets the machine for itself
                let bare = || bare(&pod, rate, samples);
                let path =
                    || bench::latency(&target, Some(&login), &plan).context("failed to measure the path");
                if rate < 2.0 {
                    let other = scope.spawn(bare);
                    let path = path()?;
                    Ok((other.join().map_err(|_| anyhow::anyhow!("the bare client's thread ended"))??, path))
                } else {
                    Ok((bare()?, path()?))
                }
            })?;
            for row in path.into_iter().chain(bare) {
                ensure!(row.figures.values().any(serde_json::Value::is_number), "no figures: {row:?}");
                report.push(row);
            }
        }
        report.write(&reports())?;
        println!("{}", report.json());
        Ok(())
    });
}

fn bare(pod: &Pod<'_>, rate: f64, samples: u32) -> Result<Vec<Row>> {
    let text = pod.run(&[
        "bench",
        "bare",
        "--topic",
        "telemetry",
        "--rates",
        &rate.to_string(),
        "--samples",
        &samples.to_string(),
    ])?;
    text.lines().map(|line| serde_json::from_str(line).map_err(Into::into)).collect()
}

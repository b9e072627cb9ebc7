//! All brokers at once, under load: deleted, so that they come back with other addresses, and killed. Producers recover
//! by themselves within seconds, and nothing that was acknowledged is lost.

use anyhow::{Context, Result, ensure};
use tidegate_e2e::kafka::{BROKERS, kill};
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::rollout::{Breaks, Case, Rollouts};
use tidegate_e2e::{Story, campaign, story};

/// From all brokers Ready again until the offered rate is acknowledged again: a producer gives a record up after 10 s,
/// a publisher comes back within one.
const RECOVERED: f64 = 20.0;

#[test]
fn brokers_replaced_rollout_producers_recover_by_themselves() {
    story("brokers-replaced", &["Kafka", "kafka", "broker"], |story| {
        let mut rows = Rollouts::start(story)?;
        let times = if campaign() { 5 } else { 1 };
        for number in 1..=times {
            let of = if times == 1 { String::new() } else { format!(", {number} of {times}") };
            let deleted = || {
                let mut arguments = vec!["delete", "pod", "--wait=false"];
                arguments.extend(BROKERS);
                story.kubectl.run(&arguments).map(drop)
            };
            let killed = || BROKERS.iter().try_for_each(|pod| kill(&cluster()?, pod));
            replace(story, &mut rows, &format!("all brokers deleted{of}"), &deleted)?;
            replace(story, &mut rows, &format!("all brokers killed{of}"), &killed)?;
        }
        Ok(())
    });
}

fn replace(
    story: &Story,
    rows: &mut Rollouts<'_>,
    name: &str,
    change: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let before = containers(story)?;
    let case = Case::new(name, Breaks::Any);
    let row = rows.run(&case, change, || {
        let now = containers(story)?;
        ensure!(now.iter().zip(&before).all(|(now, before)| now != before), "a broker has not ended yet");
        let platform = story.kubectl.get(&["iotp/plant"])?;
        ensure!(platform["status"]["kafka"]["brokersReady"] == 3, "{}", platform["status"]["kafka"]);
        Ok(())
    })?;
    let seconds = |key: &str| row.figures[key].as_f64().with_context(|| format!("no {key}: {row:?}"));
    let recovered = seconds("served_after_s")? - seconds("rolled_after_s")?;
    ensure!(
        recovered < RECOVERED,
        "acknowledged again {recovered:.1} s after all brokers were Ready: {row:?}"
    );
    Ok(())
}

/// What tells the brokers' containers from those that take their place; each is ready.
fn containers(story: &Story) -> Result<Vec<String>> {
    let id = |pod: &&str| {
        let pod = story.kubectl.get(&["pod", pod])?;
        let container = &pod["status"]["containerStatuses"][0];
        ensure!(container["ready"] == true && pod["metadata"]["deletionTimestamp"].is_null(), "{container}");
        container["containerID"].as_str().map(str::to_owned).context("a container without an id")
    };
    BROKERS.iter().map(id).collect()
}

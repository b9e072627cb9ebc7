//! Changes of gateways, topics and the operator under load: what is acknowledged is kept, and connections that need not
//! break do not. One change at a time; each is a row of the report `rollouts`.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use tidegate_cluster::command::run;
use tidegate_e2e::kubectl::cluster;
use tidegate_e2e::rollout::{Breaks, Case, Rollouts};
use tidegate_e2e::story::root;
use tidegate_e2e::{Kubectl, Story, campaign, story, until};

const SYSTEM: &str = "tidegate-system";
const OPERATOR: &str = "deployment/tidegate-operator";
const GATEWAY_IMAGE: &str = "TIDEGATE_GATEWAY_IMAGE";
/// Topics that come and go.
const TOPICS: usize = 20;
const LIMIT: Duration = Duration::from_secs(300);
/// A roll of two replicas breaks a connection twice at most: the second time if it went from the first pod that left
/// to the other old one.
const ROLL: Breaks = Breaks::Each(2);

#[test]
fn gateway_rollout_loses_nothing_and_breaks_only_what_must_break() {
    // a pod that ends says goodbye, and an operator that is replaced loses its lease
    story("gateway-rollout", &["lease", "Kafka", "kafka"], |story| {
        let _as_before = AsBefore { story, images: images()? };
        let mut rows = Rollouts::start(story)?;
        gateways(story, &mut rows)?;
        topics(story, &mut rows)?;
        if campaign() {
            operator(story, &mut rows)?;
        }
        Ok(())
    });
}

fn gateways(story: &Story, rows: &mut Rollouts<'_>) -> Result<()> {
    let mut roll = |name: &str, breaks, replicas: usize, gateway: String| {
        let rolled = || settled(&story.kubectl, replicas);
        rows.run(&Case::new(name, breaks), || story.kubectl.apply(&gateway), rolled).map(drop)
    };
    let limits = "  limits: {connections: 9000}\n";
    roll("gateway limits", ROLL, 2, gateway(2, &[MQTT], limits))?;
    roll("gateway replicas 2 to 3", Breaks::Nothing, 3, gateway(3, &[MQTT], limits))?;
    roll("gateway replicas 3 to 2", Breaks::Some, 2, gateway(2, &[MQTT], limits))?;
    if campaign() {
        let resources = "  resources: {requests: {cpu: 60m}}\n";
        roll("gateway resources", ROLL, 2, gateway(2, &[MQTT], resources))?;
        roll("listener added", ROLL, 2, gateway(2, &[MQTT, SECOND], resources))?;
        roll("listener removed", ROLL, 2, gateway(2, &[MQTT], resources))?;
    }
    Ok(())
}

fn topics(story: &Story, rows: &mut Rollouts<'_>) -> Result<()> {
    let kubectl = &story.kubectl;
    let mut still = |name: &str, change: &dyn Fn() -> Result<()>, in_effect: &dyn Fn() -> Result<()>| {
        rows.run(&Case::new(name, Breaks::Nothing), change, in_effect).map(drop)
    };
    still("topics added", &|| kubectl.apply(&topics_of("")), &|| {
        (0..TOPICS).try_for_each(|number| ready(kubectl, &format!("tgt/rollout-{number}")))
    })?;
    if campaign() {
        let filters = "  filters: [\"rollout/{n}/#\", \"rolled/{n}/#\"]\n";
        still("topic filters", &|| kubectl.apply(&topics_of(filters)), &|| {
            (0..TOPICS).try_for_each(|number| ready(kubectl, &format!("tgt/rollout-{number}")))
        })?;
        let retention = "kind: Topic\nmetadata: {name: telemetry, namespace: plant}\n";
        let retention = format!(
            "apiVersion: tidegate.io/v1alpha1\n{retention}spec:\n  platformRef: {{name: plant}}\n  filters: [sites/+/telemetry/#]\n  \
             retention: {{time: 48h}}\n"
        );
        still("topic retention", &|| kubectl.apply(&retention), &|| ready(kubectl, "tgt/telemetry"))?;
    }
    let delete = delete_topics();
    still(
        "topics removed",
        &|| kubectl.run(&delete.iter().map(String::as_str).collect::<Vec<_>>()).map(drop),
        &|| {
            let left = kubectl.get(&["tgt"])?;
            let names =
                left["items"].as_array().into_iter().flatten().map(|topic| &topic["metadata"]["name"]);
            let left =
                names.filter(|name| name.as_str().is_some_and(|name| name.starts_with("rollout-"))).count();
            ensure!(left == 0, "{left} topics are left");
            Ok(())
        },
    )
}

fn operator(story: &Story, rows: &mut Rollouts<'_>) -> Result<()> {
    let system = Kubectl::new(SYSTEM);
    let rolled = || {
        system.run(&["rollout", "status", OPERATOR, "--watch=false"]).and_then(|text| {
            ensure!(text.contains("successfully rolled out"), "{}", text.trim());
            Ok(())
        })
    };
    rows.run(
        &Case::new("operator restarted", Breaks::Nothing),
        || system.run(&["rollout", "restart", OPERATOR]).map(drop),
        rolled,
    )?;

    let Images { operator, gateway } = images()?;
    let set = format!("operator={}", second_tag(&operator)?);
    rows.run(
        &Case::new("operator image", Breaks::Nothing),
        || system.run(&["set", "image", OPERATOR, &set]).map(drop),
        rolled,
    )?;

    let upgraded = second_tag(&gateway)?;
    let set = format!("{GATEWAY_IMAGE}={upgraded}");
    rows.run(
        &Case::new("gateway image", ROLL),
        || system.run(&["set", "env", OPERATOR, &set]).map(drop),
        || {
            let pods = pods(&story.kubectl)?;
            let images = pods.iter().map(|pod| &pod["spec"]["containers"][0]["image"]);
            ensure!(images.clone().all(|image| *image == upgraded), "{:?}", images.collect::<Vec<_>>());
            settled(&story.kubectl, 2)
        },
    )
    .map(drop)
}

/// The images of the operator and of the gateways that it makes.
struct Images {
    operator: String,
    gateway: String,
}

fn images() -> Result<Images> {
    let deployment = Kubectl::new(SYSTEM).get(&[OPERATOR])?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let entries = container["env"].as_array().into_iter().flatten();
    let gateway =
        entries.filter(|entry| entry["name"] == GATEWAY_IMAGE).find_map(|entry| entry["value"].as_str());
    Ok(Images {
        operator: container["image"].as_str().context("the operator has no image")?.to_owned(),
        gateway: gateway.context("the operator names no gateway image")?.to_owned(),
    })
}

/// The same image under another tag, on every node.
fn second_tag(image: &str) -> Result<String> {
    let tag = |name: &str| format!("{name}-again");
    let cluster = cluster()?;
    for node in cluster.plan().nodes() {
        let ctr = |arguments: &[&str]| {
            run(cluster.on_node(&node.name())?.args(["ctr", "-n", "k8s.io", "images"]).args(arguments))
        };
        // containerd's name has the registry in front
        let all = ctr(&["list", "-q"])?;
        let name = all.lines().find(|name| name.ends_with(image));
        let name = name.with_context(|| format!("{} has no image {image}", node.name()))?;
        ctr(&["tag", "--force", name, &tag(name)])?;
    }
    Ok(tag(image))
}

const MQTT: &str = "{name: mqtt, port: 1883}";
const SECOND: &str = "{name: second, port: 1884}";

/// The quickstart's gateway with something changed.
fn gateway(replicas: u8, listeners: &[&str], more: &str) -> String {
    format!(
        "apiVersion: tidegate.io/v1alpha1\nkind: ProtocolGateway\nmetadata: {{name: mqtt, namespace: plant}}\nspec:\n  \
         platformRef: {{name: plant}}\n  mqtt: {{listeners: [{}]}}\n  replicas: {replicas}\n  \
         expose: {{type: LoadBalancer}}\n{more}",
        listeners.join(", ")
    )
}

/// Topics that have nothing to do with the load; `{n}` stands for their number.
fn topics_of(more: &str) -> String {
    let one = |number: usize| {
        let more = more.replace("{n}", &number.to_string());
        format!(
            "apiVersion: tidegate.io/v1alpha1\nkind: Topic\nmetadata: {{name: rollout-{number}, namespace: plant}}\nspec:\n  \
             platformRef: {{name: plant}}\n  deletionPolicy: Delete\n  partitions: 1\n{more}---\n"
        )
    };
    (0..TOPICS).map(one).collect()
}

fn delete_topics() -> Vec<String> {
    let words = ["delete", "tgt", "--wait=false", "--ignore-not-found"].map(str::to_owned);
    words.into_iter().chain((0..TOPICS).map(|number| format!("rollout-{number}"))).collect()
}

fn pods(kubectl: &Kubectl) -> Result<Vec<Value>> {
    let mut pods = kubectl.get(&["pods", "--selector=app.kubernetes.io/instance=mqtt"])?;
    Ok(pods["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

/// The object is Ready at its newest generation.
fn ready(kubectl: &Kubectl, object: &str) -> Result<()> {
    let object = kubectl.get(&[object])?;
    let generation = &object["metadata"]["generation"];
    let conditions = object["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    ensure!(
        ready.is_some_and(|ready| ready["status"] == "True" && ready["observedGeneration"] == *generation),
        "{} at generation {generation}",
        object["status"]
    );
    Ok(())
}

/// The gateway runs as it is declared: so many pods, all of the newest kind and ready, and none that still leaves.
fn settled(kubectl: &Kubectl, replicas: usize) -> Result<()> {
    ready(kubectl, "pgw/mqtt")?;
    let deployment = kubectl.get(&["deployment", "mqtt"])?;
    let status = &deployment["status"];
    ensure!(
        status["observedGeneration"] == deployment["metadata"]["generation"]
            && status["updatedReplicas"] == replicas
            && status["readyReplicas"] == replicas,
        "{status}"
    );
    let pods = pods(kubectl)?;
    ensure!(pods.len() == replicas, "{} pods, some of which leave", pods.len());
    Ok(())
}

/// Puts operator, gateway and topics back, also after a failure: other stories expect the quickstart.
struct AsBefore<'a> {
    story: &'a Story,
    images: Images,
}

impl Drop for AsBefore<'_> {
    fn drop(&mut self) {
        let kubectl = &self.story.kubectl;
        // whatever fails here the next story tells
        let system = Kubectl::new(SYSTEM);
        let _ = system.run(&["set", "image", OPERATOR, &format!("operator={}", self.images.operator)]);
        let _ = system.run(&["set", "env", OPERATOR, &format!("{GATEWAY_IMAGE}={}", self.images.gateway)]);
        let _ = kubectl.run(&delete_topics().iter().map(String::as_str).collect::<Vec<_>>());
        let _ = kubectl.apply_folder(&root().join("examples/quickstart"));
        let _ = until("the gateway as it was", LIMIT, || settled(kubectl, 2));
    }
}

//! What a person writes wrongly is refused or becomes a condition, each with the field and what to write.

use anyhow::{Result, ensure};
use std::time::Duration;
use tidegate_e2e::{Story, story, until};

const LIMIT: Duration = Duration::from_secs(30);

fn refused(story: &Story, yaml: &str, texts: &[&str]) -> Result<()> {
    let Err(error) = story.kubectl.apply(yaml) else {
        anyhow::bail!("accepted, though it should not be:\n{yaml}");
    };
    let said = format!("{error:#}");
    ensure!(texts.iter().all(|text| said.contains(text)), "the refusal lacks one of {texts:?}: {said}");
    Ok(())
}

#[test]
fn bad_input_is_refused_by_the_api_server_with_what_to_write() {
    story("bad-input-refused", &[], |story| {
        refused(
            story,
            "
apiVersion: tidegate.io/v1alpha1
kind: ProtocolGateway
metadata: {name: two, namespace: plant}
spec:
  platformRef: {name: plant}
  mqtt: {listeners: [{name: mqtt, port: 1883}]}
  http: {listeners: [{name: http, port: 80}]}
",
            &["exactly one protocol", "keep one of"],
        )?;
        let filters = "  - a/#\n".repeat(2000);
        refused(
            story,
            &format!(
                "
apiVersion: tidegate.io/v1alpha1
kind: Topic
metadata: {{name: huge, namespace: plant}}
spec:
  platformRef: {{name: plant}}
  filters:
{filters}"
            ),
            &["filters", "Too many"],
        )?;
        refused(
            story,
            "
apiVersion: tidegate.io/v1alpha1
kind: IoTPlatform
metadata: {name: ranges, namespace: plant}
spec:
  kafka: {managed: {brokers: 3, storage: {ephemeral: {}}}}
  loadBalancer: {addresses: [172.31.0.300-172.31.0.310]}
",
            &["spec.loadBalancer", "address range", "write"],
        )?;
        refused(
            story,
            "
apiVersion: tidegate.io/v1alpha1
kind: DeviceFleet
metadata: {name: braces, namespace: plant}
spec:
  platformRef: {name: plant}
  authentication: {password: {}}
  permissions: {publish: ['sites/{Device}/#']}
",
            &["permissions.publish", "only {device} and {fleet} stand in braces"],
        )
    });
}

#[test]
fn bad_input_that_only_the_operator_sees_becomes_a_condition() {
    story("bad-input-conditions", &[], |story| {
        let result = conditions(story);
        let bad = ["pgw/lost", "tgt/lost", "dfl/lost", "dfl/keyless", "iotp/ranges"];
        story.kubectl.run(&[["delete", "--ignore-not-found"].as_slice(), &bad].concat())?;
        until("the bad resources to be gone", LIMIT, || {
            let get = ["get", "--ignore-not-found", "--output=name"];
            let left = story.kubectl.run(&[get.as_slice(), &bad].concat())?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        result
    });
}

fn conditions(story: &Story) -> Result<()> {
    story.kubectl.apply(
        "
apiVersion: tidegate.io/v1alpha1
kind: ProtocolGateway
metadata: {name: lost, namespace: plant}
spec:
  platformRef: {name: nowhere}
  mqtt: {listeners: [{name: mqtt, port: 1883}]}
---
apiVersion: tidegate.io/v1alpha1
kind: Topic
metadata: {name: lost, namespace: plant}
spec:
  platformRef: {name: nowhere}
---
apiVersion: tidegate.io/v1alpha1
kind: DeviceFleet
metadata: {name: lost, namespace: plant}
spec:
  platformRef: {name: nowhere}
  authentication: {password: {}}
---
apiVersion: tidegate.io/v1alpha1
kind: DeviceFleet
metadata: {name: keyless, namespace: plant}
spec:
  platformRef: {name: plant}
  authentication: {password: {}}
  devices: [{name: keyless-1, passwordSecretRef: {name: not-made-yet, key: password}}]
---
apiVersion: tidegate.io/v1alpha1
kind: IoTPlatform
metadata: {name: ranges, namespace: plant}
spec:
  kafka: {managed: {brokers: 3, storage: {ephemeral: {}}}}
  loadBalancer: {addresses: [172.31.0.210-172.31.0.205]}
",
    )?;
    story.kubectl.says("dfl/keyless", "ResolvedRefs", "SecretNotFound", "\"not-made-yet\"", LIMIT)?;
    for object in ["pgw/lost", "tgt/lost", "dfl/lost"] {
        let condition = story.kubectl.condition(object, "ResolvedRefs", "False", LIMIT)?;
        ensure!(condition["reason"] == "PlatformNotFound", "{object}: {condition}");
        ensure!(
            condition["message"].as_str().is_some_and(|m| m.contains("nowhere")),
            "{object}: {condition}"
        );
        story.kubectl.condition(object, "Ready", "False", LIMIT)?;
    }
    let condition = story.kubectl.condition("iotp/ranges", "Accepted", "False", LIMIT)?;
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("spec.loadBalancer.addresses") && message.contains("172.31.0.210"),
        "{condition}"
    );
    Ok(())
}

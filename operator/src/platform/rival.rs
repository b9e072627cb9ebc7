//! Platforms that name the same place on the same Kafka: the oldest has it. Pure.

use kube::ResourceExt as _;
use std::collections::BTreeSet;
use tidegate_crds::IoTPlatform;

/// An older platform that has the prefix of `platform` on the same external Kafka, as far as the specs tell: they
/// share a bootstrap server. Other names for the same Kafka are found out from the directory there.
pub fn older<'a>(
    platform: &IoTPlatform,
    all: impl Iterator<Item = &'a IoTPlatform>,
) -> Option<&'a IoTPlatform> {
    let servers = servers(platform)?;
    let rivals = all.filter(|other| {
        other.metadata.uid != platform.metadata.uid
            && other.metadata.deletion_timestamp.is_none()
            && other.spec.kafka.prefix == platform.spec.kafka.prefix
            && self::servers(other).is_some_and(|theirs| !theirs.is_disjoint(&servers))
            && age(other) < age(platform)
    });
    rivals.min_by_key(|other| age(other))
}

fn servers(platform: &IoTPlatform) -> Option<BTreeSet<String>> {
    let external = platform.spec.kafka.external.as_ref()?;
    Some(external.bootstrap_servers.iter().map(|server| server.to_ascii_lowercase()).collect())
}

/// Oldest first; of the same second, by name.
fn age(platform: &IoTPlatform) -> impl Ord + use<> {
    let made = platform.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (made, platform.namespace(), platform.name_any())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(name: &str, second: i64, prefix: &str, servers: &[&str]) -> IoTPlatform {
        let json = serde_json::json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": name, "namespace": "iot", "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"kafka": {"prefix": prefix, "external": {"bootstrapServers": servers}}},
        });
        serde_json::from_value(json).unwrap()
    }

    fn rival(of: &IoTPlatform, all: &[IoTPlatform]) -> Option<String> {
        older(of, all.iter()).map(kube::ResourceExt::name_any)
    }

    #[test]
    fn of_two_platforms_in_one_place_the_oldest_has_it() {
        let all = [
            platform("young", 9, "acme.", &["b.example:9093", "a.example:9093"]),
            platform("old", 1, "acme.", &["A.example:9093"]),
            platform("elsewhere", 0, "acme.", &["c.example:9093"]),
            platform("beside", 0, "other.", &["a.example:9093"]),
        ];
        assert_eq!(rival(&all[0], &all), Some("old".to_owned()));
        assert_eq!(all[1..].iter().find_map(|each| rival(each, &all)), None);
        let mut going = all.clone();
        going[1].metadata.deletion_timestamp = going[1].metadata.creation_timestamp.clone();
        assert_eq!(rival(&going[0], &going), None);
    }
}

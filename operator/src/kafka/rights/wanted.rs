//! Which rights there shall be: those of gateways, which never change with what is declared, and those of applications.
//! Pure.

use super::acl::{Acl, Resource, kind, operation};
use super::{GATEWAY, application};
use std::collections::BTreeSet;
use tidegate_contract::internal;
use tidegate_crds::platform::Application;

/// What Kafka keeps for itself, and gateways have no business with.
const KAFKAS_OWN: [&str; 3] = ["__consumer_offsets", "__share_group_state", "__transaction_state"];
/// Groups and transactional ids of the platform itself begin so, behind the platform's prefix.
const OWN: &str = "tg-";

/// All rights of a platform whose names in Kafka begin with `prefix`. Super users need none.
pub fn wanted(prefix: &str, applications: &[Application]) -> BTreeSet<Acl> {
    let mut all: BTreeSet<_> = gateways(prefix).into_iter().collect();
    for one in applications {
        all.extend(of(prefix, one));
    }
    all
}

/// Gateways read and write records, whatever the topic: one right for all Topics, so that a new one needs no other and no
/// Topic is ever without. What tells gateways what to do is only read by them.
fn gateways(prefix: &str) -> Vec<Acl> {
    let topics = Resource::beginning(kind::TOPIC, prefix);
    let mut all: Vec<_> = [operation::READ, operation::WRITE, operation::DESCRIBE]
        .map(|each| Acl::allow(GATEWAY, each, topics.clone()))
        .into();
    let groups = Resource::beginning(kind::GROUP, &internal::name(prefix, OWN));
    all.push(Acl::allow(GATEWAY, operation::READ, groups));
    let directory = Resource::literal(kind::TOPIC, internal::name(prefix, internal::DIRECTORY));
    all.push(Acl::deny(GATEWAY, operation::WRITE, directory));
    for own in KAFKAS_OWN.iter().filter(|own| own.starts_with(prefix)) {
        all.push(Acl::deny(GATEWAY, operation::ALL, Resource::literal(kind::TOPIC, *own)));
    }
    all
}

/// Whoever reads needs a group of its own, and whoever writes may do so in transactions: both are called as the application
/// is, or begin with its name and a dot. No name has a dot in it, so no two applications share any.
fn of(prefix: &str, one: &Application) -> Vec<Acl> {
    let name = application(&one.name);
    let mut all = Vec::new();
    let mut allow = |operations: [i8; 2], resource: &Resource| {
        all.extend(operations.map(|each| Acl::allow(&name, each, resource.clone())));
    };
    let own = internal::name(prefix, &one.name);
    let called = |kind| [Resource::literal(kind, &own), Resource::beginning(kind, &format!("{own}."))];
    for topic in &one.read {
        let topic = Resource::literal(kind::TOPIC, internal::name(prefix, topic));
        allow([operation::READ, operation::DESCRIBE], &topic);
    }
    for topic in &one.write {
        let topic = Resource::literal(kind::TOPIC, internal::name(prefix, topic));
        allow([operation::WRITE, operation::DESCRIBE], &topic);
    }
    if !one.read.is_empty() {
        for group in called(kind::GROUP) {
            allow([operation::READ, operation::DESCRIBE], &group);
        }
    }
    if !one.write.is_empty() {
        for id in called(kind::TRANSACTIONAL_ID) {
            allow([operation::WRITE, operation::DESCRIBE], &id);
        }
    }
    all
}

/// What applications may use and no Topic is there for, in words; nothing where all are.
pub fn awaited(applications: &[Application], topics: &BTreeSet<String>) -> Vec<String> {
    let mut waiting = Vec::new();
    for one in applications {
        for (field, names) in [("read", &one.read), ("write", &one.write)] {
            let missing: Vec<_> =
                names.iter().filter(|name| !topics.contains(*name)).map(String::as_str).collect();
            if !missing.is_empty() {
                let missing = missing.join(", ");
                waiting.push(format!("spec.kafka.applications[{}].{field}: {missing}", one.name));
            }
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    fn application(yaml: &str) -> Application {
        serde_yaml::from_str(yaml).unwrap()
    }

    fn sentences(prefix: &str, applications: &[Application]) -> Vec<String> {
        wanted(prefix, applications).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn gateways_read_and_write_everything_of_the_platform_but_the_directory() {
        let said = [
            "User:gateway may not do anything with topic \"__consumer_offsets\"",
            "User:gateway may not do anything with topic \"__share_group_state\"",
            "User:gateway may not do anything with topic \"__transaction_state\"",
            "User:gateway may not write topic \"tg-directory\"",
            "User:gateway may read topics of any name",
            "User:gateway may write topics of any name",
            "User:gateway may describe topics of any name",
            "User:gateway may read groups that begin with \"tg-\"",
        ];
        assert_eq!(sentences("", &[]), said);
        let said = [
            "User:gateway may not write topic \"acme.tg-directory\"",
            "User:gateway may read topics that begin with \"acme.\"",
            "User:gateway may write topics that begin with \"acme.\"",
            "User:gateway may describe topics that begin with \"acme.\"",
            "User:gateway may read groups that begin with \"acme.tg-\"",
        ];
        assert_eq!(sentences("acme.", &[]), said);
    }

    #[test]
    fn an_application_gets_its_topics_and_groups_and_transactions_of_its_own_name() {
        let reads = application("{name: analytics, read: [telemetry]}");
        let said: Vec<_> =
            sentences("acme.", &[reads]).into_iter().filter(|text| text.contains("app-analytics")).collect();
        assert_eq!(
            said,
            [
                "User:app-analytics may read topic \"acme.telemetry\"",
                "User:app-analytics may describe topic \"acme.telemetry\"",
                "User:app-analytics may read group \"acme.analytics\"",
                "User:app-analytics may describe group \"acme.analytics\"",
                "User:app-analytics may read groups that begin with \"acme.analytics.\"",
                "User:app-analytics may describe groups that begin with \"acme.analytics.\"",
            ]
        );
        let writes = sentences("", &[application("{name: backend, write: [commands]}")]);
        assert!(writes.contains(&"User:app-backend may write topic \"commands\"".to_owned()));
        assert!(writes.contains(
            &"User:app-backend may write transactional ids that begin with \"backend.\"".to_owned()
        ));
        assert!(!writes.iter().any(|text| text.contains("app-backend may read")), "{writes:?}");
    }

    #[test]
    fn no_two_applications_share_a_group_whatever_their_names() {
        let names = ["a", "a-b", "ab", "a-"];
        let groups = |name: &str| {
            let one = application(&format!("{{name: '{name}', read: [t]}}"));
            of("", &one).into_iter().map(|acl| acl.resource).filter(|one| one.kind == kind::GROUP)
        };
        let covers = |one: &Resource, name: &str| {
            one.name == name
                || one.pattern == super::super::acl::pattern::PREFIXED && name.starts_with(&one.name)
        };
        for name in names {
            for other in names.iter().filter(|other| **other != name) {
                for theirs in [(*other).to_owned(), format!("{other}.x")] {
                    assert!(groups(name).all(|group| !covers(&group, &theirs)), "{name} has {theirs}");
                }
            }
        }
    }

    #[test]
    fn rights_on_topics_that_are_not_there_yet_are_named_by_field() {
        let applications = [application("{name: a, read: [x, y], write: [x]}"), application("{name: b}")];
        let said = awaited(&applications, &BTreeSet::from(["y".to_owned()]));
        assert_eq!(said, ["spec.kafka.applications[a].read: x", "spec.kafka.applications[a].write: x"]);
        assert!(awaited(&applications, &["x", "y"].map(str::to_owned).into()).is_empty());
    }
}

//! What devices may do, as a table that every protocol runs through its own sockets: which permissions a fleet has,
//! what its device tries, and whether it may.

use anyhow::Result;
use tidegate_contract::Principal;
use tidegate_contract::credential::Credential;
use tidegate_contract::fleet::{Authentication, DeviceEntry, DeviceLimits, FleetEntry, Permissions};
use tidegate_core::Roster;

/// What a device tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// To write to an address.
    Publish,
    /// To read what is at an address.
    Read,
    /// To get whatever matches a filter with wildcards; HTTP has no such thing.
    Subscribe,
}

/// A fleet's permissions and what becomes of its device's tries.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The device.
    pub username: &'static str,
    /// What its fleet may publish.
    pub publish: &'static [&'static str],
    /// What its fleet may subscribe to.
    pub subscribe: &'static [&'static str],
    /// What it tries, and whether it may.
    pub tries: &'static [(Verb, &'static str, bool)],
}

use Verb::{Publish, Read, Subscribe};

/// The table.
pub const CASES: &[Case] = &[
    Case {
        username: "silent/s1",
        publish: &[],
        subscribe: &[],
        tries: &[
            (Publish, "a", false),
            (Publish, "silent/s1", false),
            (Read, "a", false),
            (Read, "silent/s1", false),
            (Subscribe, "#", false),
            (Subscribe, "+", false),
        ],
    },
    Case {
        username: "meters/m1",
        publish: &["sites/+/telemetry/{device}/#"],
        subscribe: &["commands/{fleet}/{device}/#", "news"],
        tries: &[
            (Publish, "sites/berlin/telemetry/m1", true),
            (Publish, "sites/berlin/telemetry/m1/power", true),
            (Publish, "sites//telemetry/m1/a/b/c", true),
            (Publish, "sites/berlin/telemetry/m2/power", false),
            (Publish, "sites/berlin/telemetry/m11", false),
            (Publish, "sites/berlin/telemetry/M1", false),
            (Publish, "sites/berlin/telemetry", false),
            (Publish, "sites/a/b/telemetry/m1", false),
            (Publish, "/sites/berlin/telemetry/m1", false),
            (Publish, "sites/berlin/telemetry//m1", false),
            (Publish, "commands/meters/m1/x", false),
            (Publish, "news", false),
            (Read, "commands/meters/m1", true),
            (Read, "commands/meters/m1/reboot", true),
            (Read, "news", true),
            (Read, "news/today", false),
            (Read, "commands/meters/m2/reboot", false),
            (Read, "commands/others/m1/reboot", false),
            (Read, "commands/meters", false),
            (Read, "commands", false),
            (Read, "sites/berlin/telemetry/m1/power", false),
            (Subscribe, "commands/meters/m1/#", true),
            (Subscribe, "commands/meters/m1/+", true),
            (Subscribe, "commands/meters/m1/+/x/#", true),
            (Subscribe, "commands/meters/+/#", false),
            (Subscribe, "commands/+/m1/#", false),
            (Subscribe, "commands/#", false),
            (Subscribe, "#", false),
            (Subscribe, "news/#", false),
            (Subscribe, "+", false),
        ],
    },
    Case {
        username: "lines/{device}",
        publish: &["line-{device}/{fleet}"],
        subscribe: &["{device}/+"],
        tries: &[
            (Publish, "line-{device}/lines", true),
            (Publish, "line-lines/lines", false),
            (Publish, "line-x/lines", false),
            (Read, "{device}/x", true),
            (Read, "{device}", false),
            (Read, "{device}/x/y", false),
            (Subscribe, "{device}/+", true),
            (Subscribe, "{device}/#", false),
            (Subscribe, "+/+", false),
        ],
    },
    Case {
        username: "wide/$w.1@y",
        publish: &["#"],
        subscribe: &["+/{device}/#"],
        tries: &[
            (Publish, "a", true),
            (Publish, "a/b//c", true),
            (Publish, "a/$w.1@y", true),
            (Read, "a/$w.1@y", true),
            (Read, "/$w.1@y/z", true),
            (Read, "a/b/$w.1@y", false),
            (Read, "a", false),
            (Subscribe, "+/$w.1@y/#", true),
            (Subscribe, "b/$w.1@y/+", true),
            (Subscribe, "+/+/#", false),
            (Subscribe, "+/#", false),
        ],
    },
    Case {
        username: "broken/b1",
        publish: &["a/#/b", "c/{Device}", "ok/{device}"],
        subscribe: &["a+", "ok/{device}"],
        tries: &[
            (Publish, "ok/b1", true),
            (Publish, "a/x/b", false),
            (Publish, "c/b1", false),
            (Publish, "c/{Device}", false),
            (Read, "ok/b1", true),
            (Read, "a", false),
        ],
    },
    Case {
        username: "readers/r1",
        publish: &[],
        subscribe: &["#"],
        tries: &[
            (Read, "a", true),
            (Read, "any/thing/at/all", true),
            (Publish, "a", false),
            (Publish, "any/thing/at/all", false),
            (Subscribe, "#", true),
            (Subscribe, "+/#", true),
            (Subscribe, "a/+/b", true),
        ],
    },
];

/// What the device `meters/m1` tries around desired documents, though its fleet permits everything by `#`.
pub const DESIRED: &[(Verb, &str, bool)] = &[
    (Read, ".tidegate/desired/meters/m1", true),
    (Read, ".tidegate/desired/meters/m2", false),
    (Read, ".tidegate/desired/meters/m11", false),
    (Read, ".tidegate/desired/meters/M1", false),
    (Read, ".tidegate/desired/meters/", false),
    (Read, ".tidegate/desired/meters", false),
    (Read, ".tidegate/desired/", false),
    (Read, ".tidegate/desired//m1", false),
    (Read, ".tidegate/desired/others/m1", false),
    (Read, ".tidegate/desired/meters/m1/", false),
    (Read, ".tidegate/desired/meters/m1/x", false),
    (Read, ".tidegate/desired//meters/m1", false),
    (Read, ".tidegate/desired/meters//m1", false),
    (Read, ".tidegate/desired/./meters/m1", false),
    (Read, ".tidegate/desired/{fleet}/{device}", false),
    (Publish, ".tidegate/desired/meters/m1", false),
    (Publish, ".tidegate/desired/meters/m2", false),
    (Publish, ".tidegate/desired/others/m1", false),
    (Subscribe, ".tidegate/#", false),
    (Subscribe, ".tidegate/desired/#", false),
    (Subscribe, ".tidegate/desired/+/+", false),
    (Subscribe, ".tidegate/desired/meters/+", false),
    (Subscribe, ".tidegate/desired/meters/#", false),
    (Subscribe, ".tidegate/desired/meters/m1/#", false),
    (Subscribe, ".tidegate/+/meters/m1", false),
    (Subscribe, ".well-known/#", false),
];

/// The password of every device in the table.
pub const PASSWORD: &str = "0123456789abcdef0123456789abcdef";

/// A fleet whose devices have passwords.
pub fn fleet(publish: &[&str], subscribe: &[&str], limits: DeviceLimits) -> FleetEntry {
    FleetEntry {
        authentication: Authentication { password: true, ..Authentication::default() },
        permissions: Permissions::new(publish, subscribe),
        limits,
        ..FleetEntry::default()
    }
}

/// The same with a configuration, `{"v": <value>}`.
pub fn configured(fleet: FleetEntry, value: &str) -> FleetEntry {
    let configuration = Some([("v".to_owned(), value.into())].into_iter().collect());
    FleetEntry { configuration, ..fleet }
}

/// A device with a password.
pub fn device(password: &str) -> Result<DeviceEntry> {
    let credential = Credential::new(password.as_bytes(), [7; 16])?.to_string();
    Ok(DeviceEntry { credential: Some(credential), ..DeviceEntry::default() })
}

/// Lets a device of a fleet with these permissions in, by [`PASSWORD`].
pub fn declare(roster: &Roster, username: &str, publish: &[&str], subscribe: &[&str]) -> Result<Principal> {
    let principal = Principal::parse(username)?;
    let entry = fleet(publish, subscribe, DeviceLimits::default());
    roster.put_fleet(principal.fleet(), Some(&entry));
    roster.put_device(&principal, Some(&device(PASSWORD)?));
    Ok(principal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_as_large_as_the_platform_promises() {
        let on_both = |verb: &Verb| *verb != Subscribe;
        let tries = CASES.iter().flat_map(|case| case.tries);
        assert!(tries.filter(|(verb, ..)| on_both(verb)).count() >= 40);
    }
}

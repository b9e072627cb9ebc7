//! The directory's records of fleets and their devices. Pure.
//!
//! There may be 100,000 devices, and a sweep every two seconds: records are kept by fleet and shared, so that a fleet of
//! which nothing changed costs one comparison of pointers, and what Kafka holds and what it should hold are in memory once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use tidegate_contract::Principal;
use tidegate_contract::directory::Key;

/// The records of one fleet.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FleetRecords {
    /// Its own.
    pub fleet: Option<Box<[u8]>>,
    /// Its devices', by the device's name.
    pub devices: BTreeMap<Box<str>, Box<[u8]>>,
}

/// The records of all fleets, by the fleet's name.
pub type Fleets = BTreeMap<String, Arc<FleetRecords>>;

/// One record to be written; without a value a tombstone.
pub type Change<'a> = (String, Option<&'a [u8]>);

impl FleetRecords {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fleet.is_none() && self.devices.is_empty()
    }

    /// How many records these are.
    pub fn len(&self) -> usize {
        usize::from(self.fleet.is_some()) + self.devices.len()
    }
}

/// Hashes of passwords are in no log.
impl fmt::Debug for FleetRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({} records)", self.len())
    }
}

/// Records as they are read, one after another.
#[derive(Default)]
pub struct Reading(BTreeMap<String, FleetRecords>);

impl Reading {
    /// Takes in one record; whether it is about a fleet or a device.
    pub fn take(&mut self, key: &str, value: Option<&[u8]>) -> bool {
        match Key::parse(key) {
            Some(Key::Fleet(name)) => self.0.entry(name).or_default().fleet = value.map(Box::from),
            Some(Key::Device(who)) => {
                let devices = &mut self.0.entry(who.fleet().to_owned()).or_default().devices;
                match value {
                    Some(value) => drop(devices.insert(who.device().into(), value.into())),
                    None => drop(devices.remove(who.device())),
                }
            }
            _ => return false,
        }
        true
    }

    /// What was read.
    pub fn end(self) -> Fleets {
        let left = self.0.into_iter().filter(|(_, records)| !records.is_empty());
        left.map(|(name, records)| (name, Arc::new(records))).collect()
    }
}

/// The fleets of a platform as the API server has them, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// Those that their controller speaks for.
    pub followed: BTreeSet<String>,
    /// Those that stay as they are: paused, or not to be read.
    pub kept: BTreeSet<String>,
}

/// The records that the directory should have: what controllers wish for. Where none has spoken yet, and for what is
/// kept, what is there. A fleet that is not declared has none.
pub fn wanted(declared: &Declared, wishes: &Fleets, have: &Fleets) -> Fleets {
    let followed = declared.followed.iter().map(|name| (name, wishes.get(name).or_else(|| have.get(name))));
    let kept = declared.kept.iter().map(|name| (name, have.get(name)));
    let there = followed.chain(kept).filter_map(|(name, records)| Some((name.clone(), records?)));
    there
        .filter(|(_, records)| !records.is_empty())
        .map(|(name, records)| (name, Arc::clone(records)))
        .collect()
}

/// What to write. A fleet's own record comes before its devices', so that none of them counts longer than it should.
pub fn changes<'a>(have: &'a Fleets, want: &'a Fleets) -> Vec<Change<'a>> {
    let mut all = Vec::new();
    for (name, old) in have {
        match want.get(name) {
            Some(new) if Arc::ptr_eq(old, new) => {}
            new => of_one(name, old, new.map(|new| &**new), &mut all),
        }
    }
    for (name, new) in want.iter().filter(|(name, _)| !have.contains_key(*name)) {
        of_one(name, &FleetRecords::default(), Some(new), &mut all);
    }
    all
}

fn of_one<'a>(name: &str, old: &FleetRecords, new: Option<&'a FleetRecords>, all: &mut Vec<Change<'a>>) {
    let fleet = new.and_then(|new| new.fleet.as_deref());
    if old.fleet.as_deref() != fleet {
        all.push((Key::Fleet(name.to_owned()).to_string(), fleet));
    }
    let key = |device: &str| Principal::new(name, device).ok().map(|who| Key::Device(who).to_string());
    let stays = |device: &str| new.is_some_and(|new| new.devices.contains_key(device));
    let gone = old.devices.keys().filter(|device| !stays(device));
    all.extend(gone.filter_map(|device| Some((key(device)?, None))));
    let devices = new.into_iter().flat_map(|new| &new.devices);
    let written = devices.filter(|&(device, value)| old.devices.get(device) != Some(value));
    all.extend(written.filter_map(|(device, value)| Some((key(device)?, Some(&**value)))));
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn records(fleet: &str, devices: &[(&str, &str)]) -> Arc<FleetRecords> {
        let devices = devices.iter().map(|&(name, value)| (name.into(), value.as_bytes().into())).collect();
        Arc::new(FleetRecords { fleet: Some(fleet.as_bytes().into()), devices })
    }

    fn fleets(all: &[(&str, &Arc<FleetRecords>)]) -> Fleets {
        all.iter().map(|&(name, records)| (name.to_owned(), Arc::clone(records))).collect()
    }

    fn told(have: &Fleets, want: &Fleets) -> Vec<String> {
        let text = |(key, value): Change<'_>| match value {
            Some(value) => format!("{key}={}", String::from_utf8_lossy(value)),
            None => format!("{key} goes"),
        };
        changes(have, want).into_iter().map(text).collect()
    }

    #[test]
    fn only_differences_are_written_and_what_is_gone_gets_a_tombstone() {
        let (old, new) =
            (records("f", &[("a", "1"), ("b", "1")]), records("f", &[("b", "2"), ("c", "1"), ("x", "1")]));
        let (have, want) = (fleets(&[("m", &old)]), fleets(&[("m", &new)]));
        assert_eq!(told(&have, &want), ["device/m/a goes", "device/m/b=2", "device/m/c=1", "device/m/x=1"]);
        assert!(told(&want, &want).is_empty());
        assert_eq!(told(&have, &Fleets::new()), ["fleet/m goes", "device/m/a goes", "device/m/b goes"]);
        assert_eq!(told(&Fleets::new(), &have), ["fleet/m=f", "device/m/a=1", "device/m/b=1"]);
        assert!(told(&have, &fleets(&[("m", &records("f", &[("a", "1"), ("b", "1")]))])).is_empty());
    }

    #[test]
    fn what_is_read_is_told_apart_from_topics_and_a_tombstone_removes() {
        let mut reading = Reading::default();
        for (key, value) in [
            ("fleet/m", Some("f")),
            ("device/m/a", Some("1")),
            ("device/m/b", Some("1")),
            ("device/m/a", None),
            ("device/lost/x", Some("1")),
            ("fleet/gone", Some("f")),
            ("fleet/gone", None),
        ] {
            assert!(reading.take(key, value.map(str::as_bytes)), "{key}");
        }
        assert!(!reading.take("topic/t", Some(b"{}")) && !reading.take("later/x", None));
        let read = reading.end();
        assert_eq!(read["m"], records("f", &[("b", "1")]));
        assert_eq!(read.keys().collect::<Vec<_>>(), ["lost", "m"]);
        // A device without its fleet, as a crash between two transactions may leave it.
        assert_eq!(told(&read, &Fleets::new())[0], "device/lost/x goes");
    }

    #[test]
    fn a_fleet_is_as_its_controller_wishes_and_as_it_was_until_that_has_spoken() {
        let (old, new) = (records("old", &[]), records("new", &[]));
        let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect();
        let declared = Declared { followed: names(&["a", "b", "c"]), kept: names(&["p"]) };
        let have = fleets(&[("a", &old), ("b", &old), ("p", &old), ("gone", &old)]);
        let wishes = fleets(&[("a", &new), ("p", &new), ("gone", &new)]);
        let want = wanted(&declared, &wishes, &have);
        assert_eq!(want, fleets(&[("a", &new), ("b", &old), ("p", &old)]));
    }

    #[test]
    fn no_log_shows_a_hash() {
        let shown = format!("{:?}", records("secret", &[("a", "secret")]));
        assert_eq!(shown, "(2 records)");
    }
}

//! What is known of each fleet between passes, and what fleets of one platform have said about themselves. No IO.
//!
//! All of it can be had again: from the directory, from Secrets, from fleets' passes.

use super::authorities::Authorities;
use super::claims::{Candidate, Claim, Claims, Decided, Standing, concerned, decide};
use super::judge::AuthorityTrouble;
use super::passwords::{Fleet, Made};
use super::records::Progress;
use crate::kafka::fleets::FleetRecords;
use crate::kafka::hub::Key;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What came of a Secret with certificate authorities, and of which version.
pub type Read = (Option<String>, Result<Authorities, AuthorityTrouble>);

/// What is known of one fleet.
#[derive(Default)]
struct Mind {
    uid: String,
    platform: Option<Key>,
    wish: Option<Arc<FleetRecords>>,
    progress: HashMap<String, Progress>,
    authority: Option<Read>,
}

#[derive(Default)]
struct State {
    minds: HashMap<Fleet, Mind>,
    claims: HashMap<Key, Claims>,
}

/// What is known of all fleets.
#[derive(Default)]
pub struct Memory(Mutex<State>);

impl Memory {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a pass over a fleet; where it was another platform's before, that one.
    pub fn meet(&self, fleet: &Fleet, uid: &str, platform: &Key) -> Option<Key> {
        let mut state = self.state();
        let mind = state.minds.entry(fleet.clone()).or_default();
        let moved = mind.platform.replace(platform.clone()).filter(|before| before != platform);
        if mind.uid != uid || moved.is_some() {
            let (uid, platform) = (uid.to_owned(), Some(platform.clone()));
            *mind = Mind { uid, platform, ..Mind::default() };
        }
        moved
    }

    /// Forgets a fleet; the platform that it was one of.
    pub fn forget(&self, fleet: &Fleet) -> Option<Key> {
        self.state().minds.remove(fleet)?.platform
    }

    /// The records that were wished for last.
    pub fn wish(&self, fleet: &Fleet) -> Option<Arc<FleetRecords>> {
        self.state().minds.get(fleet)?.wish.clone()
    }

    /// Remembers the records that are wished for; what came of passwords is in them now.
    pub fn wished(&self, fleet: &Fleet, records: &Arc<FleetRecords>) {
        let mut state = self.state();
        let Some(mind) = state.minds.get_mut(fleet) else { return };
        mind.progress.retain(|device, progress| match progress {
            Progress::Made((_, Ok(_))) => !records.devices.contains_key(device.as_str()),
            Progress::Made((_, Err(_))) | Progress::Asked(_) => true,
        });
        mind.wish = Some(Arc::clone(records));
    }

    /// What is known of passwords.
    pub fn progress(&self, fleet: &Fleet) -> HashMap<String, Progress> {
        self.state().minds.get(fleet).map(|mind| mind.progress.clone()).unwrap_or_default()
    }

    /// A password was asked for by its source.
    pub fn asked(&self, fleet: &Fleet, device: &str, source: &str) {
        if let Some(mind) = self.state().minds.get_mut(fleet) {
            mind.progress.insert(device.to_owned(), Progress::Asked(source.to_owned()));
        }
    }

    /// What came of passwords.
    pub fn made(&self, fleet: &Fleet, all: Vec<(String, Made)>) {
        if let Some(mind) = self.state().minds.get_mut(fleet) {
            mind.progress.extend(all.into_iter().map(|(device, made)| (device, Progress::Made(made))));
        }
    }

    /// What came of the authorities' Secret, if it is still this version of it.
    pub fn authority(
        &self,
        fleet: &Fleet,
        source: Option<&String>,
    ) -> Option<Result<Authorities, AuthorityTrouble>> {
        let state = self.state();
        let (of, read) = state.minds.get(fleet)?.authority.as_ref()?;
        (of.as_ref() == source).then(|| read.clone())
    }

    /// Remembers what came of the authorities' Secret.
    pub fn keep_authority(&self, fleet: &Fleet, read: Read) {
        if let Some(mind) = self.state().minds.get_mut(fleet) {
            mind.authority = Some(read);
        }
    }

    /// A fleet says what it asks for: what it has, and which others have to look again.
    pub fn claim(
        &self,
        platform: &Key,
        name: &str,
        mut claim: Claim,
        all: Vec<Candidate>,
    ) -> (Decided, Vec<String>) {
        let mut state = self.state();
        let claims = state.claims.entry(platform.clone()).or_default();
        let before = claims.insert(name.to_owned(), claim.clone());
        let decided = decide(name, all, claims);
        if let Standing::Unknown(other) = &decided.x509 {
            claim.waits_for = Some(other.clone());
            claims.insert(name.to_owned(), claim.clone());
        }
        let others = concerned(name, before.as_ref(), Some(&claim), claims);
        (decided, others)
    }

    /// A fleet asks for nothing any more: which others have to look again.
    pub fn renounce(&self, platform: &Key, name: &str) -> Vec<String> {
        let mut state = self.state();
        let Some(claims) = state.claims.get_mut(platform) else { return Vec::new() };
        let before = claims.remove(name);
        let others = concerned(name, before.as_ref(), None, claims);
        if claims.is_empty() {
            state.claims.remove(platform);
        }
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet() -> Fleet {
        ("plant".to_owned(), "meters".to_owned())
    }

    fn made(credential: &str) -> Vec<(String, Made)> {
        vec![("a".to_owned(), ("v1".to_owned(), Ok(credential.to_owned())))]
    }

    #[test]
    fn a_fleet_that_was_made_anew_or_moved_begins_anew() {
        let (memory, plant, other) =
            (Memory::default(), Key::new("plant", "plant"), Key::new("plant", "other"));
        assert_eq!(memory.meet(&fleet(), "1", &plant), None);
        memory.made(&fleet(), made("c"));
        assert_eq!(memory.meet(&fleet(), "1", &plant), None);
        assert_eq!(memory.progress(&fleet()).len(), 1);
        assert_eq!(memory.meet(&fleet(), "2", &plant), None);
        assert!(memory.progress(&fleet()).is_empty());
        memory.made(&fleet(), made("c"));
        assert_eq!(memory.meet(&fleet(), "2", &other), Some(plant));
        assert!(memory.progress(&fleet()).is_empty());
        assert_eq!(memory.forget(&fleet()), Some(other));
        memory.made(&fleet(), made("c"));
        assert!(memory.progress(&fleet()).is_empty(), "too late");
    }

    #[test]
    fn what_is_in_the_records_is_remembered_nowhere_else() {
        let memory = Memory::default();
        memory.meet(&fleet(), "1", &Key::new("plant", "plant"));
        memory.made(&fleet(), made("c"));
        memory.wished(&fleet(), &Arc::default());
        assert_eq!(memory.progress(&fleet()).len(), 1, "not in them yet");
        let devices = [("a".into(), (*b"{}").into())].into();
        memory.wished(&fleet(), &Arc::new(FleetRecords { fleet: None, devices }));
        assert!(memory.progress(&fleet()).is_empty());
        memory.asked(&fleet(), "a", "v2");
        memory.wished(&fleet(), &memory.wish(&fleet()).unwrap());
        assert_eq!(memory.progress(&fleet())["a"], Progress::Asked("v2".to_owned()));
    }
}

//! Which version of which Secret there is, and which fleets and gateways refer to it. IO: one watch of what identifies
//! Secrets; what they hold is not watched, and nothing of it is kept.
//!
//! There may be 100,000 Secrets of devices: of each, name and a digest of its version are in memory.

use super::context::Scope;
use crate::kafka::bell::Bell;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::{Stream, StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ObjectMeta;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tidegate_crds::{DeviceFleet, ProtocolGateway};

/// Who may refer to Secrets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum User {
    /// The fleet of this name.
    Fleet(Arc<str>),
    /// The gateway of this name.
    Gateway(Arc<str>),
}

impl User {
    /// A fleet.
    pub fn fleet(name: &str) -> Self {
        Self::Fleet(name.into())
    }

    /// A gateway.
    pub fn gateway(name: &str) -> Self {
        Self::Gateway(name.into())
    }
}

/// Users whom something concerns, with their namespaces.
type Concerned = Vec<(String, User)>;

/// One version of one Secret: another Secret of the same name has others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version([u8; 12]);

impl Version {
    /// The version of an object as it was read.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        Some(Self::new(meta.uid.as_deref()?, meta.resource_version.as_deref()?))
    }

    fn new(uid: &str, version: &str) -> Self {
        digest([uid, version])
    }

    /// What the directory remembers a password's origin by: the version and the key in it.
    pub fn source(&self, key: &str) -> String {
        let Self(bytes) = digest([&URL_SAFE_NO_PAD.encode(self.0), key]);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

fn digest(parts: [&str; 2]) -> Version {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    let mut bytes = [0; 12];
    bytes.copy_from_slice(&hash.finalize()[..12]);
    Version(bytes)
}

type Versions = HashMap<Box<str>, Version>;

/// What one watch has told.
#[derive(Default)]
struct Listing {
    /// The namespace that is watched; absent: all.
    namespace: Option<String>,
    listed: bool,
    held: HashMap<String, Versions>,
    /// The list that is on its way.
    coming: HashMap<String, Versions>,
}

/// Who refers to the Secrets of a namespace.
#[derive(Default)]
struct Users {
    /// By Secret.
    of: HashMap<Arc<str>, Vec<User>>,
    /// Their Secrets.
    by: HashMap<User, BTreeSet<Arc<str>>>,
}

#[derive(Default)]
struct State {
    listings: Vec<Listing>,
    users: HashMap<String, Users>,
}

/// All Secrets and who refers to them.
#[derive(Default)]
pub struct Secrets {
    state: Mutex<State>,
    fleets: Bell<DeviceFleet>,
    gateways: Bell<ProtocolGateway>,
}

impl Secrets {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches Secrets, while somebody polls: the fleets that refer to one that came, changed or went. Gateways hear of it
    /// from [`Self::gateways`].
    pub fn watch(
        self: &Arc<Self>,
        scope: &Scope,
    ) -> impl Stream<Item = ObjectRef<DeserializeGuard<DeviceFleet>>> + Send + use<> {
        let index = self.begin(scope.namespace());
        let events =
            watcher(scope.api::<PartialObjectMeta<Secret>>(), watcher::Config::default()).default_backoff();
        let secrets = Arc::clone(self);
        let taken = events.filter_map(move |event| {
            if let Ok(event) = event {
                secrets.tell(secrets.take(index, event));
            }
            std::future::ready(None)
        });
        stream::select(taken, self.fleets.listen())
    }

    /// The gateways that refer to a Secret that came, changed or went.
    pub fn gateways(
        &self,
    ) -> impl Stream<Item = ObjectRef<DeserializeGuard<ProtocolGateway>>> + Send + use<> {
        self.gateways.listen()
    }

    fn tell(&self, concerned: Concerned) {
        for (namespace, user) in concerned {
            match user {
                User::Fleet(name) => self.fleets.ring(&namespace, &name),
                User::Gateway(name) => self.gateways.ring(&namespace, &name),
            }
        }
    }

    fn begin(&self, namespace: Option<&str>) -> usize {
        let mut state = self.state();
        let namespace = namespace.map(str::to_owned);
        state.listings.push(Listing { namespace, ..Listing::default() });
        state.listings.len() - 1
    }

    /// Takes in one event; whom it concerns.
    fn take(&self, index: usize, event: Event<PartialObjectMeta<Secret>>) -> Concerned {
        let mut state = self.state();
        let State { listings, users } = &mut *state;
        let Some(listing) = listings.get_mut(index) else { return Vec::new() };
        let place = |secret: &PartialObjectMeta<Secret>| {
            let meta = &secret.metadata;
            Some((meta.namespace.clone()?, meta.name.clone()?, Version::of(meta)?))
        };
        match event {
            Event::Init => {
                listing.coming.clear();
                Vec::new()
            }
            Event::InitApply(secret) => {
                if let Some((namespace, name, version)) = place(&secret) {
                    listing.coming.entry(namespace).or_default().insert(name.into(), version);
                }
                Vec::new()
            }
            Event::InitDone => {
                let coming = std::mem::take(&mut listing.coming);
                let before = std::mem::replace(&mut listing.held, coming);
                let first = !std::mem::replace(&mut listing.listed, true);
                let now = &listing.held;
                let get = |all: &HashMap<String, Versions>, namespace: &str, name: &str| {
                    all.get(namespace).and_then(|all| all.get(name)).copied()
                };
                let mut told = BTreeSet::new();
                for (namespace, users) in users.iter() {
                    for (secret, users) in &users.of {
                        if first || get(&before, namespace, secret) != get(now, namespace, secret) {
                            told.extend(users.iter().map(|user| (namespace.clone(), user.clone())));
                        }
                    }
                }
                told.into_iter().collect()
            }
            Event::Apply(secret) => {
                let Some((namespace, name, version)) = place(&secret) else { return Vec::new() };
                let versions = listing.held.entry(namespace.clone()).or_default();
                let same = versions.insert(name.as_str().into(), version) == Some(version);
                if same { Vec::new() } else { concerned(users, &namespace, &name) }
            }
            Event::Delete(secret) => {
                let Some((namespace, name, _)) = place(&secret) else { return Vec::new() };
                if let Some(versions) = listing.held.get_mut(&namespace) {
                    versions.remove(name.as_str());
                }
                concerned(users, &namespace, &name)
            }
        }
    }

    /// Makes as if all Secrets were listed, among them these: name (and uid), version.
    #[cfg(test)]
    pub(crate) fn pretend(&self, namespace: &str, secrets: &[(&str, &str)]) {
        let index = match self.state().listings.len() {
            0 => None,
            _ => Some(0),
        };
        let index = index.unwrap_or_else(|| self.begin(None));
        let mut state = self.state();
        state.listings[index].listed = true;
        let versions = state.listings[index].held.entry(namespace.to_owned()).or_default();
        versions.extend(secrets.iter().map(|&(name, version)| (name.into(), Version::new(name, version))));
    }

    /// Whether all Secrets of a namespace are known.
    pub fn listed(&self, namespace: &str) -> bool {
        let state = self.state();
        state.listings.iter().any(|one| one.listed && one.watches(namespace))
    }

    /// How many Secrets a namespace has.
    pub fn count(&self, namespace: &str) -> usize {
        let state = self.state();
        state.listings.iter().filter_map(|one| one.held.get(namespace)).map(HashMap::len).sum()
    }

    /// The version of a Secret; nothing where there is none.
    pub fn version(&self, namespace: &str, name: &str) -> Option<Version> {
        let state = self.state();
        state.listings.iter().find_map(|one| one.held.get(namespace)?.get(name).copied())
    }

    /// Somebody has read a Secret, and may be ahead of the watch, which then has no news for the others. Absent: it is
    /// not there.
    pub fn saw(&self, namespace: &str, name: &str, version: Option<Version>) {
        let mut state = self.state();
        let State { listings, users } = &mut *state;
        let Some(listing) = listings.iter_mut().find(|one| one.watches(namespace)) else { return };
        let versions = listing.held.entry(namespace.to_owned()).or_default();
        let before = match version {
            Some(version) => versions.insert(name.into(), version),
            None => versions.remove(name),
        };
        let concerned = if before == version { Vec::new() } else { concerned(users, namespace, name) };
        drop(state);
        self.tell(concerned);
    }

    /// Somebody refers to these Secrets, and to no others.
    pub fn used(&self, namespace: &str, user: &User, secrets: &BTreeSet<&str>) {
        let mut state = self.state();
        let users = state.users.entry(namespace.to_owned()).or_default();
        let known = users.by.get(user);
        if known
            .map_or(secrets.is_empty(), |known| known.iter().map(|name| &**name).eq(secrets.iter().copied()))
        {
            return;
        }
        for gone in users.by.remove(user).unwrap_or_default() {
            if secrets.contains(&*gone) {
                continue;
            }
            if let Some(all) = users.of.get_mut(&gone) {
                all.retain(|one| one != user);
                if all.is_empty() {
                    users.of.remove(&gone);
                }
            }
        }
        let mut own = BTreeSet::new();
        for &secret in secrets {
            let name =
                users.of.get_key_value(secret).map_or_else(|| secret.into(), |(name, _)| Arc::clone(name));
            let all = users.of.entry(Arc::clone(&name)).or_default();
            if !all.contains(user) {
                all.push(user.clone());
            }
            own.insert(name);
        }
        if !own.is_empty() {
            users.by.insert(user.clone(), own);
        }
    }
}

impl Listing {
    fn watches(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|own| own == namespace)
    }
}

fn concerned(users: &HashMap<String, Users>, namespace: &str, secret: &str) -> Concerned {
    let all = users.get(namespace).and_then(|users| users.of.get(secret)).into_iter().flatten();
    all.map(|user| (namespace.to_owned(), user.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(name: &str, version: &str) -> PartialObjectMeta<Secret> {
        let meta = json!({"name": name, "namespace": "plant", "uid": format!("u-{name}"), "resourceVersion": version});
        serde_json::from_value(json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta})).unwrap()
    }

    fn set<'a>(names: &[&'a str]) -> BTreeSet<&'a str> {
        names.iter().copied().collect()
    }

    fn told(secrets: &Secrets, event: Event<PartialObjectMeta<Secret>>) -> String {
        let mut names: Vec<_> = secrets.take(0, event).into_iter().map(|(_, user)| name(&user)).collect();
        names.sort();
        names.join(" ")
    }

    fn name(user: &User) -> String {
        match user {
            User::Fleet(name) => name.to_string(),
            User::Gateway(name) => format!("{name}!"),
        }
    }

    fn used(secrets: &Secrets, namespace: &str, fleet: &str, names: &[&str]) {
        secrets.used(namespace, &User::fleet(fleet), &set(names));
    }

    #[test]
    fn a_secret_that_came_changed_or_went_concerns_those_who_refer_to_it() {
        let secrets = Secrets::default();
        secrets.begin(None);
        used(&secrets, "plant", "a", &["x", "y"]);
        used(&secrets, "plant", "b", &["y"]);
        used(&secrets, "other", "c", &["x"]);
        assert!(!secrets.listed("plant"));
        told(&secrets, Event::Init);
        assert_eq!(told(&secrets, Event::InitApply(secret("x", "1"))), "");
        assert_eq!(told(&secrets, Event::InitDone), "a b c", "each may have waited for the list");
        assert!(secrets.listed("plant") && secrets.count("plant") == 1);
        assert_eq!(told(&secrets, Event::Apply(secret("y", "2"))), "a b");
        assert_eq!(told(&secrets, Event::Apply(secret("y", "2"))), "", "the same again");
        assert_eq!(told(&secrets, Event::Apply(secret("stranger", "3"))), "");
        used(&secrets, "plant", "a", &["x"]);
        assert_eq!(told(&secrets, Event::Delete(secret("y", "2"))), "b");
        assert_eq!(secrets.version("plant", "y"), None);
        used(&secrets, "plant", "a", &[]);
        // The watch broke; meanwhile x was changed.
        told(&secrets, Event::Init);
        told(&secrets, Event::InitApply(secret("x", "9")));
        assert!(secrets.version("plant", "x").is_some(), "until the new list is there the old one holds");
        used(&secrets, "plant", "d", &["x"]);
        assert_eq!(told(&secrets, Event::InitDone), "d");
    }

    #[tokio::test]
    async fn a_gateway_hears_of_its_secrets_also_from_whoever_read_one_first() {
        let secrets = Secrets::default();
        secrets.begin(None);
        used(&secrets, "plant", "a", &["x"]);
        secrets.used("plant", &User::gateway("a"), &set(&["x", "y"]));
        let mut heard = Box::pin(secrets.gateways());
        assert_eq!(told(&secrets, Event::Apply(secret("x", "1"))), "a a!");
        assert_eq!(told(&secrets, Event::Apply(secret("y", "1"))), "a!");
        assert!(futures::poll!(heard.next()).is_pending());
        secrets.saw("plant", "x", Version::of(&secret("x", "2").metadata));
        assert_eq!(heard.next().await.unwrap().name, "a");
        assert_eq!(told(&secrets, Event::Apply(secret("x", "2"))), "", "it was told");
        secrets.saw("plant", "x", Version::of(&secret("x", "2").metadata));
        assert!(futures::poll!(heard.next()).is_pending());
        secrets.used("plant", &User::gateway("a"), &set(&[]));
        assert_eq!(told(&secrets, Event::Delete(secret("x", "2"))), "a");
    }

    #[test]
    fn a_watch_of_one_namespace_says_nothing_of_another() {
        let secrets = Secrets::default();
        secrets.begin(Some("plant"));
        told(&secrets, Event::InitDone);
        assert!(secrets.listed("plant") && !secrets.listed("other"));
    }

    #[test]
    fn whoever_read_a_secret_may_be_ahead_of_the_watch() {
        let secrets = Secrets::default();
        secrets.begin(None);
        used(&secrets, "plant", "a", &["x"]);
        told(&secrets, Event::Apply(secret("x", "1")));
        let read = Version::of(&secret("x", "2").metadata);
        secrets.saw("plant", "x", read);
        assert_eq!(secrets.version("plant", "x"), read);
        assert_eq!(told(&secrets, Event::Apply(secret("x", "2"))), "", "known");
        secrets.saw("plant", "x", None);
        assert_eq!(secrets.version("plant", "x"), None);
    }

    #[test]
    fn a_source_tells_versions_secrets_and_keys_apart_and_says_nothing_else() {
        let version = Version::new("uid", "1");
        let source = version.source("password");
        assert_eq!((source.len(), version.source("password")), (16, source.clone()));
        for other in [Version::new("uid", "2"), Version::new("other", "1"), Version::new("uid1", "")] {
            assert_ne!(other.source("password"), source);
        }
        assert_ne!(version.source("other"), source);
    }
}

//! From a Secret to a device's credential: reads Secrets (IO), hashes off the async threads, and tells the fleet.
//!
//! Few Secrets are read one by one; many of one namespace, as at the first start with 100,000 devices, page by page. A
//! hash of a password that a person made takes tens of milliseconds: so many at a time as `threads` says, and fleets
//! take turns, so that a changed password of one does not wait for all of another's.

use crate::frame::Context;
use crate::frame::failure::chain;
use crate::frame::secrets::{Secrets, Version};
use futures::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::ListParams;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tidegate_contract::credential::{Credential, Memory, check_password, is_machine_made};
use tokio::sync::Semaphore;

/// How many Secrets one page has.
const PAGE: u32 = 250;
/// How many Secrets are read at a time.
const READS: usize = 8;
/// How soon Secrets are read again that the API server did not give.
const AGAIN: Duration = Duration::from_secs(2);
/// How often a fleet hears of hashes that are made one after another.
const TELL: Duration = Duration::from_secs(1);
/// Releases of Helm are Secrets as well, each up to a mebibyte, and no device's password.
const NO_RELEASES: &str = "type!=helm.sh/release.v1";

/// A password to be hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Whose.
    pub device: String,
    /// The Secret.
    pub secret: String,
    /// The key in it.
    pub key: String,
    /// The credential of before, which stays where its password is the same.
    pub old: Option<String>,
}

/// Why a Secret gives no password. The message says what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is no such Secret.
    #[error("there is no Secret {0:?} in this namespace; create it, or name another")]
    Missing(String),
    /// It lacks the key.
    #[error("Secret {secret:?} has no key {key:?} ({}); write one that it has, or add it", has(.there))]
    NoKey {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
        /// The keys that it has.
        there: Vec<String>,
    },
    /// The value can be no password.
    #[error("key {key:?} of Secret {secret:?}: {why}")]
    Unusable {
        /// The Secret.
        secret: String,
        /// The key.
        key: String,
        /// What is wrong, and what to write.
        why: String,
    },
}

fn has(keys: &[String]) -> String {
    if keys.is_empty() { "it is empty".to_owned() } else { format!("it has {}", keys.join(", ")) }
}

/// What came of a password, and of which source.
pub type Made = (String, Result<String, Trouble>);

/// A fleet: namespace and name.
pub type Fleet = (String, String);

/// Takes what came of passwords, by device.
pub type Sink = dyn Fn(&Fleet, Vec<(String, Made)>) + Send + Sync;

/// What was read of one Secret, and for whom.
type Answer = (Vec<(Fleet, Need)>, Option<Secret>);

/// Reads and hashes.
pub struct Passwords {
    secrets: Arc<Secrets>,
    threads: Arc<Semaphore>,
    queue: Mutex<Queue>,
    sink: Box<Sink>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Fleet, Need)>,
    works: bool,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").finish_non_exhaustive()
    }
}

impl Passwords {
    /// Hashes on half of the machine's cores.
    pub fn new(secrets: Arc<Secrets>, sink: Box<Sink>) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = Arc::new(Semaphore::new((cores / 2).max(1)));
        Arc::new(Self { secrets, threads, queue: Mutex::default(), sink })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for credentials. Each device is asked for once at a time.
    pub fn ask(self: &Arc<Self>, context: &Arc<Context>, fleet: &Fleet, needs: Vec<Need>) {
        if needs.is_empty() {
            return;
        }
        let mut queue = self.queue();
        queue.waiting.extend(needs.into_iter().map(|need| (fleet.clone(), need)));
        if !std::mem::replace(&mut queue.works, true) {
            tokio::spawn(Arc::clone(self).work(Arc::clone(context)));
        }
    }

    async fn work(self: Arc<Self>, context: Arc<Context>) {
        loop {
            let waiting = {
                let mut queue = self.queue();
                let waiting = std::mem::take(&mut queue.waiting);
                queue.works = !waiting.is_empty();
                waiting
            };
            if waiting.is_empty() {
                return;
            }
            let mut places: HashMap<String, Vec<(Fleet, Need)>> = HashMap::new();
            for (fleet, need) in waiting {
                places.entry(fleet.0.clone()).or_default().push((fleet, need));
            }
            let mut failed = Vec::new();
            for (namespace, needs) in places {
                failed.extend(self.read(&context, &namespace, needs).await);
            }
            if !failed.is_empty() {
                tokio::time::sleep(AGAIN).await;
                self.queue().waiting.extend(failed);
            }
        }
    }

    /// Reads the Secrets of one namespace; those that the API server did not give.
    async fn read(
        self: &Arc<Self>,
        context: &Arc<Context>,
        namespace: &str,
        needs: Vec<(Fleet, Need)>,
    ) -> Vec<(Fleet, Need)> {
        let mut wanted: HashMap<String, Vec<(Fleet, Need)>> = HashMap::new();
        for (fleet, need) in needs {
            wanted.entry(need.secret.clone()).or_default().push((fleet, need));
        }
        let api = context.api::<Secret>(namespace);
        if pays(wanted.len(), self.secrets.count(namespace)) {
            let mut page = ListParams::default().limit(PAGE).fields(NO_RELEASES);
            loop {
                let list = match api.list(&page).await {
                    Ok(list) => list,
                    Err(error) => {
                        tracing::warn!(
                            namespace,
                            error = chain(&error),
                            "Secrets of devices cannot be listed"
                        );
                        return wanted.into_values().flatten().collect();
                    }
                };
                let next = list.metadata.continue_.filter(|next| !next.is_empty());
                let found: Vec<_> = list
                    .items
                    .into_iter()
                    .filter_map(|secret| Some((wanted.remove(&secret.name_any())?, Some(secret))))
                    .collect();
                self.found(namespace, found).await;
                match next {
                    Some(next) if !wanted.is_empty() => page.continue_token = Some(next),
                    _ => break,
                }
            }
        }
        // Also those that are no longer in a list: one that is gone is told by an answer, not by silence.
        let mut failed = Vec::new();
        let mut reads = stream::iter(wanted.into_iter().map(|(name, needs)| {
            let api = api.clone();
            async move { (api.get_opt(&name).await, needs) }
        }))
        .buffer_unordered(READS)
        .ready_chunks(PAGE as usize);
        while let Some(answers) = reads.next().await {
            let mut found = Vec::new();
            for (answer, needs) in answers {
                match answer {
                    Ok(secret) => found.push((needs, secret)),
                    Err(error) => {
                        tracing::warn!(namespace, error = chain(&error), "a device's Secret cannot be read");
                        failed.extend(needs);
                    }
                }
            }
            self.found(namespace, found).await;
        }
        failed
    }

    /// Hashes what was read: what takes no time at once, the rest by and by.
    async fn found(self: &Arc<Self>, namespace: &str, found: Vec<Answer>) {
        let (mut ready, mut slow) = (Vec::new(), HashMap::<Fleet, Vec<Job>>::new());
        for (needs, secret) in found {
            let version = secret.as_ref().and_then(|secret| Version::of(&secret.metadata));
            if let Some((_, need)) = needs.first() {
                self.secrets.saw(namespace, &need.secret, version);
            }
            for (fleet, need) in needs {
                let source = version.map(|version| version.source(&need.key)).unwrap_or_default();
                match password(secret.as_ref(), &need) {
                    Err(trouble) => ready.push((fleet, (need.device, (source, Err(trouble))))),
                    Ok(password) => {
                        slow.entry(fleet).or_default().push(Job { need, password, source });
                    }
                }
            }
        }
        let hashed = tokio::task::spawn_blocking(move || {
            for (fleet, jobs) in &mut slow {
                for job in jobs.extract_if(.., |job| is_machine_made(&job.password)) {
                    ready.push((fleet.clone(), job.hash(&mut Memory::default())));
                }
            }
            (ready, slow)
        });
        let Ok((ready, slow)) = hashed.await else { return };
        let mut told: HashMap<Fleet, Vec<_>> = HashMap::new();
        for (fleet, made) in ready {
            told.entry(fleet).or_default().push(made);
        }
        for (fleet, made) in told {
            (self.sink)(&fleet, made);
        }
        for (fleet, jobs) in slow.into_iter().filter(|(_, jobs)| !jobs.is_empty()) {
            tokio::spawn(Arc::clone(self).by_and_by(fleet, jobs));
        }
    }

    /// Hashes a fleet's passwords one after another, in turns with other fleets.
    async fn by_and_by(self: Arc<Self>, fleet: Fleet, jobs: Vec<Job>) {
        let (mut made, mut told) = (Vec::new(), Instant::now());
        for job in jobs {
            let Ok(permit) = Arc::clone(&self.threads).acquire_owned().await else { return };
            let hashed = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                job.hash(&mut Memory::default())
            });
            made.extend(hashed.await.ok());
            if told.elapsed() >= TELL {
                told = Instant::now();
                (self.sink)(&fleet, std::mem::take(&mut made));
            }
        }
        (self.sink)(&fleet, made);
    }
}

/// Whether a list of a namespace's Secrets takes fewer requests than reading so many.
fn pays(wanted: usize, there: usize) -> bool {
    wanted > 32 + 2 * (there / PAGE as usize)
}

/// The password that a Secret holds.
fn password(secret: Option<&Secret>, need: &Need) -> Result<Vec<u8>, Trouble> {
    let (name, key) = (need.secret.clone(), need.key.clone());
    let Some(secret) = secret else { return Err(Trouble::Missing(name)) };
    let there = || secret.data.iter().flatten().map(|(key, _)| format!("{key:?}")).collect();
    let Some(value) = secret.data.as_ref().and_then(|data| data.get(&need.key)) else {
        return Err(Trouble::NoKey { secret: name, key, there: there() });
    };
    // Files and `echo` end with one, and no device sends it.
    let end = value.0.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    let password = &value.0[..end];
    match check_password(password) {
        Ok(()) => Ok(password.to_vec()),
        Err(error) => {
            let why = format!("{error}; write one of 1 to 1024 bytes");
            Err(Trouble::Unusable { secret: name, key, why })
        }
    }
}

/// One password to be hashed.
struct Job {
    need: Need,
    password: Vec<u8>,
    source: String,
}

impl Job {
    /// The old credential where it is for the same password: nobody is disconnected because a Secret got a label.
    fn hash(self, memory: &mut Memory) -> (String, Made) {
        let Self { need: Need { device, secret, key, old }, password, source } = self;
        let same = |text: &String| {
            let credential = Credential::parse(text).ok().filter(|old| old.is_for(&password));
            credential.is_some_and(|old| old.verify(&password, memory))
        };
        let made = match old.filter(same) {
            Some(old) => Ok(old),
            None => Credential::new(&password, rand::random())
                .map(|new| new.to_string())
                .map_err(|error| Trouble::Unusable { secret, key, why: error.to_string() }),
        };
        (device, (source, made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::samples::secret;

    fn need() -> Need {
        Need { device: "d".to_owned(), secret: "s".to_owned(), key: "password".to_owned(), old: None }
    }

    fn told(secret: Option<&Secret>) -> String {
        password(secret, &need()).unwrap_err().to_string()
    }

    #[test]
    fn a_password_is_taken_without_the_line_break_that_files_end_with() {
        for (value, wanted) in [
            (&b"secret"[..], &b"secret"[..]),
            (b"secret\n", b"secret"),
            (b"sec\nret \r\n\n", b"sec\nret "),
            (b"\xff\xfe", b"\xff\xfe"),
        ] {
            assert_eq!(password(Some(&secret("password", value)), &need()).unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_no_password_is_told_with_what_to_write() {
        assert_eq!(told(None), "there is no Secret \"s\" in this namespace; create it, or name another");
        assert!(told(Some(&secret("pass", b"x"))).contains("has no key \"password\" (it has \"pass\")"));
        assert!(told(Some(&Secret::default())).contains("(it is empty)"));
        assert!(told(Some(&secret("password", b"\r\n"))).contains("the password is empty"));
        let long = vec![b'x'; 1025];
        assert!(told(Some(&secret("password", &long))).contains("at most 1024 bytes, this one has 1025"));
    }

    #[test]
    fn a_credential_stays_while_the_password_is_the_same() {
        let hash = |password: &[u8], old: Option<String>| {
            let need = Need { old, ..need() };
            let job = Job { need, password: password.to_vec(), source: "v".to_owned() };
            job.hash(&mut Memory::default()).1.1.unwrap()
        };
        let machine = b"0123456789abcdef0123456789abcdef";
        for password in [&b"secret"[..], machine] {
            let first = hash(password, None);
            assert_eq!(hash(password, Some(first.clone())), first);
            assert_ne!(hash(password, None), first, "another salt");
            assert_ne!(hash(b"another", Some(first.clone())), first);
            assert_ne!(hash(password, Some("broken".to_owned())), first);
        }
    }

    #[test]
    fn many_are_listed_and_few_are_read() {
        assert!(!pays(1, 0) && !pays(256, 100_000) && !pays(32, 100));
        assert!(pays(256, 256) && pays(100_000, 100_000) && pays(1000, 100_000));
    }
}

//! Passwords against hashes: costly ones on few threads of their own, and remembered when they were right. IO: blocking
//! threads.

use super::table::Table;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tidegate_contract::credential::{Credential, Memory};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// So many passwords wait for their turn at most, and none longer than this: then its device has lost patience, or a process
/// that has little of the processor would keep those that come now waiting for those that came long ago.
const WAITING: usize = 256;
const PATIENCE: Duration = Duration::from_secs(20);
/// So many right passwords are remembered: half a megabyte.
const REMEMBERED: usize = 16 << 10;

/// Verifies passwords. Half of the processor's cores at most, and memory for as many at a time.
pub(super) struct Verifier {
    turns: Arc<Semaphore>,
    most: usize,
    waiting: AtomicUsize,
    memory: Arc<Mutex<Vec<Memory>>>,
}

impl Default for Verifier {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new((cores / 2).clamp(1, 4), WAITING)
    }
}

/// A place among those who wait.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Verifier {
    fn new(turns: usize, most: usize) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(turns)),
            most,
            waiting: AtomicUsize::new(0),
            memory: Arc::default(),
        }
    }

    /// Verifies a password when its turn comes; nothing: too many wait, or its turn did not come in time.
    pub(super) async fn verify(&self, credential: Credential, password: &[u8]) -> Option<bool> {
        let waiting = Waiting(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.most {
            return None;
        }
        let turn = timeout(PATIENCE, Arc::clone(&self.turns).acquire_owned()).await.ok()?.ok()?;
        drop(waiting);
        let (password, memory) = (password.to_vec(), Arc::clone(&self.memory));
        let verify = move || {
            let take = || memory.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut own = take().unwrap_or_default();
            let right = credential.verify(&password, &mut own);
            memory.lock().unwrap_or_else(PoisonError::into_inner).push(own);
            // not before, even if the device has gone meanwhile
            drop(turn);
            right
        };
        tokio::task::spawn_blocking(verify).await.ok()
    }
}

/// Right passwords, by a hash under a key of this process: a device that comes again costs a microsecond. A changed
/// credential is another one, so nothing has to be forgotten.
pub(super) struct Remembered {
    key: [u8; 32],
    table: Table<u128>,
}

impl Default for Remembered {
    fn default() -> Self {
        Self { key: rand::random(), table: Table::new(REMEMBERED) }
    }
}

impl Remembered {
    pub(super) fn contains(&self, credential: &Credential, password: &[u8]) -> bool {
        let fingerprint = credential.fingerprint(&self.key, password);
        // nothing is remembered as 0
        self.table.get(fingerprint) == fingerprint && fingerprint != 0
    }

    pub(super) fn insert(&self, credential: &Credential, password: &[u8]) {
        let fingerprint = credential.fingerprint(&self.key, password);
        self.table.change(fingerprint, |found| *found = fingerprint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn more_passwords_than_can_be_verified_in_time_are_not_waited_for() {
        let credential = Credential::new(b"secret", [7; 16]).unwrap();
        let verifier = Verifier::new(1, 3);
        let tries =
            (0..8).map(|number| verifier.verify(credential, if number == 0 { b"secret" } else { b"Secret" }));
        let answers = futures::future::join_all(tries).await;
        // one has its turn at once, three wait
        let expected = [Some(true), Some(false), Some(false), Some(false), None, None, None, None];
        assert_eq!(answers, expected);
        assert_eq!(verifier.waiting.load(Ordering::Acquire), 0);
        assert_eq!(verifier.verify(credential, b"secret").await, Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_password_whose_turn_does_not_come_in_time_is_not_verified() {
        let credential = Credential::new(b"secret", [7; 16]).unwrap();
        let verifier = Verifier::new(1, 3);
        let busy = Arc::clone(&verifier.turns).acquire_owned().await.unwrap();
        assert_eq!(verifier.verify(credential, b"secret").await, None);
        assert_eq!(verifier.waiting.load(Ordering::Acquire), 0);
        drop(busy);
        assert_eq!(verifier.verify(credential, b"secret").await, Some(true));
    }

    #[test]
    fn what_is_remembered_is_a_credential_with_its_password() {
        let (remembered, credential) = (Remembered::default(), Credential::new(b"secret", [7; 16]).unwrap());
        remembered.insert(&credential, b"secret");
        assert!(remembered.contains(&credential, b"secret"));
        assert!(!remembered.contains(&credential, b"Secret"));
        assert!(!remembered.contains(&Credential::new(b"secret", [8; 16]).unwrap(), b"secret"));
        assert!(!Remembered::default().contains(&credential, b"secret"));
    }
}

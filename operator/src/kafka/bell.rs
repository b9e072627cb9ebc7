//! Tells controllers which objects deserve a pass because of something outside Kubernetes. No IO.

use futures::Stream;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{Lookup, ObjectRef};
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

#[derive(Default)]
struct Listener {
    waiting: Mutex<BTreeSet<(String, String)>>,
    notify: Notify,
}

/// Rings for objects of one kind. A ring is never lost and never piles up: an object waits at most once.
pub struct Bell<K> {
    listeners: Mutex<Vec<Arc<Listener>>>,
    kind: PhantomData<fn() -> K>,
}

impl<K> Default for Bell<K> {
    fn default() -> Self {
        Self { listeners: Mutex::default(), kind: PhantomData }
    }
}

impl<K> Bell<K>
where
    DeserializeGuard<K>: Lookup<DynamicType = ()>,
{
    /// Asks for a pass over one object.
    pub fn ring(&self, namespace: &str, name: &str) {
        for listener in self.listeners.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let mut waiting = listener.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.insert((namespace.to_owned(), name.to_owned()));
            drop(waiting);
            listener.notify.notify_one();
        }
    }

    /// The objects that were rung for, from now on.
    pub fn listen(&self) -> impl Stream<Item = ObjectRef<DeserializeGuard<K>>> + Send + use<K> {
        let listener = Arc::new(Listener::default());
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&listener));
        futures::stream::unfold(listener, |listener| async move {
            loop {
                let next = listener.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_first();
                if let Some((namespace, name)) = next {
                    return Some((ObjectRef::new(&name).within(&namespace), listener));
                }
                listener.notify.notified().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;
    use tidegate_crds::Topic;

    #[tokio::test]
    async fn an_object_that_is_rung_for_twice_comes_once() {
        let bell = Bell::<Topic>::default();
        let mut heard = Box::pin(bell.listen());
        for name in ["b", "a", "b"] {
            bell.ring("plant", name);
        }
        let mut names = Vec::new();
        for _ in 0..2 {
            names.push(heard.next().await.unwrap().name);
        }
        assert_eq!(names, ["a", "b"]);
        assert!(futures::poll!(heard.next()).is_pending());
        bell.ring("plant", "c");
        assert_eq!(heard.next().await.unwrap().name, "c");
    }
}

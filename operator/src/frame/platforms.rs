//! The platforms that gateways and Topics refer to, kept as they are watched: a pass over one of thousands reads its platform
//! without a request, and only what is news for it brings a pass. IO: the watch, and a read where it tells nothing.

use super::context::{Context, Scope};
use super::driver;
use super::failure::ReadError;
use super::malformed::{self, Malformed};
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use kube::Resource as _;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, ObjectRef, Store, reflector};
use kube::runtime::{WatchStreamExt as _, watcher};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use tidegate_crds::IoTPlatform;

/// A platform as it is watched.
pub type Guarded = DeserializeGuard<IoTPlatform>;

/// All platforms, from all watches of one controller.
#[derive(Default)]
pub struct Platforms(Mutex<Vec<Store<Guarded>>>);

impl Platforms {
    /// Watches platforms: those that came, went, or of which `part` is another than before. A platform's status changes with
    /// everything that is attached to it, and most of that is no news for the rest.
    pub fn watch<T>(
        &self,
        scope: &Scope,
        part: fn(&Guarded) -> T,
    ) -> impl Stream<Item = ObjectRef<Guarded>> + Send + use<T>
    where
        T: PartialEq + Send + 'static,
    {
        let (store, writer) = reflector::store();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(store.clone());
        let events = watcher(scope.api::<Guarded>(), watcher::Config::default()).default_backoff();
        let mut news = News { seen: HashMap::new(), part };
        reflector(writer, events)
            .filter_map(|event| async { event.ok() })
            .flat_map(move |event| stream::iter(news.of(&event, &store)))
    }

    /// The platform of this name; nothing where there is none.
    pub async fn read(
        &self,
        context: &Context,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Result<IoTPlatform, Malformed>>, ReadError> {
        match self.find(namespace, name) {
            Ok(None) => return Ok(None),
            Ok(Some(found)) => {
                if let Ok(platform) = &found.0 {
                    return Ok(Some(Ok(platform.clone())));
                }
            }
            Err(Unlisted) => {}
        }
        // The watch has not begun, or does not say which field does not fit.
        malformed::read::<IoTPlatform>(context, namespace, name).await
    }

    /// Whether the platform of this name is not there, or will not be.
    pub async fn is_going(&self, context: &Context, namespace: &str, name: &str) -> Result<bool, ReadError> {
        let found = match self.find(namespace, name) {
            Ok(found) => found,
            Err(Unlisted) => driver::read::<Guarded>(context, namespace, name).await?.map(Arc::new),
        };
        Ok(found.is_none_or(|platform| platform.meta().deletion_timestamp.is_some()))
    }

    /// The platform of this name, if there is one.
    fn find(&self, namespace: &str, name: &str) -> Result<Option<Arc<Guarded>>, Unlisted> {
        let stores = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let listed =
            |store: &Store<Guarded>| store.wait_until_ready().now_or_never().is_some_and(|done| done.is_ok());
        let reference = ObjectRef::new(name).within(namespace);
        if stores.is_empty() || !stores.iter().all(listed) {
            return Err(Unlisted);
        }
        Ok(stores.iter().find_map(|store| store.get(&reference)))
    }
}

/// Not all platforms are known yet.
struct Unlisted;

impl fmt::Debug for Platforms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Platforms").finish_non_exhaustive()
    }
}

/// What was told last of each platform.
struct News<T> {
    seen: HashMap<ObjectRef<Guarded>, T>,
    part: fn(&Guarded) -> T,
}

impl<T: PartialEq> News<T> {
    /// The platforms that an event says something new of; `store` has taken it in already.
    fn of(&mut self, event: &watcher::Event<Guarded>, store: &Store<Guarded>) -> Vec<ObjectRef<Guarded>> {
        match event {
            watcher::Event::Init | watcher::Event::InitApply(_) => Vec::new(),
            watcher::Event::Apply(platform) => self.change(platform).into_iter().collect(),
            watcher::Event::Delete(platform) => {
                let gone = ObjectRef::from_obj(platform);
                self.seen.remove(&gone);
                vec![gone]
            }
            // The list after a watch broke: what went meanwhile is told by nothing else.
            watcher::Event::InitDone => {
                let gone: Vec<_> = self.seen.keys().filter(|one| store.get(one).is_none()).cloned().collect();
                for one in &gone {
                    self.seen.remove(one);
                }
                let changed = store.state().into_iter().filter_map(|platform| self.change(&platform));
                gone.into_iter().chain(changed.collect::<Vec<_>>()).collect()
            }
        }
    }

    fn change(&mut self, platform: &Guarded) -> Option<ObjectRef<Guarded>> {
        let (reference, part) = (ObjectRef::from_obj(platform), (self.part)(platform));
        if self.seen.get(&reference) == Some(&part) {
            return None;
        }
        self.seen.insert(reference.clone(), part);
        Some(reference)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    fn platform(name: &str, generation: i64, ready: i32) -> Guarded {
        let platform = json!({
            "apiVersion": "tidegate.io/v1alpha1", "kind": "IoTPlatform",
            "metadata": {"name": name, "namespace": "iot", "uid": name, "generation": generation},
            "spec": {"kafka": {"managed": {}}}, "status": {"topics": {"ready": ready, "total": 9}},
        });
        serde_json::from_value(platform).unwrap()
    }

    #[test]
    fn what_came_went_or_is_another_is_news_and_the_rest_is_not() {
        let (store, mut writer) = reflector::store::<Guarded>();
        let mut news = News { seen: HashMap::new(), part: |platform| platform.meta().generation };
        let mut tell = |event: Event<Guarded>| {
            writer.apply_watcher_event(&event);
            let mut names: Vec<_> = news.of(&event, &store).into_iter().map(|one| one.name).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(tell(Event::Init), "");
        assert_eq!(tell(Event::InitApply(platform("a", 1, 0))), "");
        assert_eq!(tell(Event::InitApply(platform("b", 1, 0))), "");
        assert_eq!(tell(Event::InitDone), "a b");
        assert_eq!(tell(Event::Apply(platform("a", 1, 5))), "", "a count");
        assert_eq!(tell(Event::Apply(platform("a", 2, 5))), "a");
        assert_eq!(tell(Event::Delete(platform("a", 2, 5))), "a");
        assert_eq!(tell(Event::Apply(platform("a", 2, 5))), "a", "made again");
        // The watch broke; meanwhile a went, b is as it was, and c came.
        assert_eq!(tell(Event::Init), "");
        assert_eq!(tell(Event::InitApply(platform("b", 1, 3))), "");
        assert_eq!(tell(Event::InitApply(platform("c", 1, 0))), "");
        assert_eq!(tell(Event::InitDone), "a c");
    }

    #[test]
    fn a_platform_is_said_to_be_missing_only_once_all_are_known() {
        let platforms = Platforms::default();
        assert!(platforms.find("iot", "a").is_err(), "nobody watches");
        let (store, mut writer) = reflector::store::<Guarded>();
        platforms.0.lock().unwrap().push(store);
        assert!(platforms.find("iot", "a").is_err(), "nothing is listed yet");
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitApply(platform("a", 1, 0)));
        assert!(platforms.find("iot", "b").is_err(), "more may come");
        writer.apply_watcher_event(&Event::InitDone);
        assert!(platforms.find("iot", "a").is_ok_and(|found| found.is_some()));
        assert!(platforms.find("iot", "b").is_ok_and(|found| found.is_none()));
        assert!(platforms.find("other", "a").is_ok_and(|found| found.is_none()));
    }
}

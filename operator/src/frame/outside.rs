//! Watches on what may not be there: kinds that somebody else installs, objects that the operator may not be allowed to
//! see. IO: the watches themselves.

use futures::{Stream, StreamExt as _, stream};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// How soon a cluster that does not answer for a kind is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// The objects of a kind as they come, change and go, once the cluster answers for it: it is asked now and then, in
/// silence. The first item is nothing, and says that it does.
pub fn changes<K>(api: Api<K>) -> impl Stream<Item = Option<K>> + Send + 'static
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    changes_of(api, watcher::Config::default())
}

/// [`changes`], of some of the objects.
pub fn changes_of<K>(api: Api<K>, which: watcher::Config) -> impl Stream<Item = Option<K>> + Send + 'static
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let there = {
        let api = api.clone();
        async move {
            while api.list(&ListParams::default().limit(1)).await.is_err() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    };
    let events = watcher(api, which).default_backoff().touched_objects();
    let changed = events.filter_map(|event| async { event.ok() });
    stream::once(there).map(|()| None).chain(changed.map(Some))
}

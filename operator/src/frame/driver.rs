//! Runs a [`Reconciler`] over all objects of its kind. IO: watches, status, Events.

use super::backoff::{Backoff, jitter};
use super::context::{Context, Scope};
use super::cycle::{Cycle, Note};
use super::failure::{Class, Failure, ReadError, chain};
use super::malformed::{self, Malformed, fit};
use super::pace::Pace;
use futures::{StreamExt as _, future};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::core::object::HasStatus;
use kube::runtime::controller::{Action, Config};
use kube::runtime::events::Event;
use kube::runtime::reflector::{self, ObjectRef, reflector};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate_crds::conditions::{ACCEPTED, READY, RECONCILING};
use tidegate_crds::{CommonStatus, Conditions, State, labels, reasons};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// One of our kinds.
pub trait Subject:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + HasStatus<
        Status: CommonStatus
                    + Clone
                    + Default
                    + PartialEq
                    + Serialize
                    + DeserializeOwned
                    + Debug
                    + Send
                    + Sync,
    > + Clone
    + Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
}

impl<K> Subject for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + HasStatus<
            Status: CommonStatus
                        + Clone
                        + Default
                        + PartialEq
                        + Serialize
                        + DeserializeOwned
                        + Debug
                        + Send
                        + Sync,
        > + Clone
        + Debug
        + DeserializeOwned
        + Serialize
        + Send
        + Sync
        + 'static
{
}

/// The watches of a controller, to which it adds its own.
pub type Watches<S> = Controller<DeserializeGuard<S>>;

/// A controller: what is particular to one kind.
pub trait Reconciler: Send + Sync + 'static {
    /// The kind.
    type Subject: Subject;

    /// The name in logs and metrics.
    const NAME: &'static str;

    /// How many objects are worked on at a time.
    const CONCURRENCY: u16 = 8;

    /// The shortest time between two writes of an object's status; zero: each change is written at once.
    const STATUS_REST: Duration = Duration::ZERO;

    /// Adds watches: children (`controller.owns(scope.api::<Deployment>(), scope.owned())`), objects that are
    /// referred to (`watches`), outside events (`reconcile_on`).
    fn watch(&self, controller: Watches<Self::Subject>, scope: &Scope) -> Watches<Self::Subject>;

    /// One pass: fetch → validate → build → apply, then what to say in `cycle.status`. Never sleeps and never waits
    /// for readiness: "not ready yet" is said with [`Cycle::ready`], and the next event brings the next pass.
    fn reconcile(&self, cycle: &mut Cycle<Self::Subject>)
    -> impl Future<Output = Result<(), Failure>> + Send;

    /// The pass over an object that is being deleted, for kinds with finalizers. Children go with their owner.
    fn finalize(
        &self,
        _cycle: &mut Cycle<Self::Subject>,
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        future::ready(Ok(()))
    }

    /// An object is gone. Not told of those that went while nobody watched.
    fn gone(&self, _namespace: &str, _name: &str) {}
}

/// Runs a controller until `shutdown`, then lets the passes under way end.
pub async fn run<R: Reconciler>(reconciler: Arc<R>, context: Arc<Context>, shutdown: CancellationToken) {
    let all = context.scopes().into_iter().map(|scope| {
        let driver = Arc::new(Driver::new(Arc::clone(&reconciler), Arc::clone(&context)));
        run_scope(driver, scope, shutdown.clone())
    });
    future::join_all(all).await;
}

async fn run_scope<R: Reconciler>(driver: Arc<Driver<R>>, scope: Scope, shutdown: CancellationToken) {
    let (store, writer) = reflector::store();
    let watched = watcher(scope.api::<DeserializeGuard<R::Subject>>(), watcher::Config::default());
    // Who owns which field is a large part of an object with a long list, and nobody here asks.
    let watched = watched.default_backoff().modify(|object| object.meta_mut().managed_fields = None);
    let controller = Controller::for_stream(reflector(writer, watched).touched_objects(), store)
        .with_config(Config::default().debounce(Duration::from_millis(100)).concurrency(R::CONCURRENCY))
        .graceful_shutdown_on(shutdown.cancelled_owned());
    driver.context.metrics.conditions().add(controller.store());
    driver
        .reconciler
        .watch(controller, &scope)
        .run(
            |object, driver| async move {
                {
                    let wait = driver.pass(object).await;
                    Ok::<_, Infallible>(wait.map_or_else(Action::await_change, Action::requeue))
                }
            },
            |_, error: &Infallible, _| match *error {},
            Arc::clone(&driver),
        )
        .for_each(move |result| {
            if let Err(error) = result {
                // A watch that broke is taken up again with backoff by itself; an object that is gone needs no pass.
                match error {
                    kube::runtime::controller::Error::ObjectNotFound(gone) => {
                        if scope.covers(gone.namespace.as_deref()) {
                            driver.gone(&gone);
                        }
                    }
                    other => tracing::warn!(controller = R::NAME, error = chain(&other), "a watch failed"),
                }
            }
            future::ready(())
        })
        .await;
}

/// One controller at work.
pub struct Driver<R> {
    /// What is particular to the kind.
    pub reconciler: Arc<R>,
    /// What all controllers share.
    pub context: Arc<Context>,
    /// How often each object failed.
    failures: Backoff<(String, String)>,
    /// How often each object was looked at again and found as it was.
    looks: Backoff<(String, String)>,
    /// When each object's status may be written.
    pace: Pace<(String, String)>,
}

/// How a pass ended.
struct End {
    failure: Option<Failure>,
    /// Whether the status said the same before.
    known: bool,
    requeue: Option<Duration>,
    /// Whether the object is to be looked at again soon: `Some(true)` where the status is as it was.
    look_again: Option<bool>,
}

impl<R: Reconciler> Driver<R> {
    /// A controller that has done nothing yet.
    pub fn new(reconciler: Arc<R>, context: Arc<Context>) -> Self {
        let (failures, looks) = (Backoff::default(), Backoff::default());
        Self { reconciler, context, failures, looks, pace: Pace::new(R::STATUS_REST) }
    }

    fn gone<K: reflector::Lookup>(&self, object: &ObjectRef<K>) {
        let namespace = object.namespace.clone().unwrap_or_default();
        self.reconciler.gone(&namespace, &object.name);
        self.pace.forget(&(namespace, object.name.clone()));
    }

    /// One pass over one object, whatever state it is in. Says when to come back at the latest; nothing: only when it
    /// changes.
    pub async fn pass(&self, object: Arc<DeserializeGuard<R::Subject>>) -> Option<Duration> {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        let span = tracing::info_span!("reconcile", controller = R::NAME, namespace, name);
        let began = Instant::now();
        let end = async {
            let end = match &object.0 {
                Ok(subject) => self.subject(Arc::new(subject.clone())).await,
                Err(error) => self.malformed(&namespace, &name, &error.error).await,
            };
            if let Some(failure) = &end.failure {
                self.context.metrics.failure(R::NAME, failure.reason);
                // What is in the status already has been logged before.
                if end.known {
                    tracing::debug!(reason = failure.reason, class = ?failure.class, "{}", failure.message);
                } else {
                    tracing::warn!(reason = failure.reason, class = ?failure.class, "{}", failure.message);
                }
            }
            end
        }
        .instrument(span)
        .await;
        self.context.metrics.pass(R::NAME, began.elapsed());
        let key = (namespace, name);
        if end.look_again != Some(true) {
            self.looks.reset(&key);
        }
        match end.failure.map(|failure| failure.class) {
            None => {
                self.failures.reset(&key);
                let look = end.look_again.map(|_| self.looks.again(key, self.context.options.look_again));
                let soon = end.requeue.into_iter().chain(look).min();
                Some(soon.unwrap_or_else(|| jitter(self.context.options.resync)))
            }
            Some(Class::Invalid | Class::Leaving) => {
                self.failures.reset(&key);
                end.requeue
            }
            Some(Class::Transient | Class::Blocked) => {
                end.requeue.into_iter().chain([self.failures.failed(key)]).min()
            }
        }
    }

    async fn subject(&self, subject: Arc<R::Subject>) -> End {
        let mut cycle = Cycle::new(Arc::clone(&subject), Arc::clone(&self.context));
        let deleting = subject.meta().deletion_timestamp.is_some();
        let result = if deleting {
            self.reconciler.finalize(&mut cycle).await
        } else {
            self.reconciler.reconcile(&mut cycle).await
        };
        if let Err(Failure { class: Class::Leaving, message, .. }) = &result {
            tracing::debug!("{message}");
            return End { failure: None, known: true, requeue: None, look_again: None };
        }
        cycle.conclude(&result);
        if deleting {
            cycle.ready(State::False, reasons::DELETING, "it is being deleted");
        }
        let mut failure = result.err();
        if let Err(wait) = self.may_write(&cycle) {
            cycle.requeue_after(wait);
            return End { known: true, failure, requeue: cycle.requeue(), look_again: None };
        }
        match self.write_status(&cycle).await {
            Ok(()) => self.publish(&cycle, failure.as_ref()).await,
            // The last finalizer may be gone, and the object with it.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => {
                let what = format!("the status of {}", ObjectRef::from_obj(&*subject));
                failure = failure.or_else(|| Some(StatusError { what, source }.into()));
            }
        }
        let before = subject.status().map(CommonStatus::conditions);
        let told = |failure: &Failure| {
            before.is_some_and(|all| {
                all.iter().any(|one| one.reason == failure.reason && one.message == failure.message)
            })
        };
        let look_again = cycle.looks_again().then(|| subject.status() == Some(&cycle.status));
        End { known: failure.as_ref().is_some_and(told), failure, requeue: cycle.requeue(), look_again }
    }

    /// Whether the status may be written now, else how long to wait: the pass after that says what holds then.
    fn may_write(&self, cycle: &Cycle<R::Subject>) -> Result<(), Duration> {
        let key = (cycle.namespace(), cycle.name());
        if cycle.subject.status() == Some(&cycle.status) {
            self.pace.quiet(&key);
            return Ok(());
        }
        let settled = !cycle.status.conditions().is_true(RECONCILING);
        self.pace.ask(&key, Instant::now(), settled)
    }

    /// Writes the status as it shall be, if it differs from what is there.
    async fn write_status(&self, cycle: &Cycle<R::Subject>) -> Result<(), kube::Error> {
        if cycle.subject.status() == Some(&cycle.status) {
            return Ok(());
        }
        let status = serde_json::to_value(&cycle.status).map_err(kube::Error::SerdeError)?;
        self.patch_status(&cycle.namespace(), &cycle.name(), cycle.subject.meta().uid.as_deref(), status)
            .await
    }

    async fn patch_status(
        &self,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        mut status: Value,
    ) -> Result<(), kube::Error> {
        remove_empty(&mut status);
        let patch = json!({
            "apiVersion": R::Subject::api_version(&()), "kind": R::Subject::kind(&()),
            // With the uid, an object that was deleted and made again is not told about its predecessor.
            "metadata": {"name": name, "namespace": namespace, "uid": uid}, "status": status,
        });
        let params = PatchParams::apply(labels::STATUS_MANAGER).force();
        self.raw_api(namespace).patch_status(name, &params, &Patch::Apply(patch)).await.map(drop)
    }

    fn raw_api(&self, namespace: &str) -> Api<DynamicObject> {
        let resource = ApiResource::erase::<R::Subject>(&());
        Api::namespaced_with(self.context.client.clone(), namespace, &resource)
    }

    /// The status of an object that does not fit our types: written by an older or newer version, or past the schema.
    async fn malformed(&self, namespace: &str, name: &str, error: &str) -> End {
        let api = self.raw_api(namespace);
        let raw = api.get_opt(name).await;
        // Read again: a watch's error does not say which field it is.
        let found = raw.as_ref().ok().and_then(Option::as_ref).and_then(|raw| fit::<R::Subject>(raw).err());
        let message =
            found.unwrap_or_else(|| Malformed::new::<R::Subject>(namespace, name, error)).to_string();
        let failure = Failure {
            class: Class::Invalid,
            reason: reasons::MALFORMED,
            condition: Some(ACCEPTED),
            message: message.clone(),
        };
        let written = async {
            let Some(raw) = raw? else { return Ok(()) };
            let old = raw.data.get("status").cloned().unwrap_or_default();
            let mut status: <R::Subject as HasStatus>::Status =
                serde_json::from_value(old.clone()).unwrap_or_default();
            let now = (self.context.clock)();
            let generation = raw.metadata.generation;
            let conditions: &mut Conditions = status.conditions_mut();
            for (type_, state) in malformed::SAYS {
                conditions.set(now, generation, type_, state, reasons::MALFORMED, message.as_str());
            }
            status.observe(generation);
            let new = serde_json::to_value(&status).map_err(kube::Error::SerdeError)?;
            if new == old {
                return Ok(());
            }
            self.patch_status(namespace, name, raw.metadata.uid.as_deref(), new).await
        };
        match written.await {
            Ok(()) => End { failure: Some(failure), known: false, requeue: None, look_again: None },
            Err(source) => {
                let what = format!("the status of {} {namespace}/{name}", R::Subject::kind(&()));
                End {
                    failure: Some(StatusError { what, source }.into()),
                    known: false,
                    requeue: None,
                    look_again: None,
                }
            }
        }
    }

    /// Publishes the pass's Events: what the controller noted, a failure, a flip of `Ready`. Best effort.
    async fn publish(&self, cycle: &Cycle<R::Subject>, failure: Option<&Failure>) {
        let mut notes = cycle.notes().to_vec();
        let old = cycle.subject.status().and_then(|status| status.conditions().get(READY).cloned());
        let new = cycle.status.conditions().get(READY);
        let flipped = match (&old, new) {
            (Some(old), Some(new)) => {
                old.status != new.status || (new.status != "True" && old.reason != new.reason)
            }
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if let Some(failure) = failure {
            let (reason, text) = (failure.reason, failure.message.clone());
            notes.push(Note { warning: true, reason, text, pod: None });
        } else if let (true, Some(new), Some(reason)) = (flipped, new, new.map(|new| new.reason.clone())) {
            let warning = new.status == "False" && !cycle.status.conditions().is_true(RECONCILING);
            let text =
                if new.message.is_empty() { format!("Ready is {}", new.status) } else { new.message.clone() };
            self.send(cycle, warning, reason, text, None).await;
        }
        for note in notes {
            self.send(cycle, note.warning, note.reason.to_owned(), note.text, note.pod).await;
        }
    }

    async fn send(
        &self,
        cycle: &Cycle<R::Subject>,
        warning: bool,
        reason: String,
        mut text: String,
        pod: Option<String>,
    ) {
        // The API server takes at most 1 KiB.
        if text.len() > 1000 {
            text = text.chars().take(250).collect::<String>() + "…";
        }
        let type_ = if warning {
            kube::runtime::events::EventType::Warning
        } else {
            kube::runtime::events::EventType::Normal
        };
        let secondary = pod.map(|name| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(name),
            namespace: Some(cycle.namespace()),
            ..ObjectReference::default()
        });
        let event = Event { type_, reason, note: Some(text), action: "Reconcile".to_owned(), secondary };
        let reference: ObjectReference = cycle.subject.object_ref(&());
        if let Err(error) = self.context.recorder.publish(&event, &reference).await {
            tracing::debug!(error = chain(&error), "an Event was not taken");
        }
    }
}

/// Takes out objects without fields: where the last field of one is given up, server-side apply leaves a `null`, which
/// the schema refuses.
fn remove_empty(value: &mut Value) {
    if let Value::Object(map) = value {
        map.values_mut().for_each(remove_empty);
        map.retain(|_, value| !value.as_object().is_some_and(serde_json::Map::is_empty));
    }
}

/// A status that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {what}")]
struct StatusError {
    what: String,
    source: kube::Error,
}

impl super::failure::StepError for StatusError {
    fn reason(&self) -> &'static str {
        super::failure::api_reason(&self.source)
    }

    fn class(&self) -> Class {
        super::failure::api_class(&self.source)
    }
}

/// Reads one object of the namespace that a pass needs; nothing where there is none.
pub async fn read<K>(context: &Context, namespace: &str, name: &str) -> Result<Option<K>, ReadError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    context
        .api::<K>(namespace)
        .get_opt(name)
        .await
        .map_err(|source| ReadError { what: format!("{} {namespace}/{name}", K::kind(&())), source })
}

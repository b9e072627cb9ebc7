//! One pass over one object: what a controller reads, wants, and says. IO only through [`Cycle::apply`].

use super::apply::{self, Applied, ApplyError, Owner};
use super::children::Children;
use super::context::Context;
use super::driver::Subject;
use super::failure::{Class, Failure};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::events::EventType;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tidegate_crds::conditions::{ACCEPTED, READY, RECONCILING, RESOLVED_REFS, STALLED};
use tidegate_crds::{CommonStatus as _, State, labels, reasons};

/// Something worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether it is a Warning.
    pub warning: bool,
    /// A constant of [`reasons`].
    pub reason: &'static str,
    /// For people.
    pub text: String,
    /// The pod that it is about: Events of one reason about different pods are told apart, others only counted.
    pub pod: Option<String>,
}

impl Note {
    /// As the recorder wants it.
    pub const fn kind(&self) -> EventType {
        if self.warning { EventType::Warning } else { EventType::Normal }
    }
}

/// One pass over one object.
pub struct Cycle<S: Subject> {
    /// The object as it was when the pass began.
    pub subject: Arc<S>,
    /// What all controllers share.
    pub context: Arc<Context>,
    /// The status to be written: starts as it is, so that conditions merge. Everything else must be set anew in each
    /// pass, because the whole of it is the intent.
    pub status: S::Status,
    now: Timestamp,
    requeue: Option<Duration>,
    look_again: bool,
    notes: Vec<Note>,
    said: BTreeSet<String>,
}

impl<S: Subject> Cycle<S> {
    /// Begins a pass.
    pub fn new(subject: Arc<S>, context: Arc<Context>) -> Self {
        let status = subject.status().cloned().unwrap_or_default();
        let now = (context.clock)();
        Self {
            subject,
            context,
            status,
            now,
            requeue: None,
            look_again: false,
            notes: Vec::new(),
            said: BTreeSet::new(),
        }
    }

    /// The object's name.
    pub fn name(&self) -> String {
        self.subject.name_any()
    }

    /// The object's namespace.
    pub fn namespace(&self) -> String {
        self.subject.namespace().unwrap_or_default()
    }

    /// The time of this pass, for transition times and certificates.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Whether `tidegate.io/paused: "true"` stops all writes but status. [`Cycle::apply`] honours it by itself;
    /// writes to anything else must ask.
    pub fn paused(&self) -> bool {
        labels::is_true(self.subject.annotations().get(labels::PAUSED))
    }

    /// Brings the children to what is wanted: applies each, then removes what is no longer built. Does nothing while
    /// paused, and then returns no object.
    pub async fn apply(&mut self, children: &Children) -> Result<Applied, ApplyError> {
        let applied = match self.owner() {
            Some(owner) if !self.paused() => apply::apply(&self.context, &owner, children).await?,
            _ => Applied::default(),
        };
        for text in &applied.removed {
            self.note(true, reasons::FOREIGN_REMOVED, text.as_str());
        }
        Ok(applied)
    }

    /// The owner of this object's children.
    pub fn owner(&self) -> Option<Owner> {
        Owner::of(&*self.subject)
    }

    /// Sets one condition.
    pub fn set(&mut self, type_: &str, state: State, reason: &str, message: impl Into<String>) {
        let generation = self.subject.meta().generation;
        self.said.insert(type_.to_owned());
        self.status.conditions_mut().set(self.now, generation, type_, state, reason, message);
    }

    /// Says whether it works as declared. Without a word of this, a pass that succeeds means ready.
    pub fn ready(&mut self, state: State, reason: &str, message: impl Into<String>) {
        self.set(READY, state, reason, message);
    }

    /// Says that a change is being carried out, and which. Without a word of this nothing is.
    pub fn progressing(&mut self, reason: &str, message: impl Into<String>) {
        self.set(RECONCILING, State::True, reason, message);
    }

    /// Publishes an Event at the end of the pass, best effort.
    pub fn note(&mut self, warning: bool, reason: &'static str, text: impl Into<String>) {
        self.notes.push(Note { warning, reason, text: text.into(), pod: None });
    }

    /// Publishes an Event about one pod of this object, best effort.
    pub fn note_pod(&mut self, reason: &'static str, pod: &str, text: impl Into<String>) {
        let pod = Some(pod.to_owned());
        self.notes.push(Note { warning: false, reason, text: text.into(), pod });
    }

    /// Comes back after this time at the latest although nothing failed.
    pub fn requeue_after(&mut self, wait: Duration) {
        self.requeue = Some(self.requeue.map_or(wait, |earlier| earlier.min(wait)));
    }

    /// Comes back soon although nothing failed, for what no event tells: less often the longer the status stays as it is.
    pub fn look_again(&mut self) {
        self.look_again = true;
    }

    /// Whether [`Cycle::look_again`] was asked for.
    pub const fn looks_again(&self) -> bool {
        self.look_again
    }

    /// The shortest time that was asked for.
    pub const fn requeue(&self) -> Option<Duration> {
        self.requeue
    }

    /// The Events that were asked for.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Turns the result of the pass into conditions.
    pub fn conclude(&mut self, result: &Result<(), Failure>) {
        match result {
            Ok(()) => self.succeeded(),
            Err(failure) => self.failed(failure),
        }
        if self.paused() {
            let mut text =
                "tidegate.io/paused stops all writes but status: remove the annotation to go on".to_owned();
            let pending = self.status.conditions().get(RECONCILING);
            if let Some(pending) = pending.filter(|_| self.status.conditions().is_true(RECONCILING)) {
                text = format!("{text}; pending: {}", pending.message);
            }
            self.set(RECONCILING, State::False, reasons::PAUSED, text);
        }
        let generation = self.subject.meta().generation;
        self.status.observe(generation);
    }

    fn succeeded(&mut self) {
        // A controller may have said more about these two (a field that is accepted and not enforced).
        for (type_, reason) in [(ACCEPTED, reasons::ACCEPTED), (RESOLVED_REFS, reasons::RESOLVED_REFS)] {
            if !self.said.contains(type_) {
                self.set(type_, State::True, reason, "");
            }
        }
        if !self.said.contains(READY) {
            self.set(READY, State::True, reasons::READY, "");
        }
        if !self.said.contains(RECONCILING) {
            self.set(RECONCILING, State::False, reasons::UP_TO_DATE, "");
        }
        if !self.said.contains(STALLED) {
            self.set(STALLED, State::False, reasons::UP_TO_DATE, "");
        }
    }

    fn failed(&mut self, failure: &Failure) {
        let Failure { class, reason, condition, message } = failure;
        // What was checked before the failing step held.
        match *condition {
            Some(RESOLVED_REFS) => self.set(ACCEPTED, State::True, reasons::ACCEPTED, ""),
            None => {
                self.set(ACCEPTED, State::True, reasons::ACCEPTED, "");
                self.set(RESOLVED_REFS, State::True, reasons::RESOLVED_REFS, "");
            }
            Some(_) => {}
        }
        if let Some(type_) = condition {
            self.set(type_, State::False, reason, message);
        }
        match class {
            Class::Transient => {
                // A hiccup of the API server says nothing about what already runs.
                if self.status.conditions().get(READY).is_none() {
                    self.set(READY, State::Unknown, reason, message);
                }
                self.set(RECONCILING, State::True, reason, message);
                self.set(STALLED, State::False, reasons::PROGRESSING, "");
            }
            Class::Invalid | Class::Blocked => {
                self.set(READY, State::False, reason, message);
                self.set(RECONCILING, State::False, reason, "");
                self.set(STALLED, State::True, reason, message);
            }
            // What was said stays: nobody is left to read more.
            Class::Leaving => {}
        }
    }
}

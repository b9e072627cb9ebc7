//! What went wrong in a pass, and what follows from it. Pure.

use kube::core::Status;
use std::error::Error;
use std::fmt::Write as _;
use tidegate_crds::reasons;

/// What follows from an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It may pass by itself: come back soon, with backoff. What is known about readiness stays.
    Transient,
    /// The resource says something that cannot be carried out: wait for a change of it.
    Invalid,
    /// Something outside the resource stands in the way (a missing platform, missing rights, an object that is not
    /// ours): come back with backoff, or sooner when a watched object changes.
    Blocked,
    /// The namespace is being deleted, and the resource with it: nothing is left to do or to say.
    Leaving,
}

/// An error of one step of a pass.
pub trait StepError: Error {
    /// The reason in condition, Event and metric: a constant of [`tidegate_crds::reasons`].
    fn reason(&self) -> &'static str;
    /// What follows.
    fn class(&self) -> Class;
    /// The condition that it makes `False`, besides `Ready`.
    fn condition(&self) -> Option<&'static str> {
        None
    }
}

/// A step's error as the driver takes it. Made from any [`StepError`] by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What follows.
    pub class: Class,
    /// The reason in condition, Event and metric.
    pub reason: &'static str,
    /// The condition that it makes `False`, besides `Ready`.
    pub condition: Option<&'static str>,
    /// The whole chain of messages.
    pub message: String,
}

impl<E: StepError> From<E> for Failure {
    fn from(error: E) -> Self {
        Self {
            class: error.class(),
            reason: error.reason(),
            condition: error.condition(),
            message: chain(&error),
        }
    }
}

/// The messages of an error and its sources, joined. An API server's answer is given as the server wrote it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
            let _ = write!(text, ": {}", status.message);
            break;
        }
        let own = error.to_string();
        // Some libraries repeat their source in their own message.
        if !text.ends_with(&own) {
            let _ = write!(text, ": {own}");
        }
        source = error.source();
    }
    text
}

/// The answer of the API server in an error, if it is one.
pub fn api_status(error: &kube::Error) -> Option<&Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Whether the API server takes nothing new because the namespace is being deleted. It says so with 403, like a
/// missing right.
fn is_namespace_leaving(error: &kube::Error) -> bool {
    let details = api_status(error).and_then(|status| status.details.as_ref());
    details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
}

/// A 404 that is about the kind and not about the object: whatever keeps objects of that kind is not installed.
pub fn is_unknown_kind(error: &kube::Error) -> bool {
    api_status(error).is_some_and(|status| {
        status.code == 404 && status.details.as_ref().is_none_or(|details| details.name.is_empty())
    })
}

/// The reason that fits an error of the client.
pub fn api_reason(error: &kube::Error) -> &'static str {
    if is_namespace_leaving(error) {
        return reasons::DELETING;
    }
    match api_status(error).map(|status| status.code) {
        Some(401 | 403) => reasons::FORBIDDEN,
        Some(400 | 422) => reasons::REJECTED,
        _ => reasons::API_ERROR,
    }
}

/// What follows from an error of the client. A refusal may also come from a quota or a webhook that somebody can
/// change, so it is blocked, never invalid.
pub fn api_class(error: &kube::Error) -> Class {
    if is_namespace_leaving(error) {
        return Class::Leaving;
    }
    match api_status(error).map(|status| status.code) {
        Some(400 | 401 | 403 | 422) => Class::Blocked,
        _ => Class::Transient,
    }
}

/// A read from the API server that failed.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {what}")]
pub struct ReadError {
    /// What was read, for example `Deployment plant/mqtt`.
    pub what: String,
    /// Why not.
    pub source: kube::Error,
}

impl StepError for ReadError {
    fn reason(&self) -> &'static str {
        api_reason(&self.source)
    }

    fn class(&self) -> Class {
        api_class(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16) -> kube::Error {
        kube::Error::Api(Status::failure("deployments is forbidden", "Forbidden").with_code(code).boxed())
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_own_words() {
        let failure: Failure = ReadError { what: "Deployment plant/mqtt".into(), source: answer(403) }.into();
        assert_eq!(failure.message, "failed to read Deployment plant/mqtt: deployments is forbidden");
        assert_eq!((failure.reason, failure.class), (reasons::FORBIDDEN, Class::Blocked));
    }

    #[test]
    fn a_server_in_trouble_passes() {
        for code in [404, 409, 429, 500, 503] {
            assert_eq!(api_class(&answer(code)), Class::Transient, "{code}");
        }
    }
}

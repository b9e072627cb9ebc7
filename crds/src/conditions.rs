//! Conditions as a typed list: merged, never replaced; a transition time moves only when the status flips.
//!
//! kstatus reads `Ready`, `Reconciling` and `Stalled`; the latter two are there only as abnormal-true ones would
//! be, and always written, so that "not stalled" is said and not guessed.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The spec can be carried out.
pub const ACCEPTED: &str = "Accepted";
/// Every reference leads somewhere.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// It works as declared.
pub const READY: &str = "Ready";
/// A change is being carried out.
pub const RECONCILING: &str = "Reconciling";
/// Nothing will change until somebody acts.
pub const STALLED: &str = "Stalled";
/// Failover does less than it could.
pub const FAILOVER_LIMITED: &str = "FailoverLimited";
/// Kafka refuses whoever has no right, and the declared rights are in effect.
pub const KAFKA_CLOSED: &str = "KafkaClosed";
/// Autoscaling does less than declared, or not what was declared.
pub const SCALING_LIMITED: &str = "ScalingLimited";
/// A listener's certificate expires soon, or has.
pub const CERTIFICATE_EXPIRING: &str = "CertificateExpiring";

/// The longest message; longer ones are cut.
pub const MAX_MESSAGE: usize = 4096;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody can tell.
    Unknown,
}

impl State {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The conditions of one resource, at most one of each type, in the order in which the types first appeared.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Conditions(Vec<Condition>);

impl Conditions {
    /// No condition yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets one condition. The transition time becomes `now` only when the status is another than before.
    /// Says whether the status flipped (a new condition counts).
    pub fn set(
        &mut self,
        now: Timestamp,
        generation: Option<i64>,
        type_: &str,
        state: State,
        reason: &str,
        message: impl Into<String>,
    ) -> bool {
        let mut message = message.into();
        if message.len() > MAX_MESSAGE {
            let mut end = MAX_MESSAGE - '…'.len_utf8();
            while !message.is_char_boundary(end) {
                end -= 1;
            }
            message.truncate(end);
            message.push('…');
        }
        let mut condition = Condition {
            type_: type_.to_owned(),
            status: state.as_str().to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: Time(now),
        };
        match self.0.iter_mut().find(|old| old.type_ == type_) {
            None => {
                self.0.push(condition);
                true
            }
            Some(old) => {
                let flipped = old.status != condition.status;
                if !flipped {
                    condition.last_transition_time = old.last_transition_time.clone();
                }
                *old = condition;
                flipped
            }
        }
    }

    /// Removes a condition that no longer applies.
    pub fn remove(&mut self, type_: &str) {
        self.0.retain(|condition| condition.type_ != type_);
    }

    /// The condition of this type.
    pub fn get(&self, type_: &str) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.type_ == type_)
    }

    /// Whether this condition is there and `True`.
    pub fn is_true(&self, type_: &str) -> bool {
        self.get(type_).is_some_and(|condition| condition.status == State::True.as_str())
    }

    /// All conditions.
    pub fn iter(&self) -> impl Iterator<Item = &Condition> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the status of every kind has.
pub trait CommonStatus {
    /// The conditions.
    fn conditions(&self) -> &Conditions;
    /// The conditions, to change them.
    fn conditions_mut(&mut self) -> &mut Conditions;
    /// Says which generation of the spec the status is about.
    fn observe(&mut self, generation: Option<i64>);
}

macro_rules! common_status {
    ($($status:ty),*) => {$(
        impl CommonStatus for $status {
            fn conditions(&self) -> &Conditions {
                &self.conditions
            }

            fn conditions_mut(&mut self) -> &mut Conditions {
                &mut self.conditions
            }

            fn observe(&mut self, generation: Option<i64>) {
                self.observed_generation = generation;
            }
        }
    )*};
}

common_status!(
    crate::DeviceFleetStatus,
    crate::IoTPlatformStatus,
    crate::ProtocolGatewayStatus,
    crate::TopicStatus
);

impl JsonSchema for Conditions {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Conditions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array", "maxItems": 16,
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
            "items": {
                "type": "object", "required": ["lastTransitionTime", "message", "reason", "status", "type"],
                "properties": {
                    "type": {"type": "string", "minLength": 1, "maxLength": 316},
                    "status": {"type": "string", "enum": ["True", "False", "Unknown"], "maxLength": 7},
                    "reason": {"type": "string", "minLength": 1, "maxLength": 256},
                    "message": {"type": "string", "maxLength": 32768},
                    "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                    "lastTransitionTime": {"type": "string", "format": "date-time", "maxLength": 64},
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_flips() {
        let mut all = Conditions::new();
        assert!(all.set(at(1), Some(1), READY, State::False, "A", "first"));
        assert!(!all.set(at(2), Some(2), READY, State::False, "B", "second"));
        let ready = all.get(READY).unwrap();
        assert_eq!((ready.last_transition_time.0, ready.reason.as_str()), (at(1), "B"));
        assert_eq!((ready.message.as_str(), ready.observed_generation), ("second", Some(2)));
        assert!(all.set(at(3), Some(2), READY, State::True, "C", ""));
        assert_eq!(all.get(READY).unwrap().last_transition_time.0, at(3));
        assert!(all.is_true(READY));
    }

    #[test]
    fn setting_one_condition_leaves_the_others_and_their_order() {
        let mut all = Conditions::new();
        for type_ in [ACCEPTED, RESOLVED_REFS, READY] {
            all.set(at(1), None, type_, State::Unknown, "X", "");
        }
        all.set(at(2), None, RESOLVED_REFS, State::True, "X", "");
        assert_eq!(
            all.iter().map(|c| c.type_.as_str()).collect::<Vec<_>>(),
            [ACCEPTED, RESOLVED_REFS, READY]
        );
        all.remove(ACCEPTED);
        assert_eq!(all.iter().count(), 2);
    }

    #[test]
    fn a_message_without_end_is_cut_at_a_character() {
        let mut all = Conditions::new();
        all.set(at(1), None, READY, State::False, "X", "ä".repeat(5000));
        let message = &all.get(READY).unwrap().message;
        assert!(message.len() <= MAX_MESSAGE && message.ends_with('…'));
    }
}

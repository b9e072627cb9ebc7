//! Where an authority is in its life: what is kept beside it in its Secret. Pure.

use super::PkiError;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Where an authority is in its life. Each step waits until the one before is really everywhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Nothing changes.
    #[default]
    Steady,
    /// There is a successor, and everybody learns to trust both. The old authority still signs.
    TrustBoth,
    /// The old authority's key is lost, and everybody learns to trust the one that took its place. What the old one signed
    /// is kept.
    Replace,
    /// The successor signs, and everybody gets a new leaf. Both are trusted.
    NewLeaves,
    /// Everybody stops trusting the old one.
    DropOld,
    /// The same authority signs new leaves for everybody.
    Renew,
}

impl Step {
    /// As conditions and the status show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Steady => "Steady",
            Self::TrustBoth => "TrustBoth",
            Self::Replace => "Replace",
            Self::NewLeaves => "NewLeaves",
            Self::DropOld => "DropOld",
            Self::Renew => "Renew",
        }
    }
}

/// What is remembered about an authority's life, as JSON beside its certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Life {
    /// The step.
    #[serde(default)]
    pub step: Step,
    /// When it began.
    #[serde(default, with = "seconds", skip_serializing_if = "Option::is_none")]
    pub since: Option<OffsetDateTime>,
    /// Since when every Secret has been holding what the step wants. Absent: not all of them do.
    #[serde(default, with = "seconds", skip_serializing_if = "Option::is_none")]
    pub delivered: Option<OffsetDateTime>,
    /// Leaves that were made before are made anew.
    #[serde(default, with = "seconds", skip_serializing_if = "Option::is_none")]
    pub leaves_since: Option<OffsetDateTime>,
    /// The request that was answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<String>,
    /// Those outside are waited for no longer in this step.
    #[serde(default, skip_serializing_if = "is_false")]
    pub go_on: bool,
    /// The key identifier, in hexadecimal, of the authority that was dropped last: what it signed is not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Life {
    /// Reads what a Secret holds.
    pub(super) fn read(text: &str) -> Result<Self, PkiError> {
        // A list would be taken for the fields in their order.
        let read = serde_json::from_str(text)
            .and_then(|map: serde_json::Map<_, _>| serde_json::from_value(map.into()));
        read.map_err(|_| PkiError::Authority("rotation.json cannot be read"))
    }

    /// As it stands in the Secret; nothing where there is nothing to remember.
    pub(super) fn text(&self) -> Option<String> {
        (*self != Self::default()).then(|| serde_json::to_string(self).ok()).flatten()
    }

    /// Goes to another step.
    pub(super) fn enter(&mut self, step: Step, now: OffsetDateTime) {
        self.step = step;
        self.since = (step != Step::Steady).then(|| whole(now));
        self.delivered = None;
        self.go_on = false;
    }
}

/// Certificates count whole seconds, and so does what is compared with them.
pub(super) fn whole(time: OffsetDateTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(time.unix_timestamp()).unwrap_or(time)
}

/// A time as people read it.
pub fn text(time: OffsetDateTime) -> String {
    jiff::Timestamp::from_second(time.unix_timestamp())
        .map_or_else(|_| time.to_string(), |time| time.to_string())
}

/// Times in RFC 3339.
mod seconds {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use time::OffsetDateTime;

    #[expect(clippy::ref_option, reason = "serde wants it so")]
    pub fn serialize<S: Serializer>(time: &Option<OffsetDateTime>, out: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => out.serialize_str(&super::text(*time)),
            None => out.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<OffsetDateTime>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let time: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        OffsetDateTime::from_unix_timestamp(time.as_second()).map(Some).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_read_as_it_was_written_and_an_untold_one_takes_no_room() {
        assert_eq!(Life::default().text(), None);
        let now = OffsetDateTime::from_unix_timestamp(1_795_449_600).unwrap();
        let mut life = Life { answered: Some("kafka-authority/1".to_owned()), ..Life::default() };
        life.enter(Step::TrustBoth, now + time::Duration::milliseconds(7));
        let text = life.text().unwrap();
        assert!(text.contains("\"since\":\"2026-11-23T"), "{text}");
        assert_eq!(Life::read(&text).unwrap(), life);
    }

    #[test]
    fn nonsense_is_an_error() {
        for text in ["", "{", "[]", r#"{"step":"Sideways"}"#, r#"{"since":"soon"}"#, r#"{"stepp":"Steady"}"#]
        {
            assert!(matches!(Life::read(text), Err(PkiError::Authority(_))), "{text}");
        }
    }
}

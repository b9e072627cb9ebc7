//! What a fleet's devices may do: filters in which `{fleet}` and `{device}` stand for the one who asks.

use crate::filter::{Filter, FilterError};
use crate::principal::Principal;

/// The names that may stand in braces.
const PLACEHOLDERS: [&str; 2] = ["{fleet}", "{device}"];

/// A filter that may have placeholders. `{fleet}` and `{device}` stand for the names of the one who asks, also inside
/// a level (`line-{device}/#`). Names have no wildcard and no `/`, so no device can make its rights wider by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission(Box<str>);

/// Why a text is no [`Permission`]. The message says what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PermissionError {
    /// A brace that belongs to no placeholder: a misspelt one would allow nothing and say nothing.
    #[error("only {{fleet}} and {{device}} stand in braces")]
    Brace,
    /// With names in place of the placeholders it is no filter.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl Permission {
    /// Parses the text of a fleet's permission.
    pub fn parse(text: &str) -> Result<Self, PermissionError> {
        // the shortest names: whether a filter becomes too long depends on the device
        let sample = replace(text, "x", "x");
        if sample.contains(['{', '}']) {
            return Err(PermissionError::Brace);
        }
        Filter::check(&sample)?;
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter for one device; nothing where its names make it longer than a filter may be, which allows nothing.
    pub fn resolve(&self, principal: &Principal) -> Option<Filter> {
        Filter::parse(&replace(&self.0, principal.fleet(), principal.device())).ok()
    }
}

/// Puts names in place of the placeholders, in one pass: a device may be called `{fleet}`.
fn replace(text: &str, fleet: &str, device: &str) -> String {
    let mut replaced = String::with_capacity(text.len() + device.len());
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        let (before, from) = rest.split_at(at);
        replaced.push_str(before);
        let found = PLACEHOLDERS.into_iter().zip([fleet, device]).find(|(name, _)| from.starts_with(name));
        let (length, value) = found.map_or((1, "{"), |(name, value)| (name.len(), value));
        replaced.push_str(value);
        rest = &from[length..];
    }
    replaced.push_str(rest);
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(text: &str, username: &str) -> Option<String> {
        let principal = Principal::parse(username).unwrap();
        Permission::parse(text).unwrap().resolve(&principal).map(|filter| filter.as_str().to_owned())
    }

    #[test]
    fn placeholders_stand_for_the_one_who_asks() {
        for (text, filter) in [
            ("sites/+/telemetry/{device}/#", "sites/+/telemetry/meter-7/#"),
            ("commands/{fleet}/{device}/#", "commands/meters/meter-7/#"),
            ("{device}", "meter-7"),
            ("line-{device}{fleet}/x", "line-meter-7meters/x"),
            ("a/#", "a/#"),
        ] {
            assert_eq!(resolved(text, "meters/meter-7").unwrap(), filter);
        }
    }

    #[test]
    fn a_name_that_looks_like_a_placeholder_is_a_name() {
        assert_eq!(resolved("{fleet}/{device}", "f/{fleet}").unwrap(), "f/{fleet}");
        assert_eq!(resolved("{device}/{device}", "f/{device}").unwrap(), "{device}/{device}");
    }

    #[test]
    fn what_is_no_permission_is_refused_with_its_reason() {
        for (text, error) in [
            ("a/{Device}", PermissionError::Brace),
            ("a/{device", PermissionError::Brace),
            ("a/}", PermissionError::Brace),
            ("", PermissionError::Filter(FilterError::Empty)),
            ("a/{device}#", PermissionError::Filter(FilterError::MisplacedHash)),
            ("{device}+/b", PermissionError::Filter(FilterError::MisplacedPlus)),
            ("a/#/b", PermissionError::Filter(FilterError::MisplacedHash)),
        ] {
            assert_eq!(Permission::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_filter_that_a_name_makes_too_long_allows_nothing() {
        let text = format!("{}/{{device}}", "x".repeat(500));
        assert_eq!(resolved(&text, "f/d").unwrap().len(), 502);
        assert_eq!(resolved(&text, &format!("f/{}", "d".repeat(12))), None);
    }
}

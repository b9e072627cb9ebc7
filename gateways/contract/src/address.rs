//! The one address space of a platform: an MQTT topic name, a CoAP path and an HTTP path with the same text
//! are the same [`Address`].

use std::fmt;
use std::sync::Arc;

/// The longest address or filter, in bytes of UTF-8.
pub const MAX_BYTES: usize = 512;

/// A UTF-8 path of levels joined by `/`, without wildcards, at most [`MAX_BYTES`] long.
///
/// Parsed once at the protocol's edge, after the protocol's own decoding (percent-encoding, options), and
/// carried as a type from there. Empty levels are allowed (`a//b`, `/a`, `a/`), as in MQTT 5 §4.7.3.
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address(Arc<str>);

/// Why a text is no [`Address`]. The message says what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is empty (MQTT 5 §4.7.3: a topic name is at least one character long).
    #[error("an address has at least one character")]
    Empty,
    /// The text is longer than [`MAX_BYTES`].
    #[error("an address has at most 512 bytes, this one has {0}")]
    TooLong(usize),
    /// `+` or `#` (MQTT 5 §4.7.1: no wildcards in a topic name).
    #[error("an address has no wildcard: remove \"+\" and \"#\"")]
    Wildcard,
    /// U+0000 (MQTT 5 §1.5.4).
    #[error("an address has no NUL character")]
    Nul,
    /// A leading `$`, which MQTT 5 §4.7.2 keeps for servers.
    #[error("addresses that start with \"$\" are kept for the platform: choose another first level")]
    Reserved,
    /// `.` or `..` as a level: an HTTP client or proxy would remove it (RFC 3986 §5.2.4).
    #[error("an address has no level \".\" or \"..\"")]
    DotLevel,
    /// A first level that starts with `.`, which HTTP keeps (`/.well-known`, `/.tidegate`).
    #[error("a first level that starts with \".\" is kept for the platform: choose another")]
    HiddenFirstLevel,
}

impl AddressError {
    /// A constant name for metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "AddressEmpty",
            Self::TooLong(_) => "AddressTooLong",
            Self::Wildcard => "AddressWildcard",
            Self::Nul => "AddressNul",
            Self::Reserved => "AddressReserved",
            Self::DotLevel => "AddressDotLevel",
            Self::HiddenFirstLevel => "AddressHiddenFirstLevel",
        }
    }
}

impl Address {
    /// Parses a decoded text as it came from a device.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(AddressError::TooLong(text.len()));
        }
        if text.contains(['+', '#']) {
            return Err(AddressError::Wildcard);
        }
        if text.contains('\0') {
            return Err(AddressError::Nul);
        }
        if text.starts_with('$') {
            return Err(AddressError::Reserved);
        }
        if text.split('/').any(|level| matches!(level, "." | "..")) {
            return Err(AddressError::DotLevel);
        }
        if text.starts_with('.') {
            return Err(AddressError::HiddenFirstLevel);
        }
        Ok(Self(text.into()))
    }

    /// An address of the platform's own. What a device sends never becomes one.
    pub(crate) fn kept(text: String) -> Self {
        Self(text.into())
    }

    /// Whether the platform keeps it: its first level starts with `.`. A wildcard in the first level of a filter does
    /// not match it, as MQTT 5 §4.7.2 has it for `$`.
    pub fn is_kept(&self) -> bool {
        self.0.starts_with('.')
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The levels, from the left.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_ordinary_path_is_an_address() {
        let address = Address::parse("sites/berlin/meter-7/power").unwrap();
        assert_eq!(address.as_str(), "sites/berlin/meter-7/power");
        assert_eq!(address.levels().collect::<Vec<_>>(), ["sites", "berlin", "meter-7", "power"]);
    }

    #[test]
    fn empty_levels_spaces_and_other_scripts_are_allowed() {
        for text in ["/", "a//b", "/a", "a/", "a b/c", "工場/温度", "a/$b", "a/.b", "a/...", "a.b"] {
            assert_eq!(Address::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_reason() {
        let long = "x".repeat(513);
        let cases = [
            ("", AddressError::Empty),
            (long.as_str(), AddressError::TooLong(513)),
            ("a/+/b", AddressError::Wildcard),
            ("a/#", AddressError::Wildcard),
            ("a+b", AddressError::Wildcard),
            ("a\0b", AddressError::Nul),
            ("$SYS/x", AddressError::Reserved),
            ("a/../b", AddressError::DotLevel),
            ("a/.", AddressError::DotLevel),
            ("..", AddressError::DotLevel),
            (".well-known/x", AddressError::HiddenFirstLevel),
        ];
        for (text, error) in cases {
            assert_eq!(Address::parse(text), Err(error), "{text:?}");
        }
        assert!(Address::parse(&"x".repeat(512)).is_ok());
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_text(text in "\\PC{0,600}") {
            if let Ok(address) = Address::parse(&text) {
                prop_assert_eq!(address.as_str(), text);
            }
        }
    }
}

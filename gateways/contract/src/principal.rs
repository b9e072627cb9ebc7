//! Who is connected: the names of fleets and devices, and what a username may be.

use std::fmt;
use std::sync::Arc;

/// The longest name of a fleet, in bytes: it is the name of a Kubernetes resource that is a label as well.
pub const MAX_FLEET_BYTES: usize = 63;
/// The longest name of a device, in bytes of UTF-8.
pub const MAX_DEVICE_BYTES: usize = 128;
/// The longest username, `<fleet>/<device>`, in bytes. What is longer is refused unread.
pub const MAX_USERNAME_BYTES: usize = MAX_FLEET_BYTES + 1 + MAX_DEVICE_BYTES;

/// Who is connected: `<fleet>/<device>`. This text is the username, the header `tg-device`, and what `{fleet}` and
/// `{device}` of a permission stand for. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal {
    text: Arc<str>,
    /// Where the `/` is.
    slash: u8,
}

/// Why a text is no [`Principal`], or no name of one's fleet or device. The message says what to write instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A username without `/`.
    #[error("a username is <fleet>/<device>")]
    NoFleet,
    /// The fleet's name is none that the resource could have.
    #[error(
        "a fleet's name has 1 to 63 lower-case letters, digits and -, and starts and ends with one of the first two"
    )]
    Fleet,
    /// The device's name is empty or too long.
    #[error("a device's name has 1 to 128 bytes of UTF-8, this one has {0}")]
    DeviceLength(usize),
    /// The device's name could not be one level of an address.
    #[error(
        "a device's name has no \"/\", \"+\", \"#\", white space or control character, and is not \".\" or \"..\""
    )]
    DeviceText,
}

/// Whether `name` may be the name of a fleet.
pub fn check_fleet(name: &str) -> Result<(), NameError> {
    let bytes = name.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = bytes.first().is_some_and(alphanumeric) && bytes.last().is_some_and(alphanumeric);
    let inside = bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-');
    if ends && inside && bytes.len() <= MAX_FLEET_BYTES { Ok(()) } else { Err(NameError::Fleet) }
}

/// Whether `name` may be the name of a device: exactly one level of an address, without a wildcard, so that put into
/// a permission it can make that no wider.
pub fn check_device(name: &str) -> Result<(), NameError> {
    if name.is_empty() || name.len() > MAX_DEVICE_BYTES {
        return Err(NameError::DeviceLength(name.len()));
    }
    let forbidden = |c: char| matches!(c, '/' | '+' | '#') || c.is_whitespace() || c.is_control();
    if name.contains(forbidden) || matches!(name, "." | "..") {
        return Err(NameError::DeviceText);
    }
    Ok(())
}

impl Principal {
    /// The principal of a fleet's device.
    pub fn new(fleet: &str, device: &str) -> Result<Self, NameError> {
        check_fleet(fleet)?;
        check_device(device)?;
        // a fleet's name has at most 63 bytes
        let slash = u8::try_from(fleet.len()).map_err(|_| NameError::Fleet)?;
        Ok(Self { text: format!("{fleet}/{device}").into(), slash })
    }

    /// Reads a username.
    pub fn parse(username: &str) -> Result<Self, NameError> {
        let (fleet, device) = username.split_once('/').ok_or(NameError::NoFleet)?;
        Self::new(fleet, device)
    }

    /// The fleet's name.
    pub fn fleet(&self) -> &str {
        &self.text[..usize::from(self.slash)]
    }

    /// The device's name in its fleet.
    pub fn device(&self) -> &str {
        &self.text[usize::from(self.slash) + 1..]
    }

    /// The text, `<fleet>/<device>`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use proptest::prelude::*;

    #[test]
    fn a_username_names_fleet_and_device() {
        let principal = Principal::parse("meters/meter-7").unwrap();
        assert_eq!((principal.fleet(), principal.device()), ("meters", "meter-7"));
        assert_eq!(principal.to_string(), "meters/meter-7");
        assert_eq!(Principal::new("meters", "meter-7").unwrap(), principal);
        for text in ["a/b", "0/Zähler.7@x", "a-b/$x", "a/{device}"] {
            assert_eq!(Principal::parse(text).unwrap().as_str(), text);
        }
        let longest = format!("{}/{}", "f".repeat(63), "d".repeat(128));
        assert_eq!(Principal::parse(&longest).unwrap().as_str().len(), MAX_USERNAME_BYTES);
    }

    #[test]
    fn what_is_no_username_is_refused_with_its_reason() {
        let (long_fleet, long_device) = (format!("{}/d", "f".repeat(64)), format!("f/{}", "d".repeat(129)));
        let cases = [
            ("", NameError::NoFleet),
            ("meter-7", NameError::NoFleet),
            ("/d", NameError::Fleet),
            ("-a/d", NameError::Fleet),
            ("a-/d", NameError::Fleet),
            ("A/d", NameError::Fleet),
            ("a.b/d", NameError::Fleet),
            (long_fleet.as_str(), NameError::Fleet),
            ("f/", NameError::DeviceLength(0)),
            (long_device.as_str(), NameError::DeviceLength(129)),
            ("f/a/b", NameError::DeviceText),
            ("f/+", NameError::DeviceText),
            ("f/a#", NameError::DeviceText),
            ("f/a b", NameError::DeviceText),
            ("f/a\u{a0}b", NameError::DeviceText),
            ("f/a\0", NameError::DeviceText),
            ("f/..", NameError::DeviceText),
        ];
        for (text, error) in cases {
            assert_eq!(Principal::parse(text), Err(error), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_devices_name_is_exactly_one_level_of_an_address(text in "\\PC{0,140}") {
            if let Ok(principal) = Principal::parse(&format!("f/{text}")) {
                prop_assert_eq!(principal.device(), &text);
                let address = Address::parse(&format!("a/{text}/b")).unwrap();
                prop_assert_eq!(address.levels().collect::<Vec<_>>(), ["a", &text, "b"]);
            }
        }
    }
}

//! The desired document of a device: its fleet's `configuration`, at an address that the platform keeps.
//!
//! The address is `.tidegate/desired/<fleet>/<device>` in every protocol. Only that device reads there, without a
//! permission; nobody writes there, and no wildcard matches it.

use crate::address::Address;
use crate::principal::Principal;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use std::fmt::{self, Write as _};

/// What the addresses of desired documents start with; `<fleet>/<device>` follows.
pub const PREFIX: &str = ".tidegate/desired/";

/// The largest document, in bytes. Every gateway keeps one for each fleet, and devices have little memory.
pub const MAX_BYTES: usize = 64 << 10;

/// The address of a device's document.
pub fn address(principal: &Principal) -> Address {
    Address::kept(format!("{PREFIX}{principal}"))
}

/// Whose document is at an address, `<fleet>/<device>` if it is anybody's; nothing for any other address.
pub fn owner(address: &str) -> Option<&str> {
    address.strip_prefix(PREFIX)
}

/// A desired document as every device of a fleet gets it.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    tag: Box<str>,
    json: Box<[u8]>,
}

/// A document that devices do not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "as JSON it has {0} bytes, and devices get at most {MAX_BYTES}: name what is larger by an address and publish it there"
)]
pub struct TooLarge(usize);

impl Document {
    /// The document of a configuration: its JSON without white space, names sorted.
    pub fn new(configuration: &Map<String, Value>) -> Self {
        // into memory, which cannot fail
        let json = serde_json::to_vec(configuration).unwrap_or_default();
        let hash = Sha256::digest(&json);
        let mut tag = String::with_capacity(32);
        for byte in hash.iter().take(16) {
            // a String takes everything
            let _ = write!(tag, "{byte:02x}");
        }
        Self { tag: tag.into(), json: json.into() }
    }

    /// Whether devices can get it.
    pub fn check(&self) -> Result<(), TooLarge> {
        if self.json.len() > MAX_BYTES { Err(TooLarge(self.json.len())) } else { Ok(()) }
    }

    /// The bytes that a device gets.
    pub fn json(&self) -> &[u8] {
        &self.json
    }

    /// What tells this document from every other: the same in each process, and after a restart.
    pub fn tag(&self) -> &str {
        &self.tag
    }
}

impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // there may be secrets in it
        f.debug_struct("Document").field("tag", &self.tag).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(value: Value) -> Document {
        let Value::Object(map) = value else { panic!("{value}") };
        Document::new(&map)
    }

    #[test]
    fn a_document_is_at_an_address_that_no_device_can_spell_elsewhere() {
        let principal = Principal::parse("meters/meter-7").unwrap();
        let address = address(&principal);
        assert_eq!(address.as_str(), ".tidegate/desired/meters/meter-7");
        assert_eq!(owner(address.as_str()), Some("meters/meter-7"));
        assert!(Address::parse(address.as_str()).is_err());
        for other in [".tidegate", ".tidegate/desired", ".tidegate/Desired/a/b", "tidegate/desired/a/b"] {
            assert_eq!(owner(other), None, "{other}");
        }
    }

    #[test]
    fn equal_documents_have_equal_bytes_and_tags_and_others_do_not() {
        let first = document(json!({"interval": "15m", "a": [1, 2.5, "ü"]}));
        let same = document(json!({"a": [1, 2.5, "ü"], "interval": "15m"}));
        assert_eq!(first, same);
        assert_eq!(first.json(), r#"{"a":[1,2.5,"ü"],"interval":"15m"}"#.as_bytes());
        let other = document(json!({"interval": "16m", "a": [1, 2.5, "ü"]}));
        assert_ne!(first.tag(), other.tag());
        assert_eq!(document(json!({})).json(), b"{}");
        assert!(!format!("{first:?}").contains("15m"));
    }

    #[test]
    fn a_document_has_a_largest_size() {
        let of = |bytes: usize| document(json!({"t": "x".repeat(bytes - r#"{"t":""}"#.len())}));
        assert_eq!(of(MAX_BYTES).check(), Ok(()));
        let error = of(MAX_BYTES + 1).check().unwrap_err().to_string();
        assert!(error.contains("65537 bytes") && error.contains("at most 65536"), "{error}");
    }
}

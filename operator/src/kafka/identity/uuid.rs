//! Kafka's UUIDs. Pure but for randomness.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;

/// A Kafka UUID: 16 bytes as 22 characters of base64url.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(String);

impl Uuid {
    /// A random one, never with a leading `-`: command lines would take it for an option.
    pub fn random() -> Self {
        loop {
            let text = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 16]>());
            if let Some(uuid) = Self::parse(&text) {
                return uuid;
            }
        }
    }

    /// Reads one; nothing for what Kafka or its tools would not take.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        // Kafka keeps the smallest values for itself.
        let reserved = bytes.iter().take(15).all(|&byte| byte == 0);
        (bytes.len() == 16 && !reserved && !text.starts_with('-')).then(|| Self(text.to_owned()))
    }

    /// The same from its bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        Self::parse(&URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        // What was parsed is 16 bytes and decodes.
        let _ = URL_SAFE_NO_PAD.decode_slice(&self.0, &mut bytes);
        bytes
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

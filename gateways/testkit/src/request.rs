//! Pieces of an HTTP request as a device writes them. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

/// The header of a username and its password (RFC 7617).
pub fn basic(username: &str, password: &str) -> String {
    format!("Authorization: Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// The path of an address (RFC 3986 §2.1).
pub fn path(address: &str) -> String {
    let mut path = "/".to_owned();
    for byte in address.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'/' {
            path.push(char::from(byte));
        } else {
            // a string takes everything
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

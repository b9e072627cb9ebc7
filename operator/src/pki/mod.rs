//! Certificate authorities and leaf certificates, as data for Secrets. Pure but for randomness: no IO, the
//! caller brings the clock.
//!
//! A Secret holds everything that must fit together (certificate and key of an authority; key, chain and
//! trusted authorities of a leaf), so no crash can leave halves that do not. What a Secret holds is kept while
//! it fits; the reasons to make it anew are those of [`Renewal`]. `ca.crt` may hold several authorities, the
//! one that signs first: that is how a rotation ([`Authority::turn`]) trusts both while it rolls. Leaves follow by
//! [`keep_or_issue`], whoever calls it.

mod authority;
mod leaf;
mod life;
pub(crate) mod parsed;
mod rotation;
#[cfg(test)]
mod rotation_tests;

pub use authority::Authority;
pub use leaf::{Issued, LeafSpec, Renewal, keep_or_issue};
pub use life::{Life, Step, text};
pub use parsed::{Key, expires, subject};
pub use rotation::{Ask, News, Outside, Pace, Seen, Turn, Waits};

/// The key of the trusted authorities in every Secret of ours.
pub const CA_CRT: &str = "ca.crt";
/// The key of an authority's private key.
pub const CA_KEY: &str = "ca.key";
/// The key of the private key of an authority's successor, while it does not sign yet.
pub const NEXT_KEY: &str = "next.key";
/// The key of what is remembered about an authority's rotation.
pub const ROTATION: &str = "rotation.json";
/// The key of a leaf's certificate.
pub const TLS_CRT: &str = "tls.crt";
/// The key of a leaf's private key.
pub const TLS_KEY: &str = "tls.key";

/// What went wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// rcgen refused.
    #[error("failed to make a certificate")]
    Make(#[from] rcgen::Error),
    /// A Secret holds something that is no certificate authority.
    #[error("failed to read the certificate authority: {0}")]
    Authority(&'static str),
}

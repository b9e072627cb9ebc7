//! Certificate authorities and leaf certificates, as data for Secrets. Pure but for randomness: no IO, the
//! caller brings the clock.
//!
//! A Secret holds everything that must fit together (certificate and key of an authority; key, chain and
//! trusted authorities of a leaf), so no crash can leave halves that do not. What a Secret holds is kept while
//! it fits; the reasons to make it anew are those of [`Renewal`]. `ca.crt` may hold several authorities, the
//! one that signs first: that is how a later rotation trusts both while it rolls.

mod authority;
mod leaf;
pub(crate) mod parsed;

pub use authority::Authority;
pub use leaf::{Issued, LeafSpec, Renewal, keep_or_issue};
pub use parsed::{Key, subject};

/// The key of the trusted authorities in every Secret of ours.
pub const CA_CRT: &str = "ca.crt";
/// The key of an authority's private key.
pub const CA_KEY: &str = "ca.key";
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

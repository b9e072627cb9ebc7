//! Device fleets: who may come in and what they may do, as records of the platform's directory.
//!
//! | module | role | IO |
//! |---|---|---|
//! | [`validate`] | from a `DeviceFleet` to what can be carried out | no |
//! | [`authorities`] | certificate authorities as a Secret holds them | no |
//! | [`claims`] | which of several fleets has an authority, or those who say nothing | no |
//! | [`passwords`] | from a Secret to a credential | reads, hashes on threads |
//! | [`records`] | from all of that to the fleet's records | no |
//! | [`judge`] | what the status says | no |
//! | [`memory`] | what is known of each fleet between passes | no |
//! | [`controller`] | one pass; the records are written by the platform's sweep | reads |

pub mod authorities;
pub mod claims;
pub mod controller;
pub mod judge;
pub mod memory;
pub mod passwords;
pub mod records;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
pub mod validate;

pub use controller::FleetController;

//! The frame that every controller stands in: fetch → validate → build → apply → status, on every path.
//!
//! A controller implements [`Reconciler`]; [`driver::run`] does the rest: it watches, keeps what does not
//! deserialize from taking others down, honours `tidegate.io/paused`, turns failures into conditions and Events,
//! writes the status whatever happened, counts, and comes back with a backoff per object.
//!
//! | module | role | IO |
//! |---|---|---|
//! | [`children`] | what a controller wants to exist | no |
//! | [`applied`] | what needs no apply because nothing changed since the last | no |
//! | [`apply`] | server-side apply and removal of what is no longer built | yes |
//! | [`foreign`] | what others set in objects of ours | no |
//! | [`owned`] | whose child an object is, so that its events find the owner | no |
//! | [`outside`] | watches on what may not be there | yes |
//! | [`platforms`] | the platforms that others refer to | watches |
//! | [`secrets`] | which version of which Secret there is, and who refers to it | a watch |
//! | [`cycle`] | one pass over one object | through `apply` |
//! | [`failure`] | error classes | no |
//! | [`malformed`] | what does not fit our types | reads |
//! | [`backoff`] | when to come back | no |
//! | [`pace`] | how often a status is written | no |
//! | [`driver`] | watches, status, Events | yes |
//! | [`lease`], [`elector`] | leadership: decisions, and their IO | no, yes |
//! | [`context`], [`options`], [`metrics`], [`conditions`], [`requests`] | what controllers share | no |
//! | [`http`] | health and metrics endpoints | yes |

pub mod applied;
pub mod apply;
pub mod backbone;
pub mod backoff;
pub mod children;
pub mod conditions;
pub mod context;
pub mod cycle;
pub mod dns;
pub mod driver;
pub mod elector;
pub mod failure;
pub mod foreign;
pub mod http;
pub mod lease;
pub mod malformed;
pub mod metrics;
pub mod options;
pub mod outside;
pub mod owned;
pub mod pace;
pub mod platforms;
pub mod requests;
pub mod secrets;
#[cfg(test)]
pub(crate) mod testing;

pub use apply::{Applied, ApplyError};
pub use backbone::Backbone;
pub use children::Children;
pub use context::{Context, Scope};
pub use cycle::Cycle;
pub use driver::{Reconciler, Subject};
pub use failure::{Class, Failure, StepError};

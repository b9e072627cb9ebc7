//! Second networks: what a platform's networks are made of, and what pods were given of them.
//!
//! | module | role | IO |
//! |---|---|---|
//! | [`definition`] | a platform's network as a `NetworkAttachmentDefinition` | no |
//! | [`allow`] | what an administrator lets platforms make | no |
//! | [`given`] | interfaces, addresses and MACs that a pod was really given | no |
//! | [`trouble`] | why a pod was not given its networks | no |
//! | [`make`] | makes a platform's own attachments, looks for those of others | yes |

pub mod allow;
pub mod definition;
pub mod given;
pub mod make;
pub mod trouble;

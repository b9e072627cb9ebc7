//! Who may do what in a managed Kafka: which rights there shall be, what must change for that, and when brokers begin to
//! refuse whoever has none. All but [`keep`] is pure.
//!
//! In Kafka a right is an ACL. All of them are Tidegate's, as everything else in a managed Kafka is: what nobody declared
//! goes. The operator and the brokers are super users, so nothing that happens to ACLs can lock them out.

pub mod acl;
pub mod keep;
pub mod plan;
pub mod stage;
pub mod wanted;

pub use acl::Acl;
pub use stage::Stage;

use super::error::Failure;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The principal of the operator in Kafka.
pub const OPERATOR: &str = "operator";
/// The principal of gateways in Kafka.
pub const GATEWAY: &str = "gateway";
/// The principal of all brokers, whatever their number.
pub const BROKER: &str = "broker";

/// The principal of an application. No name of Tidegate's own begins like this.
pub fn application(name: &str) -> String {
    format!("app-{name}")
}

/// What a sweep knows of rights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Those that Kafka was seen to have, whole and nothing else, the last time that it had any such set.
    pub proven: Option<Arc<BTreeSet<Acl>>>,
    /// Why Kafka does not have what is wanted now.
    pub failure: Option<Failure>,
}

impl Rights {
    /// Whether Kafka has exactly these.
    pub fn are(&self, wanted: &BTreeSet<Acl>) -> bool {
        self.proven.as_deref() == Some(wanted)
    }
}

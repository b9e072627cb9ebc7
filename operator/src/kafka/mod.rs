//! Kafka as the operator sees it: what a managed cluster's objects look like (pure builders), what a cluster
//! holds (observe), what must change (plan, pure) and how (execute).

pub mod identity;
pub mod jvm;
pub mod names;
pub mod properties;

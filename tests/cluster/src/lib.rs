//! A real multi-node Kubernetes cluster on one machine, from package registries.
//!
//! The nodes are sets of Linux namespaces on one bridge, with containerd and a kubelet each; the control plane runs on
//! the host's side of the bridge, so that the host is the outside world. Nothing here links to C or to a Kubernetes
//! client: the library runs `ip`, `kubectl`, `ctr` and `openssl`, and compiles in seconds. Everything does IO unless
//! a module says otherwise.
//!
//! Start at [`Cluster::up`]; [`build::start`] lets a caller compile its own things meanwhile.

mod addons;
pub mod archive;
pub mod bare;
pub mod build;
pub mod cache;
mod cgroup;
pub mod client;
pub mod cluster;
pub mod command;
mod control_plane;
pub mod credentials;
pub mod debian;
pub mod engine;
pub mod extras;
pub mod faults;
pub mod field;
pub mod files;
mod go;
mod host;
pub mod images;
pub mod kafka;
mod node;
mod pki;
pub mod plan;
pub mod preflight;
mod process;
pub mod progress;
mod rootfs;
pub mod snapshot;

pub use bare::BareControlPlane;
pub use cluster::Cluster;
pub use extras::Extra;
pub use faults::Fault;
pub use progress::Progress;
pub use snapshot::Snapshot;

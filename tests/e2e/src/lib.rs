//! Stories on the local cluster, with real clients.

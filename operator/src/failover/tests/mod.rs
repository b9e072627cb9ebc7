//! Failover as a whole: stories on a simulated cluster, properties over random ones, writes against an API server in
//! memory, sockets.

mod act;
mod probe;
mod properties;
mod sim;
mod stories;

//! Whole stories on the local cluster. `cargo xtask test --story NAME` brings up what they need and runs them.

mod access;
mod autoscaling;
mod bad_input;
mod broker_kill;
mod broker_rollout;
mod brokers_replaced_rollout;
mod capability;
mod device_fleet;
mod external_kafka;
mod faults;
mod field_network;
mod gateway_rollout;
mod host_device;
mod kafka_away;
mod latency;
mod lost_disk;
mod node_off;
mod orders;
mod quickstart;
mod rotation;
mod second_networks;

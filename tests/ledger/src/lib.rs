//! What was acknowledged against what Kafka holds.

//! Names in Kafka that belong to the platform itself.

/// The compacted topic through which the operator tells gateways what changed.
pub const DIRECTORY: &str = "tg-directory";
/// The compacted topic in which gateways say who is connected: see [`presence`](crate::presence).
pub const PRESENCE: &str = "tg-presence";
/// Partitions of [`PRESENCE`]. A client identifier's place depends on it, so it never changes. Three: each broker of the
/// smallest Kafka that survives one leads one of them, and as many gateways share the housekeeping, which is a few
/// records for each connection of a gateway that died. More would only be more to read for every gateway.
pub const PRESENCE_PARTITIONS: i32 = 3;
/// The topic in which gateways' processes say that they live.
pub const GATEWAYS: &str = "tg-gateways";
/// The consumer group of gateways over [`PRESENCE`]: who has a partition is its housekeeper.
pub const HOUSEKEEPERS: &str = "tg-housekeepers";

/// The topics that are the platform's own.
pub const TOPICS: [&str; 3] = [DIRECTORY, PRESENCE, GATEWAYS];

/// A name as Kafka has it: everything of a platform starts with its prefix.
pub fn name(prefix: &str, base: &str) -> String {
    format!("{prefix}{base}")
}

/// Whether a topic's name is kept for the platform.
pub fn is_reserved(base: &str) -> bool {
    base.starts_with("tg-") || base.starts_with("__")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platforms_own_names_are_reserved() {
        assert!(TOPICS.into_iter().all(is_reserved) && is_reserved("__consumer_offsets"));
        assert!(!is_reserved("telemetry"));
        assert_eq!(name("plant-", DIRECTORY), "plant-tg-directory");
    }
}

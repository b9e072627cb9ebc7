//! Names in Kafka that belong to the platform itself.

/// The compacted topic through which the operator tells gateways what changed.
pub const DIRECTORY: &str = "tg-directory";

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
        assert!(is_reserved("tg-directory") && is_reserved("__consumer_offsets"));
        assert!(!is_reserved("telemetry"));
        assert_eq!(name("plant-", DIRECTORY), "plant-tg-directory");
    }
}

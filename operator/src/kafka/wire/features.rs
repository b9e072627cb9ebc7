//! The version of Kafka's metadata: names and levels, which one is in effect, and how it is raised. All but
//! [`raise`] is pure.

use super::call::Call as _;
use super::connection::{Connection, Socket};
use super::error::WireError;
use kafka_protocol::messages::api_versions_response::ApiVersionsResponse;
use kafka_protocol::messages::update_features_request::FeatureUpdateKey;
use kafka_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};
use kafka_protocol::protocol::StrBytes;

/// The feature's name.
const METADATA: &str = "metadata.version";
/// How long Kafka may take, in milliseconds.
const LIMIT: i32 = 4_000;
/// Only ever upwards.
const UPGRADE: i8 = 1;

/// Each level since the first that KRaft brokers of today know, with its name. A release ends with its highest.
const LEVELS: &[(&str, i16)] = &[
    ("3.3-IV3", 7),
    ("3.4-IV0", 8),
    ("3.5-IV0", 9),
    ("3.5-IV1", 10),
    ("3.5-IV2", 11),
    ("3.6-IV0", 12),
    ("3.6-IV1", 13),
    ("3.6-IV2", 14),
    ("3.7-IV0", 15),
    ("3.7-IV1", 16),
    ("3.7-IV2", 17),
    ("3.7-IV3", 18),
    ("3.7-IV4", 19),
    ("3.8-IV0", 20),
    ("3.9-IV0", 21),
    ("4.0-IV0", 22),
    ("4.0-IV1", 23),
    ("4.0-IV2", 24),
    ("4.0-IV3", 25),
    ("4.1-IV0", 26),
    ("4.1-IV1", 27),
    ("4.2-IV0", 28),
    ("4.2-IV1", 29),
    ("4.3-IV0", 30),
    ("4.4-IV0", 31),
    ("4.4-IV1", 32),
    ("4.4-IV2", 33),
];

/// The level of a version's name; that of a release (`4.1`) is its highest.
pub fn level(name: &str) -> Option<i16> {
    let release = |known: &str| known.split_once("-IV").is_some_and(|(release, _)| release == name);
    LEVELS.iter().rev().find(|(known, _)| *known == name || release(known)).map(|(_, level)| *level)
}

/// The newest version that this operator knows.
pub fn newest() -> &'static str {
    LEVELS.last().map_or("", |(name, _)| name)
}

/// The name of a level.
pub fn name(level: i16) -> String {
    let known = LEVELS.iter().find(|(_, known)| *known == level);
    known.map_or_else(|| format!("level {level}"), |(name, _)| (*name).to_owned())
}

/// The metadata's version, as one broker knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The level in effect.
    pub metadata: Option<i16>,
}

impl Features {
    pub(super) fn of(answer: &ApiVersionsResponse) -> Self {
        let in_effect = answer.finalized_features.iter().find(|feature| feature.name.as_str() == METADATA);
        Self { metadata: in_effect.map(|feature| feature.max_version_level) }
    }
}

/// Raises the metadata's version. Kafka itself refuses a level that one of its nodes does not know.
pub async fn raise<S: Socket>(connection: &mut Connection<S>, level: i16) -> Result<(), WireError> {
    let update = FeatureUpdateKey::default()
        .with_feature(StrBytes::from_static_str(METADATA))
        .with_max_version_level(level)
        .with_upgrade_type(UPGRADE);
    let ask = UpdateFeaturesRequest::default().with_timeout_ms(LIMIT).with_feature_updates(vec![update]);
    read(&connection.call(&ask).await?)
}

/// What the answer says: older versions of it answer for each feature.
pub(super) fn read(answer: &UpdateFeaturesResponse) -> Result<(), WireError> {
    let each = answer.results.iter().map(|result| (result.error_code, result.error_message.as_ref()));
    let mut all = each.chain([(answer.error_code, answer.error_message.as_ref())]);
    match all.find(|(code, _)| *code != 0) {
        None => Ok(()),
        Some((code, message)) => Err(WireError::Refused {
            what: UpdateFeaturesRequest::WHAT,
            code,
            message: message.map(ToString::to_string),
        }),
    }
}

//! Between a session's messages and Kafka's records. No IO.

use crate::codec::Qos;
use crate::session::{Inbound, Message, Now};
use std::borrow::Cow;
use tidegate_core::{Metadata, Principal, Record};

/// The record of a client's message.
pub(super) fn record(message: Message, principal: &Principal, now: Now) -> Record {
    Record {
        address: message.address,
        payload: message.payload,
        metadata: Metadata {
            device: principal.as_str().to_owned(),
            protocol: Cow::Borrowed("mqtt"),
            content_type: message.content_type,
            time_ms: Some(now.wall_ms),
            expiry_ms: message.expiry_ms,
            retain: message.retain,
            response_address: message.response_topic,
            correlation: message.correlation,
            id: message.id,
            user: message.user,
        },
    }
}

/// A record as a session takes it.
pub(super) fn inbound(record: &Record) -> Inbound<'_> {
    let metadata = &record.metadata;
    Inbound {
        address: &record.address,
        payload: &record.payload,
        qos: Qos::AtLeastOnce,
        retain: metadata.retain,
        text_payload: None,
        expiry_ms: metadata.expiry_ms,
        content_type: metadata.content_type.as_deref(),
        response_topic: metadata.response_address.as_deref(),
        correlation: metadata.correlation.as_deref(),
        id: metadata.id.as_deref(),
        user: &metadata.user,
    }
}

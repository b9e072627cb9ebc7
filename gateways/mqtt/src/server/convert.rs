//! Between a session's messages and Kafka's records. No IO.

use super::desired::News;
use crate::codec::Qos;
use crate::session::{Inbound, Message, Now};
use std::borrow::Cow;
use tidegate_contract::Address;
use tidegate_contract::desired::Document;
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
            at_most_once: message.qos == Qos::AtMostOnce,
            text: message.text_payload,
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
        qos: if metadata.at_most_once { Qos::AtMostOnce } else { Qos::AtLeastOnce },
        retain: metadata.retain,
        retained: false,
        text_payload: metadata.text,
        expiry_ms: metadata.expiry_ms,
        content_type: metadata.content_type.as_deref(),
        response_topic: metadata.response_address.as_deref(),
        correlation: metadata.correlation.as_deref(),
        id: metadata.id.as_deref(),
        user: &metadata.user,
    }
}

/// A desired document, or that there is none any more, as a session takes it.
pub(super) fn document<'a>(address: &'a Address, news: &'a News) -> Inbound<'a> {
    let json = news.document.as_deref().map(Document::json);
    Inbound {
        address,
        payload: json.unwrap_or_default(),
        qos: Qos::AtLeastOnce,
        // as if whoever writes it had asked for it
        retain: true,
        retained: news.retained,
        text_payload: Some(true),
        expiry_ms: None,
        content_type: json.map(|_| "application/json"),
        response_topic: None,
        correlation: None,
        id: None,
        user: &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_a_message_says_reaches_subscribers_unaltered() {
        for (qos, text) in
            [(Qos::AtMostOnce, None), (Qos::AtLeastOnce, Some(true)), (Qos::AtLeastOnce, Some(false))]
        {
            let message = Message {
                address: Address::parse("a/b").unwrap(),
                payload: Bytes::from_static(b"x"),
                qos,
                retain: true,
                text_payload: text,
                expiry_ms: Some(9),
                content_type: Some("text/plain".to_owned()),
                response_topic: Some("answers".to_owned()),
                correlation: Some(Bytes::from_static(b"\xFF")),
                id: Some("mark-1".to_owned()),
                user: vec![("n".to_owned(), "v".to_owned())],
            };
            let now = Now { steady_ms: 0, wall_ms: 5 };
            let record = record(message.clone(), &Principal::parse("meters/1").unwrap(), now);
            assert_eq!((record.metadata.device.as_str(), &*record.metadata.protocol), ("meters/1", "mqtt"));
            assert_eq!(record.metadata.time_ms, Some(5));
            let inbound = inbound(&record);
            assert_eq!((inbound.address, inbound.payload, inbound.qos), (&message.address, &b"x"[..], qos));
            assert_eq!((inbound.text_payload, inbound.retain, inbound.expiry_ms), (text, true, Some(9)));
            assert_eq!(inbound.content_type, message.content_type.as_deref());
            assert_eq!(inbound.response_topic, message.response_topic.as_deref());
            assert_eq!(inbound.correlation, message.correlation.as_deref());
            assert_eq!((inbound.id, inbound.user), (message.id.as_deref(), &message.user[..]));
        }
    }
}

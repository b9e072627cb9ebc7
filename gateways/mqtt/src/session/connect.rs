//! CONNECT and CONNACK (MQTT 5 §3.1, §3.2).

use super::types::{Action, Admit, Close, Message, Now};
use super::{Deliveries, Phase, Session};
use crate::codec::{Announcement, Connect, Properties, Qos, Reason, Reply, Version, Will};
use tidegate_contract::Address;

/// The longest client identifier that is taken, in bytes. The standard asks for 23 (MQTT-3.1.3-5).
const CLIENT_ID_BYTES: usize = 256;

/// What CONNACK will say, kept until the client is admitted.
#[derive(Debug)]
pub(super) struct Announced(Announcement);

/// A Will that waits for its moment.
#[derive(Debug)]
pub(super) struct PendingWill {
    message: Box<Message>,
    expiry_s: Option<u32>,
}

impl PendingWill {
    /// The record as of now: its expiry interval starts when it is published (MQTT 5 §3.1.3.2.4).
    pub(super) fn publish(self, now: Now) -> Box<Message> {
        let mut message = self.message;
        message.expiry_ms = self.expiry_s.map(|seconds| expiry_ms(now, seconds));
        message
    }
}

pub(super) fn expiry_ms(now: Now, seconds: u32) -> i64 {
    now.wall_ms.saturating_add(i64::from(seconds) * 1_000)
}

/// The record of a PUBLISH or a Will from its parts.
pub(super) fn message(
    address: Address,
    payload: bytes::Bytes,
    qos: Qos,
    retain: bool,
    properties: Properties,
) -> Message {
    Message {
        address,
        payload,
        qos: qos.min(Qos::AtLeastOnce),
        retain,
        text_payload: properties.text_payload,
        expiry_ms: None,
        content_type: properties.content_type,
        response_topic: properties.response_topic,
        correlation: properties.correlation,
        id: None,
        user: properties.user,
    }
}

/// Whether a text may be a Response Topic (MQTT-3.3.2-14).
pub(super) fn is_response_topic(text: &str) -> bool {
    !text.is_empty() && !text.contains(['+', '#'])
}

impl Session {
    /// CONNECT came.
    pub(super) fn connect(&mut self, connect: Connect, now: Now) {
        self.version = connect.version;
        let properties = &connect.properties;
        self.limit = properties.maximum_packet_size.unwrap_or(u32::MAX);
        self.explain = properties.request_problem.unwrap_or(true);
        self.asked_expiry = properties.session_expiry.is_some_and(|seconds| seconds > 0);
        if properties.authentication_method.is_some() {
            let text = "no authentication method is supported"; // MQTT-4.12.0-1
            return self.refuse(Reason::BadAuthenticationMethod, text, now);
        }
        let v5 = self.version == Version::V5;
        // MQTT-3.1.3-8 of 3.1.1: without an identifier there is nothing to come back to
        let nameless = connect.client_id.is_empty();
        if connect.client_id.len() > CLIENT_ID_BYTES || (nameless && !v5 && !connect.clean) {
            let text = if nameless {
                "with clean session 0 a client needs an identifier: send one, or set clean session"
            } else {
                "the client identifier is longer than 256 bytes: use a shorter one"
            };
            return self.refuse(Reason::ClientIdentifierNotValid, text, now);
        }
        if let Some(will) = connect.will {
            match pending_will(will, v5) {
                Ok(will) => self.will = Some(will),
                Err((reason, text)) => return self.refuse(reason, text, now),
            }
        }
        let keep_alive = self.keep_alive(connect.keep_alive);
        self.deliveries =
            Deliveries::new(properties.receive_maximum.unwrap_or(u16::MAX), self.config.in_flight);
        let client_id =
            if nameless { self.config.assigned_client_id.clone() } else { connect.client_id.clone() };
        self.announced = Some(Announced(Announcement {
            receive_maximum: self.config.in_flight.max(1),
            maximum_packet_size: self.config.packet_bytes,
            assigned_client_id: nameless.then(|| client_id.clone()),
            server_keep_alive: (keep_alive != connect.keep_alive).then_some(keep_alive),
        }));
        self.timers.connected(keep_alive);
        self.phase = Phase::Admitting;
        self.actions.push_back(Action::Admit(Admit {
            client_id,
            username: connect.username,
            password: connect.password,
            will: self.will.as_ref().map(|will| will.message.address.clone()),
        }));
    }

    /// The keep-alive in effect, in seconds. Version 5 lets the server shorten it (MQTT-3.1.2-21), so that a dead
    /// node's connections are noticed by both sides.
    fn keep_alive(&self, asked: u16) -> u16 {
        let max = self.config.keep_alive_max;
        if self.version == Version::V5 && (asked == 0 || asked > max) { max } else { asked }
    }

    /// The client is the owner of its identifier now: CONNACK, and the session lives.
    pub fn admitted(&mut self, now: Now) {
        if self.phase == Phase::Admitting {
            self.phase = Phase::Live;
            let announced = self.announced.take();
            let announcement = announced.as_ref().map(|announced| &announced.0);
            self.send(&Reply::ConnAck { reason: Reason::Success, announcement, text: "" });
        }
        self.settle(now);
    }

    /// The client may not come in.
    pub fn turned_away(&mut self, reason: Reason, text: &str, now: Now) {
        if self.phase == Phase::Admitting {
            self.refuse(reason, text, now);
        }
        self.settle(now);
    }

    /// CONNACK with a reason, then the end (MQTT-3.2.2-7). 3.1.1 has few codes: it only closes for the others.
    fn refuse(&mut self, reason: Reason, text: &str, now: Now) {
        self.connack(reason, text);
        self.will = None;
        self.end(Close::TurnedAway(reason.name()), None, now);
    }

    pub(super) fn connack(&mut self, reason: Reason, text: &str) {
        self.send(&Reply::ConnAck { reason, announcement: None, text });
    }
}

fn pending_will(will: Will, v5: bool) -> Result<PendingWill, (Reason, &'static str)> {
    if v5 && will.qos == Qos::ExactlyOnce {
        return Err((Reason::QosNotSupported, "the Will's QoS is at most 1")); // MQTT-3.2.2-12
    }
    if v5 && will.retain {
        return Err((Reason::RetainNotSupported, "retained messages are not supported")); // MQTT-3.2.2-13
    }
    let Ok(address) = Address::parse(&will.topic) else {
        return Err((Reason::TopicNameInvalid, "the Will's topic is no address"));
    };
    if will.properties.response_topic.as_deref().is_some_and(|text| !is_response_topic(text)) {
        return Err((Reason::ProtocolError, "a response topic has no wildcards"));
    }
    // the Will Delay Interval is bounded by the session expiry, which is 0 here: it goes out at once
    let expiry_s = will.properties.message_expiry;
    let message = message(address, will.payload, will.qos, will.retain, will.properties);
    Ok(PendingWill { message: Box::new(message), expiry_s })
}

//! PUBLISH from the client and its answer (MQTT 5 §3.3, §3.4, §4.4).

use super::Session;
use super::connect::{expiry_ms, is_response_topic, message};
use super::outstanding::{Answer, Next};
use super::types::{Action, Close, Now, Refusal};
use crate::codec::{Publish, Qos, Reason, Reply, Version};
use tidegate_contract::{Address, AddressError, desired};

// They say what to do: who reads them is at the device, and often not the one who runs the platform.
const NO_TOPIC: &str = "no topic holds this address: create a Topic whose filters match it, or use an address that a topic holds";
const TOO_LARGE: &str =
    "the topic takes no record so large: send a smaller payload, or raise maxMessageBytes of the Topic";

impl Session {
    pub(super) fn publish(&mut self, publish: Publish, now: Now) {
        let v5 = self.version == Version::V5;
        if let Err((reason, text)) = self.check(&publish) {
            return self.violation(reason, text, now);
        }
        let at_least_once = publish.qos == Qos::AtLeastOnce;
        if at_least_once && self.outstanding.has(publish.packet_id) {
            // An older client of 3.1.1 may send again while it waits: the first one's answer covers it. Anything
            // else would make an acknowledgement ambiguous (MQTT-2.2.1-3, MQTT-4.4.0-1).
            if v5 || !publish.dup {
                self.violation(Reason::ProtocolError, "the packet identifier is in use", now);
            }
            return;
        }
        if v5
            && at_least_once
            && self.outstanding.at_least_once() >= usize::from(self.config.in_flight.max(1))
        {
            return self.violation(
                Reason::ReceiveMaximumExceeded,
                "more publishes than Receive Maximum",
                now,
            );
        }
        self.counts.received[usize::from(at_least_once)] += 1;
        let token = self.outstanding.push(publish.packet_id, publish.qos);
        let address = match Address::parse(&publish.topic) {
            Ok(address) => address,
            Err(_) if desired::owner(&publish.topic).is_some() => {
                return self.refused(token, Refusal::Denied, now);
            }
            Err(error) => return self.refused(token, Refusal::Address(error), now),
        };
        let properties = publish.properties.map(|boxed| *boxed).unwrap_or_default();
        let expiry = properties.message_expiry.map(|seconds| expiry_ms(now, seconds));
        let mut message = message(address, publish.payload, publish.qos, publish.retain, properties);
        message.expiry_ms = expiry;
        message.id = self.marks_own.then(|| format!("{}-{token}", self.config.mark));
        self.actions.push_back(Action::Publish { token, message: Box::new(message) });
    }

    /// What the standard lets no client send.
    fn check(&self, publish: &Publish) -> Result<(), (Reason, &'static str)> {
        let v5 = self.version == Version::V5;
        if publish.qos == Qos::ExactlyOnce {
            return Err((Reason::QosNotSupported, "the highest QoS is 1")); // MQTT-3.2.2-11
        }
        if v5 && publish.retain {
            return Err((Reason::RetainNotSupported, "retained messages are not supported")); // MQTT-3.2.2-14
        }
        let properties = publish.properties.as_deref();
        if properties.is_some_and(|properties| properties.topic_alias.is_some()) {
            return Err((Reason::TopicAliasInvalid, "Topic Alias Maximum is 0")); // MQTT-3.3.2-9
        }
        match Address::parse(&publish.topic) {
            Err(AddressError::Empty) => return Err((Reason::ProtocolError, "the topic name is empty")),
            // MQTT-3.3.2-2
            Err(AddressError::Wildcard) => {
                return Err((Reason::TopicNameInvalid, "a topic name has no wildcards"));
            }
            _ => {}
        }
        let response = properties.and_then(|properties| properties.response_topic.as_deref());
        if response.is_some_and(|text| !is_response_topic(text)) {
            return Err((Reason::ProtocolError, "a response topic has no wildcards"));
        }
        Ok(())
    }

    /// Kafka holds the record.
    pub fn stored(&mut self, token: u64, now: Now) {
        self.answer(token, Answer::Stored, now);
    }

    /// The record could not be stored now, or nobody knows whether it was. Nothing later on this connection is
    /// acknowledged; the client sends again from there on a new one. Never a PUBACK with 0x80 or more, which would
    /// make the client drop the message (MQTT-4.4.0-2).
    pub fn failed(&mut self, token: u64, now: Now) {
        self.answer(token, Answer::Failed, now);
    }

    /// The record is refused for good.
    pub fn refused(&mut self, token: u64, refusal: Refusal, now: Now) {
        self.answer(token, Answer::Refused(refusal), now);
    }

    fn answer(&mut self, token: u64, answer: Answer, now: Now) {
        self.outstanding.answer(token, answer);
        self.doomed |= answer == Answer::Failed;
        while !self.is_closed()
            && let Some(next) = self.outstanding.next()
        {
            self.acknowledge(next, now);
        }
        self.settle(now);
    }

    fn acknowledge(&mut self, next: Next, now: Now) {
        let at_least_once = next.qos == Qos::AtLeastOnce;
        match next.answer {
            Answer::Failed => self.end(Close::PublishFailed, Some(Reason::ServerBusy), now),
            Answer::Stored if at_least_once => {
                self.counts.acknowledged += 1;
                self.send(&Reply::PubAck { packet_id: next.packet_id, reason: Reason::Success, text: "" });
            }
            Answer::Stored => {}
            Answer::Refused(refusal) => {
                self.counts.refused += 1;
                self.answer_refused(next.packet_id, at_least_once, refusal, now);
            }
        }
    }

    /// QoS 0 has no answer: the message is dropped, which both versions allow (MQTT-3.3.5-2 of 3.1.1), and
    /// counted. 3.1.1 cannot refuse a QoS 1 message but by closing.
    fn answer_refused(&mut self, packet_id: u16, at_least_once: bool, refusal: Refusal, now: Now) {
        if !at_least_once {
            return;
        }
        if self.version == Version::V3 {
            return self.end(Close::Refused(refusal), None, now);
        }
        let (reason, text) = match refusal {
            Refusal::Address(error) => (Reason::TopicNameInvalid, error.to_string()),
            Refusal::NoTopic => (Reason::TopicNameInvalid, NO_TOPIC.to_owned()),
            Refusal::Denied => (Reason::NotAuthorized, String::new()),
            // "Packet too large" is no reason code of PUBACK (§3.4.2.1), and a DISCONNECT would make the client
            // send the same message again for ever: an administrator's limit is what it is
            Refusal::TooLarge => (Reason::QuotaExceeded, TOO_LARGE.to_owned()),
        };
        let text = if self.explain { &text } else { "" };
        self.send(&Reply::PubAck { packet_id, reason, text });
    }
}

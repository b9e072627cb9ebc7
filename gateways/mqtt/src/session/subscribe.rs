//! SUBSCRIBE, UNSUBSCRIBE and the records that follow (MQTT 5 §3.8 to §3.11).

use super::subscriptions::Options;
use super::types::{Action, Close, Inbound, Now, Subscribed};
use super::{Phase, Session};
use crate::codec::{Delivery, Packet, Qos, Reason, Reply, Subscribe, SubscribeEntry, Unsubscribe, Version};
use std::collections::HashSet;
use tidegate_contract::{Filter, FilterError};

/// A SUBSCRIBE whose start positions are being fixed.
#[derive(Debug)]
pub(super) struct Subscribing {
    packet_id: u16,
    entries: Vec<Entry>,
    /// The filters that were asked for, in that order.
    asked: Vec<Filter>,
}

#[derive(Debug)]
enum Entry {
    Granted(Filter, Options),
    Refused(Reason),
}

impl Session {
    pub(super) fn subscribe(&mut self, subscribe: Subscribe, now: Now) {
        let no_local = subscribe.entries.iter().any(|entry| entry.no_local);
        // one at a time; and with No Local, records that cannot be told as own ones have to land first
        if self.subscribing.is_some() || (no_local && !self.marks_own && !self.outstanding.is_empty()) {
            self.deferred = Some(Packet::Subscribe(subscribe));
            return;
        }
        self.marks_own |= no_local;
        let mut entries = Vec::with_capacity(subscribe.entries.len());
        let mut new: HashSet<Filter> = HashSet::new();
        for entry in &subscribe.entries {
            match self.plan(entry, subscribe.identifier, &mut new) {
                Ok(entry) => entries.push(entry),
                Err((reason, text)) => return self.violation(reason, &text, now),
            }
        }
        let filters = self.to_start(&entries);
        let asked = filters.iter().map(|(filter, _)| filter.clone()).collect();
        self.subscribing = Some(Subscribing { packet_id: subscribe.packet_id, entries, asked });
        if filters.is_empty() {
            self.subscribed(&[], now);
        } else {
            self.actions.push_back(Action::Subscribe { filters });
        }
    }

    fn plan(
        &self,
        entry: &SubscribeEntry,
        identifier: Option<u32>,
        new: &mut HashSet<Filter>,
    ) -> Result<Entry, (Reason, String)> {
        if entry.filter.starts_with("$share/") {
            if entry.no_local {
                return Err((Reason::ProtocolError, "a shared subscription has no No Local".to_owned())); // MQTT-3.8.3-4
            }
            return Ok(Entry::Refused(Reason::SharedSubscriptionsNotSupported));
        }
        let filter = match Filter::parse(&entry.filter) {
            Ok(filter) => filter,
            Err(FilterError::TooLong(_)) => return Ok(Entry::Refused(Reason::TopicFilterInvalid)),
            // MQTT-4.7.1-1, MQTT-4.7.1-2, MQTT-4.7.3-1
            Err(error) => return Err((Reason::TopicFilterInvalid, error.to_string())),
        };
        if self.subscriptions.get(&filter).is_none() && !new.contains(&filter) {
            if self.subscriptions.len() + new.len() >= self.config.subscriptions {
                return Ok(Entry::Refused(Reason::QuotaExceeded));
            }
            new.insert(filter.clone());
        }
        let options = Options {
            qos: entry.qos.min(Qos::AtLeastOnce),
            no_local: entry.no_local,
            retain_as_published: entry.retain_as_published,
            retain_handling: entry.retain_handling,
            identifier,
        };
        Ok(Entry::Granted(filter, options))
    }

    /// The filters that are not read yet, or not as reliably as they now have to be. Of the same filter twice the
    /// last one counts.
    fn to_start(&self, entries: &[Entry]) -> Vec<(Filter, bool)> {
        let mut seen = HashSet::new();
        let mut filters = Vec::new();
        for entry in entries.iter().rev() {
            let Entry::Granted(filter, options) = entry else { continue };
            if !seen.insert(filter) {
                continue;
            }
            let reliable = options.qos == Qos::AtLeastOnce;
            let had = self.subscriptions.get(filter).map(|old| old.qos == Qos::AtLeastOnce);
            if had != Some(reliable) {
                filters.push((filter.clone(), reliable));
            }
        }
        filters.reverse();
        filters
    }

    /// What became of the filters of [`Action::Subscribe`], in their order: SUBACK (MQTT-3.8.4-1).
    pub fn subscribed(&mut self, results: &[Subscribed], now: Now) {
        let Some(subscribing) = self.subscribing.take() else { return };
        if results.contains(&Subscribed::Failed) || results.len() != subscribing.asked.len() {
            // a refusal would tell the client not to try again
            return self.end(Close::SubscribeFailed, Some(Reason::ServerBusy), now);
        }
        let denied: HashSet<_> = subscribing
            .asked
            .iter()
            .zip(results)
            .filter(|(_, result)| **result == Subscribed::Denied)
            .map(|(filter, _)| filter)
            .collect();
        let mut codes = Vec::with_capacity(subscribing.entries.len());
        let mut retained = Vec::new();
        for entry in &subscribing.entries {
            let code = match entry {
                Entry::Granted(filter, _) if denied.contains(filter) => Err(Reason::NotAuthorized),
                Entry::Granted(filter, options) => {
                    let is_new = self.subscriptions.get(filter).is_none();
                    // elsewhere nothing is retained
                    if filter.is_kept() && options.wants_retained(is_new) && !retained.contains(filter) {
                        retained.push(filter.clone());
                    }
                    self.subscriptions.insert(filter, *options);
                    Ok(options.qos as u8)
                }
                Entry::Refused(reason) => Err(*reason),
            };
            codes.push(match (code, self.version) {
                (Ok(code), _) => code,
                (Err(reason), Version::V5) => reason.code(),
                (Err(_), Version::V3) => Reason::Unspecified.code(), // MQTT-3.9.3-2 of 3.1.1
            });
        }
        if self.phase == Phase::Live {
            self.send(&Reply::SubAck { packet_id: subscribing.packet_id, codes: &codes });
            self.actions.extend(retained.into_iter().map(Action::Retained));
        }
        self.settle(now);
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: Unsubscribe, _now: Now) {
        if self.subscribing.is_some() {
            self.deferred = Some(Packet::Unsubscribe(unsubscribe));
            return;
        }
        let mut codes = Vec::with_capacity(unsubscribe.filters.len());
        for text in &unsubscribe.filters {
            codes.push(match Filter::parse(text) {
                Ok(filter) if self.subscriptions.remove(&filter) => {
                    self.actions.push_back(Action::Unsubscribe(filter));
                    Reason::Success.code()
                }
                Ok(_) => Reason::NoSubscriptionExisted.code(),
                Err(_) => Reason::TopicFilterInvalid.code(),
            });
        }
        self.send(&Reply::UnsubAck { packet_id: unsubscribe.packet_id, codes: &codes });
    }

    /// A record that a subscription may match. To be called only while [`Session::wants_record`] says so.
    pub fn deliver(&mut self, record: &Inbound<'_>, now: Now) {
        if !self.wants_record() {
            return;
        }
        let left_ms = record.expiry_ms.map(|expiry| expiry.saturating_sub(now.wall_ms));
        if left_ms.is_some_and(|left| left <= 0) {
            self.counts.expired += 1; // MQTT-3.3.2-5
            return;
        }
        let own = self.marks_own && record.id.is_some_and(|id| self.is_own(id));
        let Some(dispatch) = self.subscriptions.dispatch(record, own) else { return };
        let packet_id = match dispatch.qos {
            Qos::AtMostOnce => 0,
            _ => self.deliveries.take().unwrap_or_default(),
        };
        let delivery = Delivery {
            topic: record.address.as_str(),
            payload: record.payload,
            qos: dispatch.qos,
            packet_id,
            retain: dispatch.retain,
            text_payload: record.text_payload,
            // rounded up: a message with time left never arrives with none (MQTT-3.3.2-6)
            message_expiry: left_ms.map(|left| u32::try_from((left + 999) / 1_000).unwrap_or(u32::MAX)),
            content_type: record.content_type,
            response_topic: record.response_topic,
            correlation: record.correlation,
            identifiers: &dispatch.identifiers,
            user: record.user,
        };
        if crate::codec::encode(&Reply::Publish(&delivery), self.version, self.limit, &mut self.output) {
            self.counts.delivered[usize::from(packet_id != 0)] += 1;
        } else {
            // as if it had been delivered (MQTT-3.1.2-25)
            self.deliveries.release(packet_id);
            self.counts.too_large += 1;
        }
        self.settle(now);
    }

    fn is_own(&self, id: &str) -> bool {
        id.strip_prefix(&self.config.mark).is_some_and(|rest| rest.starts_with('-'))
    }
}

//! One client's session as a state machine: it is fed packets, answers and a clock, and says what to send and
//! what to do. No IO, no clock of its own.
//!
//! Whoever drives it reads packets only while [`Session::wants_packet`] says so, offers records only while
//! [`Session::wants_record`] does, carries out every [`Action`] in order and writes [`Session::output`]. The
//! promise it keeps: a PUBACK with success leaves only after [`Session::stored`] was called for that publish,
//! in the order of the publishes, and never again after one that failed.

mod connect;
mod deliveries;
mod outstanding;
mod publish;
mod subscribe;
mod subscriptions;
#[cfg(test)]
mod tests;
mod timers;
mod types;

use crate::codec::{DecodeError, Disconnect, Packet, Reason, Reply, Version, encode};
use bytes::{Buf, BytesMut};
use deliveries::Deliveries;
use outstanding::Outstanding;
use std::collections::VecDeque;
use subscribe::Subscribing;
use subscriptions::Subscriptions;
use timers::Timers;
pub use types::{Action, Admit, Close, Counts, Inbound, Message, Now, Refusal, SessionConfig, Subscribed};

/// One client's session. See the module's documentation.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools)] // independent facts, not states: those are in `phase`
pub struct Session {
    config: SessionConfig,
    phase: Phase,
    version: Version,
    /// The client's Maximum Packet Size, in bytes.
    limit: u32,
    /// Whether reason strings may go with any packet (Request Problem Information).
    explain: bool,
    /// Whether CONNECT asked for a session that outlives the connection.
    asked_expiry: bool,
    announced: Option<connect::Announced>,
    will: Option<connect::PendingWill>,
    outstanding: Outstanding,
    /// An answer is known that will close the connection when its turn comes: nothing more is read.
    doomed: bool,
    /// Whether the process has room for one more publish.
    room: bool,
    subscriptions: Subscriptions,
    subscribing: Option<Subscribing>,
    /// A packet that waits for an earlier one's answer.
    deferred: Option<Packet>,
    /// Whether own records must be recognisable, for a subscription with No Local.
    marks_own: bool,
    deliveries: Deliveries,
    timers: Timers,
    output: BytesMut,
    actions: VecDeque<Action>,
    counts: Counts,
}

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// CONNECT has not come.
    Connecting,
    /// CONNECT came; whether the client may come in is not known.
    Admitting,
    /// CONNACK was sent.
    Live,
    /// Answers of publishes are awaited, then it ends like this.
    Draining(Close, Option<Reason>),
    /// [`Action::Close`] was given.
    Closed,
}

impl Session {
    /// The session of a connection that was just accepted.
    pub fn new(config: SessionConfig, now: Now) -> Self {
        Self {
            phase: Phase::Connecting,
            version: Version::V5,
            limit: u32::MAX,
            explain: true,
            asked_expiry: false,
            announced: None,
            will: None,
            outstanding: Outstanding::default(),
            doomed: false,
            room: true,
            subscriptions: Subscriptions::default(),
            subscribing: None,
            deferred: None,
            marks_own: false,
            deliveries: Deliveries::new(u16::MAX, config.in_flight),
            timers: Timers::new(&config, now),
            output: BytesMut::new(),
            actions: VecDeque::new(),
            counts: Counts::default(),
            config,
        }
    }

    // ---- what the driver asks

    /// Whether the next packet may be read. While not, the keep-alive's clock stands still.
    pub fn wants_packet(&self) -> bool {
        match self.phase {
            Phase::Connecting => true,
            Phase::Live => {
                let others = match self.version {
                    Version::V3 => self.outstanding.len(),
                    // Receive Maximum tells a client of version 5 about the bound on QoS 1
                    Version::V5 => self.outstanding.len() - self.outstanding.at_least_once(),
                };
                self.room
                    && !self.doomed
                    && self.deferred.is_none()
                    && others < usize::from(self.config.in_flight.max(1))
                    && self.output.len() < self.config.output_high
            }
            _ => false,
        }
    }

    /// Whether a record may be offered with [`Session::deliver`].
    pub fn wants_record(&self) -> bool {
        self.phase == Phase::Live && self.deliveries.has_room() && self.output.len() < self.config.output_high
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The bytes to send.
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// So many bytes of the output were sent.
    pub fn sent(&mut self, bytes: usize, now: Now) {
        self.output.advance(bytes.min(self.output.len()));
        self.timers.moved(now);
        self.settle(now);
    }

    /// When [`Session::tick`] has to be called at the latest, on the steady clock.
    pub fn deadline_ms(&self) -> Option<u64> {
        if self.phase == Phase::Closed { None } else { self.timers.deadline() }
    }

    /// Whether [`Action::Close`] was given.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Whether publishes wait for their answers.
    pub fn has_outstanding(&self) -> bool {
        !self.outstanding.is_empty()
    }

    /// The version that the client speaks, once it connected.
    pub fn version(&self) -> Option<Version> {
        (self.phase != Phase::Connecting).then_some(self.version)
    }

    /// What happened since the last call.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }

    // ---- what the driver tells

    /// A packet came.
    pub fn packet(&mut self, packet: Packet, now: Now) {
        self.timers.heard(now);
        match self.phase {
            Phase::Connecting => match packet {
                Packet::Connect(connect) => self.connect(*connect, now),
                _ => self.malformed(DecodeError::NotConnect, now),
            },
            Phase::Live => self.live(packet, now),
            _ => {}
        }
        self.settle(now);
    }

    /// What came is no packet that a client may send here.
    pub fn malformed(&mut self, error: DecodeError, now: Now) {
        match self.phase {
            Phase::Connecting => {
                // the version in which the client understands a refusal is the one that it spoke
                if let DecodeError::ProtocolLevel(level) = error {
                    self.version = if level < 5 { Version::V3 } else { Version::V5 };
                    self.connack(error.code(), "this server speaks MQTT 3.1.1 and 5");
                }
                self.end(Close::Malformed(error), None, now);
            }
            Phase::Admitting | Phase::Live => {
                self.disconnect(error.code(), &error.to_string());
                self.end(Close::Malformed(error), None, now);
            }
            Phase::Draining(..) | Phase::Closed => {}
        }
    }

    /// The client will send nothing more, or the connection broke. Answers on their way are still awaited: a
    /// client may have closed only its own direction.
    pub fn lost(&mut self, now: Now) {
        match self.phase {
            Phase::Connecting | Phase::Admitting => self.end(Close::Lost, None, now),
            Phase::Live => self.drain(Close::Lost, None, now),
            Phase::Draining(..) | Phase::Closed => {}
        }
    }

    /// Another connection took the client identifier (MQTT-3.1.4-3).
    pub fn taken_over(&mut self, now: Now) {
        self.end(Close::TakenOver, Some(Reason::SessionTakenOver), now);
    }

    /// The device may not be here any more (MQTT 5 §4.13).
    pub fn revoked(&mut self, now: Now) {
        self.end(Close::Revoked, Some(Reason::NotAuthorized), now);
    }

    /// The process ends: answers on their way are still awaited.
    pub fn shut_down(&mut self, now: Now) {
        match self.phase {
            Phase::Connecting | Phase::Admitting => self.end(Close::Shutdown, None, now),
            Phase::Live => self.drain(Close::Shutdown, Some(Reason::ServerShuttingDown), now),
            Phase::Draining(..) | Phase::Closed => {}
        }
    }

    /// Ends at once, answered or not: the time to drain is over, or the connection cannot be written to.
    pub fn abort(&mut self, now: Now) {
        match self.phase {
            Phase::Draining(close, reason) => self.end(close, reason, now),
            _ => self.end(Close::Lost, None, now),
        }
    }

    /// A large packet on its way costs the process more than it can give; the client may come again.
    pub fn overtaxed(&mut self, close: Close, now: Now) {
        match self.phase {
            Phase::Connecting | Phase::Admitting | Phase::Live => {
                self.end(close, Some(Reason::ServerBusy), now);
            }
            // nothing more is read
            Phase::Draining(..) | Phase::Closed => {}
        }
    }

    /// Whether the process has room for one more publish.
    pub fn set_room(&mut self, room: bool, now: Now) {
        self.room = room;
        self.settle(now);
    }

    /// The clock reached [`Session::deadline_ms`].
    pub fn tick(&mut self, now: Now) {
        match self.timers.due(now) {
            Some(close @ Close::KeepAlive) => self.end(close, Some(Reason::KeepAliveTimeout), now),
            Some(close) => self.end(close, Some(Reason::AdministrativeAction), now),
            None => {}
        }
        self.settle(now);
    }

    // ---- inside

    fn live(&mut self, packet: Packet, now: Now) {
        match packet {
            Packet::Publish(publish) => self.publish(publish, now),
            // one that is not waited for changes nothing
            Packet::PubAck(ack) => drop(self.deliveries.release(ack.packet_id)),
            Packet::Subscribe(subscribe) => self.subscribe(subscribe, now),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(unsubscribe, now),
            Packet::PingReq => self.send(&Reply::PingResp),
            Packet::Disconnect(disconnect) => self.client_disconnect(&disconnect, now),
            Packet::Connect(_) => self.malformed(DecodeError::SecondConnect, now),
            Packet::QosTwo(_) => {
                self.violation(Reason::ProtocolError, "no QoS 2 message is on its way", now);
            }
            Packet::Auth => {
                self.violation(Reason::ProtocolError, "no authentication method was agreed on", now);
            }
        }
    }

    fn client_disconnect(&mut self, disconnect: &Disconnect, now: Now) {
        let raises_expiry = disconnect.session_expiry.is_some_and(|seconds| seconds > 0);
        if raises_expiry && !self.asked_expiry {
            let text = "CONNECT asked for no session expiry, so DISCONNECT cannot"; // MQTT 5 §3.14.2.2.2
            return self.violation(Reason::ProtocolError, text, now);
        }
        if disconnect.is_normal() {
            self.will = None;
        }
        self.end(Close::Disconnect, None, now);
    }

    /// The client broke the protocol with a well-formed packet (MQTT 5 §4.13).
    fn violation(&mut self, reason: Reason, text: &str, now: Now) {
        self.disconnect(reason, text);
        self.end(Close::Violation(reason.name()), None, now);
    }

    fn send(&mut self, reply: &Reply<'_>) {
        encode(reply, self.version, self.limit, &mut self.output);
    }

    fn disconnect(&mut self, reason: Reason, text: &str) {
        self.send(&Reply::Disconnect { reason, text });
    }

    fn drain(&mut self, close: Close, reason: Option<Reason>, now: Now) {
        self.deferred = None;
        self.phase = Phase::Draining(close, reason);
        self.settle(now);
    }

    /// Ends the session: DISCONNECT where there is one to send, the Will unless the client deleted it.
    fn end(&mut self, close: Close, reason: Option<Reason>, now: Now) {
        if self.phase == Phase::Closed {
            return;
        }
        let connected = matches!(self.phase, Phase::Live | Phase::Draining(..));
        if let Some(reason) = reason
            && connected
        {
            self.disconnect(reason, "");
        }
        // before CONNACK with success there is no session, and no Will (MQTT-3.1.2-7)
        if let Some(will) = self.will.take()
            && connected
        {
            self.actions.push_back(Action::Will(will.publish(now)));
        }
        self.phase = Phase::Closed;
        self.deferred = None;
        self.actions.push_back(Action::Close(close));
    }

    /// What follows from a change: a drained session ends, a deferred packet's turn comes, clocks stop and go.
    fn settle(&mut self, now: Now) {
        if let Phase::Draining(close, reason) = self.phase
            && self.outstanding.is_empty()
        {
            self.end(close, reason, now);
        }
        if self.phase == Phase::Live
            && self.subscribing.is_none()
            && let Some(packet) = self.deferred.take()
        {
            self.live(packet, now);
        }
        self.timers.set_reading(self.wants_packet(), now);
        self.timers.set_waiting(!self.output.is_empty(), now);
    }
}

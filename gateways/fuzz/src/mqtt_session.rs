//! A client, Kafka and the clock against the MQTT session, as one string of bytes decides.
//!
//! Holds: no panic; a PUBACK with success only for a publish that was reported stored, in the order of the
//! publishes, never after one that failed; unsent output and unacknowledged deliveries stay bounded; every byte of
//! output belongs to a whole packet; one end, and nothing after it.

use bytes::BytesMut;
use std::collections::HashSet;
use tidegate_contract::{Address, Principal, desired};
use tidegate_mqtt::codec::{Decoder, Packet, Qos, Reason};
use tidegate_mqtt::session::{Action, Inbound, Now, Refusal, Session, SessionConfig, Subscribed};

const PACKET_BYTES: u32 = 2_048;
const IN_FLIGHT: u16 = 4;
const OUTPUT_HIGH: usize = 1_024;
const TOPICS: [&str; 7] = ["a", "a/b", "a/b/c", "b", "$SYS/x", "a/../b", DESIRED];
const FILTERS: [&str; 8] = ["#", "a/#", "+/b", "a/b", "b", "$share/g/a", "a#", DESIRED];
const DESIRED: &str = ".tidegate/desired/meters/1";

/// Runs one life of a session.
///
/// # Panics
/// Where the session breaks what it holds: that is the finding.
pub fn run(data: &[u8]) {
    let mut world = World::new();
    let mut input = Input(data);
    while let Some(step) = input.next() {
        world.step(step, &mut input);
        world.look();
    }
    world.end();
}

/// What is left of the input; reads 0 beyond its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Stored,
    Failed,
    Refused,
}

struct Publish {
    token: u64,
    packet_id: u16,
    at_least_once: bool,
    fate: Fate,
    acknowledged: bool,
}

struct World {
    session: Session,
    decoder: Decoder,
    input: BytesMut,
    now: Now,
    publishes: Vec<Publish>,
    asked_filters: Option<usize>,
    /// What is retained was asked for.
    asked_retained: bool,
    unacknowledged: HashSet<u16>,
    wills: usize,
    closed: bool,
}

impl World {
    fn new() -> Self {
        let config = SessionConfig {
            packet_bytes: PACKET_BYTES,
            in_flight: IN_FLIGHT,
            subscriptions: 3,
            idle_ms: 300_000,
            connect_ms: 10_000,
            stalled_ms: 30_000,
            keep_alive_max: 30,
            output_high: OUTPUT_HIGH,
            assigned_client_id: "tg-1".to_owned(),
            mark: "mark".to_owned(),
        };
        let now = Now { steady_ms: 5, wall_ms: 1_700_000_000_000 };
        Self {
            session: Session::new(config, now),
            decoder: Decoder::new(PACKET_BYTES),
            input: BytesMut::new(),
            now,
            publishes: Vec::new(),
            asked_filters: None,
            asked_retained: false,
            unacknowledged: HashSet::new(),
            wills: 0,
            closed: false,
        }
    }

    fn step(&mut self, step: u8, input: &mut Input<'_>) {
        match step % 20 {
            0 => {
                let length = usize::from(input.byte());
                let bytes = input.take(length);
                self.client_sends(bytes);
            }
            1 => self.connect(input),
            2..=4 => self.publish(input),
            5 => self.subscribe(input),
            6 => self.unsubscribe(input),
            7 => {
                let id = input.byte();
                self.client_sends(&[0x40, 2, 0, id]);
            }
            8 => self.client_sends(b"\xC0\x00"),
            9 => self.session.admitted(self.now),
            10 | 11 => self.kafka_answers(input, Fate::Stored),
            12 => self.kafka_answers(input, Fate::Failed),
            13 => self.kafka_answers(input, Fate::Refused),
            14 => self.answer_subscribe(input),
            15 => self.deliver(input),
            16 => {
                let length = usize::from(input.byte()) * 8;
                self.client_reads(length);
            }
            17 => {
                let ms = u64::from(input.byte()) * 250;
                self.now.steady_ms += ms;
                self.now.wall_ms += ms.cast_signed();
                self.session.tick(self.now);
            }
            18 => {
                let room = input.byte() & 1 == 0;
                self.session.set_room(room, self.now);
                self.read();
            }
            _ => match input.byte() % 6 {
                0 => self.session.lost(self.now),
                1 => self.session.taken_over(self.now),
                2 => self.session.shut_down(self.now),
                3 => self.session.abort(self.now),
                4 => self.session.turned_away(Reason::ServerBusy, "busy", self.now),
                _ => self.client_sends(b"\xE0\x00"),
            },
        }
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        // as a socket's buffer would hold it back
        if self.input.len() < 8_192 {
            self.input.extend_from_slice(bytes);
        }
        self.read();
    }

    fn read(&mut self) {
        while self.session.wants_packet() {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(packet)) => {
                    let id = match &packet {
                        Packet::Publish(publish) => publish.packet_id,
                        _ => 0,
                    };
                    if let Packet::PubAck(ack) = &packet {
                        self.unacknowledged.remove(&ack.packet_id);
                    }
                    // first what an earlier packet left, so that a publish is known to be this packet's
                    self.act(0);
                    self.session.packet(packet, self.now);
                    self.act(id);
                }
                Ok(None) => return,
                Err(error) => return self.session.malformed(error, self.now),
            }
        }
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let v5 = how & 1 == 0;
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', if v5 { 5 } else { 4 }];
        let will = how & 2 != 0;
        body.push(2 | if will { 0b0000_1100 } else { 0 });
        body.extend([0, input.byte()]);
        if v5 {
            body.extend([8, 0x21, 0, 1 + how / 64, 0x27, 0, 0, how, 200]);
        }
        body.extend([0, 1, b'c']);
        if will {
            if v5 {
                body.push(0);
            }
            body.extend([0, 1, b'w', 0, 1, b'x']);
        }
        self.frame(0x10, &body);
    }

    fn v5(&self) -> bool {
        self.decoder.version() == Some(tidegate_mqtt::codec::Version::V5)
    }

    fn publish(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let (qos, id) = (how & 0b11, input.byte());
        let topic = TOPICS[usize::from(how >> 2) % TOPICS.len()];
        let mut body = vec![0, u8::try_from(topic.len()).unwrap_or(0)];
        body.extend_from_slice(topic.as_bytes());
        if qos > 0 {
            body.extend([0, id]);
        }
        if self.v5() {
            body.push(0);
        }
        body.extend_from_slice(b"payload");
        self.frame(0x30 | (how >> 4 & 0b1000) | qos << 1, &body);
    }

    fn subscribe(&mut self, input: &mut Input<'_>) {
        let mut body = vec![0, 1];
        if self.v5() {
            let id = input.byte() % 4;
            body.extend_from_slice(if id == 0 { &[0] } else { &[2, 0x0B, 3] });
        }
        for _ in 0..=input.byte() % 4 {
            let how = input.byte();
            let filter = FILTERS[usize::from(input.byte()) % FILTERS.len()];
            body.extend([0, u8::try_from(filter.len()).unwrap_or(0)]);
            body.extend_from_slice(filter.as_bytes());
            // Retain Handling goes with it, the reserved value too
            body.push(how & 0b11_1111);
        }
        self.frame(0x82, &body);
    }

    fn unsubscribe(&mut self, input: &mut Input<'_>) {
        let filter = FILTERS[usize::from(input.byte()) % FILTERS.len()];
        let mut body = vec![0, 1];
        if self.v5() {
            body.push(0);
        }
        body.extend([0, u8::try_from(filter.len()).unwrap_or(0)]);
        body.extend_from_slice(filter.as_bytes());
        self.frame(0xA2, &body);
    }

    fn frame(&mut self, first: u8, body: &[u8]) {
        let mut bytes = vec![first];
        let mut left = body.len();
        while left >= 0x80 {
            bytes.push(u8::try_from(left & 0x7F).unwrap_or(0) | 0x80);
            left >>= 7;
        }
        bytes.push(u8::try_from(left).unwrap_or(0));
        bytes.extend_from_slice(body);
        self.client_sends(&bytes);
    }

    fn kafka_answers(&mut self, input: &mut Input<'_>, fate: Fate) {
        let which = usize::from(input.byte());
        let open: Vec<_> =
            (0..self.publishes.len()).filter(|&index| self.publishes[index].fate == Fate::Unknown).collect();
        let Some(&index) = open.get(which % open.len().max(1)) else {
            // an answer that nobody waits for
            return self.session.stored(1_000_000, self.now);
        };
        let publish = &mut self.publishes[index];
        publish.fate = fate;
        let token = publish.token;
        match fate {
            Fate::Stored => self.session.stored(token, self.now),
            Fate::Failed => self.session.failed(token, self.now),
            _ => self.session.refused(token, Refusal::NoTopic, self.now),
        }
        self.read();
    }

    fn answer_subscribe(&mut self, input: &mut Input<'_>) {
        let Some(filters) = self.asked_filters.take() else { return };
        let results: Vec<_> = (0..filters)
            .map(|_| match input.byte() % 8 {
                6 => Subscribed::Denied,
                7 => Subscribed::Failed,
                _ => Subscribed::Started,
            })
            .collect();
        self.session.subscribed(&results, self.now);
        self.read();
    }

    fn deliver(&mut self, input: &mut Input<'_>) {
        let how = input.byte();
        let desired = how & 0x04 != 0;
        let address = if desired {
            Principal::parse("meters/1").map(|principal| desired::address(&principal)).ok()
        } else {
            Address::parse(TOPICS[usize::from(how) % 4]).ok()
        };
        let Some(address) = address else { return };
        let retained = desired && std::mem::take(&mut self.asked_retained);
        let payload = [0; 1_000];
        let record = Inbound {
            address: &address,
            payload: &payload[..usize::from(input.byte()) * 3],
            qos: if how & 0x40 == 0 { Qos::AtLeastOnce } else { Qos::AtMostOnce },
            retain: how & 0x80 != 0,
            retained,
            text_payload: (how & 0x20 != 0).then_some(true),
            expiry_ms: (how & 0x10 != 0).then_some(self.now.wall_ms + i64::from(how) - 200),
            content_type: Some("text/plain"),
            response_topic: None,
            correlation: None,
            id: (how & 0x08 != 0).then_some("mark-0"),
            user: &[],
        };
        let before = self.session.output().len();
        self.session.deliver(&record, self.now);
        let sent =
            frame(&self.session.output()[before..]).map(|(first, body, _)| (first, ids(first, body, false)));
        if let Some((first, (id, _))) = sent
            && first & 0b0110 != 0
        {
            self.delivered(id);
        }
    }

    /// Carries out the session's actions; a publish among them is of the packet with this identifier.
    fn act(&mut self, packet_id: u16) {
        while let Some(action) = self.session.next_action() {
            assert!(!self.closed, "an action after the end: {action:?}");
            match action {
                Action::Publish { token, message } => {
                    let last = self.publishes.last().map(|publish| publish.token);
                    assert!(last.is_none_or(|last| last < token), "tokens do not count up");
                    let at_least_once = message.qos != Qos::AtMostOnce;
                    assert_eq!(at_least_once, packet_id != 0);
                    let fate = Fate::Unknown;
                    self.publishes.push(Publish {
                        token,
                        packet_id,
                        at_least_once,
                        fate,
                        acknowledged: false,
                    });
                    let open = self.publishes.iter().filter(|publish| publish.fate == Fate::Unknown).count();
                    assert!(open <= 2 * usize::from(IN_FLIGHT), "more in flight than the bound");
                }
                Action::Subscribe { filters } => {
                    assert!(!filters.is_empty() && self.asked_filters.is_none());
                    self.asked_filters = Some(filters.len());
                }
                Action::Retained(filter) => {
                    assert_eq!(filter.as_str(), DESIRED);
                    self.asked_retained = true;
                }
                Action::Will(_) => self.wills += 1,
                Action::Close(_) => self.closed = true,
                Action::Admit(_) | Action::Unsubscribe(_) => {}
            }
        }
        assert!(self.wills <= 1 && self.closed == self.session.is_closed());
    }

    fn look(&mut self) {
        self.act(0);
        let waiting = self.session.output().len();
        assert!(waiting <= OUTPUT_HIGH + 4_096, "{waiting} bytes of output wait");
        assert!(!self.closed || !(self.session.wants_packet() || self.session.wants_record()));
    }

    /// The client takes whole packets, up to so many bytes.
    fn client_reads(&mut self, length: usize) {
        let mut taken = 0;
        while let Some((first, body, size)) = frame(&self.session.output()[taken..]) {
            if taken + size > length {
                break;
            }
            let (id, code) = ids(first, body, self.v5());
            taken += size;
            if first >> 4 == 4 && code < 0x80 {
                self.acknowledged(id);
            }
        }
        self.session.sent(taken, self.now);
        self.read();
    }

    fn delivered(&mut self, id: u16) {
        assert!(id != 0 && self.unacknowledged.insert(id), "packet identifier {id} is in use");
        assert!(self.unacknowledged.len() <= usize::from(IN_FLIGHT), "more deliveries than the window");
    }

    fn acknowledged(&mut self, id: u16) {
        let mut earlier = self.publishes.iter_mut();
        let Some(publish) = earlier.find(|publish| {
            assert!(publish.fate != Fate::Failed, "acknowledged {id} after a failure");
            publish.at_least_once && !publish.acknowledged && publish.fate != Fate::Refused
        }) else {
            panic!("acknowledged {id}, which nobody published");
        };
        assert_eq!(publish.packet_id, id, "acknowledged out of order");
        assert_eq!(publish.fate, Fate::Stored, "acknowledged {id} before it was stored");
        publish.acknowledged = true;
    }

    /// The connection ends: everything that is left is whole packets.
    fn end(&mut self) {
        self.session.abort(self.now);
        self.look();
        assert!(self.closed);
        self.client_reads(usize::MAX);
        assert!(self.session.output().is_empty(), "half a packet at the end");
    }
}

/// First byte, body and size of the packet at the start of `bytes`.
fn frame(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut length, mut header) = (0, 1);
    loop {
        let byte = *bytes.get(header)?;
        length |= usize::from(byte & 0x7F) << (7 * (header - 1));
        header += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((bytes[0], bytes.get(header..header + length)?, header + length))
}

/// Packet identifier and reason code, where the packet has them.
fn ids(first: u8, body: &[u8], v5: bool) -> (u16, u8) {
    let at = |index: usize| body.get(index).copied().unwrap_or(0);
    let start = if first >> 4 == 3 { 2 + usize::from(u16::from_be_bytes([at(0), at(1)])) } else { 0 };
    let code = if v5 && first >> 4 == 4 { at(2) } else { 0 };
    (u16::from_be_bytes([at(start), at(start + 1)]), code)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_committed_input_holds() {
        crate::corpus::replay("mqtt_session", super::run);
    }
}

//! The session's clauses. A client speaks bytes through the codec; answers of Kafka and time are the test's.

mod connecting;
mod ending;
mod publishing;
mod subscribing;

use super::*;
use crate::codec::{Decoder, Qos};
use crate::testing::{self, Heard, hear};
use bytes::BytesMut;
use mqtt_protocol_core::mqtt::packet::{self as theirs, Properties};
use tidegate_contract::{Address, Filter};

fn config() -> SessionConfig {
    SessionConfig {
        packet_bytes: 1_000,
        in_flight: 4,
        subscriptions: 3,
        idle_ms: 300_000,
        connect_ms: 10_000,
        stalled_ms: 30_000,
        keep_alive_max: 30,
        output_high: 4_096,
        assigned_client_id: "tg-assigned".to_owned(),
        mark: "mark".to_owned(),
    }
}

/// A session between a client and a test.
struct Bench {
    session: Session,
    decoder: Decoder,
    input: BytesMut,
    now: Now,
    v5: bool,
}

impl Bench {
    fn new(v5: bool) -> Self {
        let now = Now { steady_ms: 1_000, wall_ms: 1_700_000_000_000 };
        let session = Session::new(config(), now);
        Self { session, decoder: Decoder::new(1_000), input: BytesMut::new(), now, v5 }
    }

    /// A client that is connected.
    fn live(v5: bool) -> Self {
        let mut bench = Self::new(v5);
        bench.enter(&testing::connect(v5));
        bench
    }

    fn live5(properties: Properties) -> Self {
        let mut bench = Self::new(true);
        bench.enter(&testing::connect5("meter", properties));
        bench
    }

    fn enter(&mut self, connect: &[u8]) {
        self.send(connect);
        assert!(matches!(self.actions()[..], [Action::Admit(_)]));
        self.session.admitted(self.now);
        assert!(matches!(self.heard()[..], [Heard::ConnAck { present: false, code: 0, .. }]));
    }

    /// The client sends bytes; they are read as far as the session wants.
    fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.read();
    }

    fn read(&mut self) {
        while self.session.wants_packet() {
            match self.decoder.decode(&mut self.input) {
                Ok(Some(packet)) => self.session.packet(packet, self.now),
                Ok(None) => return,
                Err(error) => self.session.malformed(error, self.now),
            }
        }
    }

    fn publish(&mut self, topic: &str, qos: u8, id: u16) {
        let bytes = testing::publish(self.v5, topic, b"payload", qos, id);
        self.send(&bytes);
    }

    fn subscribe(&mut self, id: u16, entries: &[(&str, u8)]) {
        let bytes = testing::subscribe(self.v5, id, entries, Properties::new());
        self.send(&bytes);
    }

    /// Subscribes and starts everything that is asked for.
    fn subscribed(&mut self, entries: &[(&str, u8)]) {
        self.subscribe(1, entries);
        self.start_subscriptions();
        self.heard();
    }

    fn start_subscriptions(&mut self) -> Vec<(Filter, bool)> {
        let mut started = Vec::new();
        for action in self.actions() {
            let Action::Subscribe { filters } = action else { panic!("{action:?}") };
            self.session.subscribed(&vec![Subscribed::Started; filters.len()], self.now);
            started.extend(filters);
        }
        started
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.session.next_action()).collect()
    }

    /// The tokens and addresses of the publishes that the session asks for; nothing else may be asked.
    fn publishes(&mut self) -> Vec<(u64, String)> {
        let one = |action| match action {
            Action::Publish { token, message } => (token, message.address.to_string()),
            other => panic!("{other:?}"),
        };
        self.actions().into_iter().map(one).collect()
    }

    fn message(&mut self) -> Message {
        match self.actions().pop() {
            Some(Action::Publish { message, .. } | Action::Will(message)) => *message,
            other => panic!("{other:?}"),
        }
    }

    /// What the client is sent.
    fn heard(&mut self) -> Vec<Heard> {
        let heard = hear(self.session.output(), self.v5);
        let length = self.session.output().len();
        self.session.sent(length, self.now);
        heard
    }

    /// The one action that ends it, and what the client is sent before.
    fn ended(&mut self) -> (Close, Vec<Heard>) {
        let actions = self.actions();
        let Some(Action::Close(close)) = actions.last() else { panic!("not closed: {actions:?}") };
        assert!(self.session.is_closed() && !self.session.wants_packet() && !self.session.wants_record());
        (*close, self.heard())
    }

    /// The DISCONNECT or CONNACK code with which a violation ends it.
    fn ended_with(&mut self) -> u8 {
        let (_, heard) = self.ended();
        match heard[..] {
            [Heard::Disconnect { code } | Heard::ConnAck { code, .. }] => code,
            _ => panic!("{heard:?}"),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.steady_ms += ms;
        self.now.wall_ms += i64::try_from(ms).unwrap();
        if self.session.deadline_ms().is_some_and(|deadline| deadline <= self.now.steady_ms) {
            self.session.tick(self.now);
        }
    }

    fn deliver(&mut self, address: &str) {
        self.deliver_with(address, |_| {});
    }

    fn deliver_with<'a>(&mut self, address: &str, change: impl FnOnce(&mut Inbound<'a>)) {
        // leaked, so that the record can live as long as what a test puts into it
        let address: &'a Address = Box::leak(Box::new(Address::parse(address).unwrap()));
        let mut record = Inbound {
            address,
            payload: b"payload",
            qos: Qos::AtLeastOnce,
            retain: false,
            retained: false,
            text_payload: None,
            expiry_ms: None,
            content_type: None,
            response_topic: None,
            correlation: None,
            id: None,
            user: &[],
        };
        change(&mut record);
        self.session.deliver(&record, self.now);
    }

    /// Topic, QoS and identifier of every PUBLISH that the client is sent.
    fn delivered(&mut self) -> Vec<(String, u8, u16)> {
        let one = |heard| match heard {
            Heard::Publish { topic, qos, id, .. } => (topic, qos, id),
            other => panic!("{other:?}"),
        };
        self.heard().into_iter().map(one).collect()
    }
}

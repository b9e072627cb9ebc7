//! A server on loopback, its Kafka in memory, and a client.

use super::super::{Clock, Feed, Names, Registry, Shared, run};
use crate::server::metrics::Metrics;
use crate::testing::{self, Heard, hear_one};
use bytes::Bytes;
use mqtt_protocol_core::mqtt::packet::Properties;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_contract::config::{Limits, Listener};
use tidegate_contract::directory::TopicEntry;
use tidegate_contract::{Address, Filter, Routes};
use tidegate_core::publisher::{Flight, Outgoing, PublishLimits, SendError, Sink};
use tidegate_core::tail::Delivery;
use tidegate_core::telemetry::PublisherMetrics;
use tidegate_core::{
    Access, Directory, Limiter, Metadata, Place, PublishFailure, Publisher, Record, Reliability, Shutdown,
    TailError, TailEvent, Telemetry,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What the Kafka in memory does with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kafka {
    Store,
    /// Until [`Host::land_all`].
    Hold,
    Fail,
}

struct MemoryKafka {
    mode: Mutex<Kafka>,
    records: Mutex<Vec<Record>>,
    held: Mutex<VecDeque<Box<Flight>>>,
}

impl Sink for MemoryKafka {
    fn send(&self, outgoing: Outgoing<'_>, flight: Box<Flight>) -> Result<(), (SendError, Box<Flight>)> {
        self.records.lock().unwrap().push(outgoing.record.clone());
        match *self.mode.lock().unwrap() {
            Kafka::Store => flight.land(Ok(0)),
            Kafka::Hold => self.held.lock().unwrap().push_back(flight),
            Kafka::Fail => flight.land(Err(PublishFailure::TimedOut)),
        }
        Ok(())
    }

    fn flush(&self, _timeout: Duration) -> bool {
        true
    }
}

/// The test's end of one connection's feed.
#[derive(Clone)]
pub(super) struct FeedHandle {
    events: mpsc::Sender<TailEvent>,
    filters: Arc<Mutex<Vec<String>>>,
}

struct MemoryFeed {
    events: mpsc::Receiver<TailEvent>,
    filters: Arc<Mutex<Vec<String>>>,
}

impl Feed for MemoryFeed {
    async fn subscribe(&mut self, filter: Filter, _reliability: Reliability) -> Result<(), TailError> {
        self.filters.lock().unwrap().push(filter.to_string());
        Ok(())
    }

    fn unsubscribe(&mut self, filter: &Filter) {
        self.filters.lock().unwrap().retain(|have| have != filter.as_str());
    }

    async fn next(&mut self) -> TailEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }
}

impl FeedHandle {
    pub(super) fn filters(&self) -> Vec<String> {
        self.filters.lock().unwrap().clone()
    }

    pub(super) fn deliver(&self, address: &str, payload: &'static [u8]) {
        let record = Record {
            address: Address::parse(address).unwrap(),
            payload: Bytes::from_static(payload),
            metadata: Metadata::default(),
        };
        let place = Place { topic: "sites".into(), partition: 0, offset: 0 };
        let delivery = Delivery { record: Arc::new(record), place, timestamp_ms: 0, matched: Vec::new() };
        self.events.try_send(TailEvent::Delivery(delivery)).unwrap();
    }

    /// Events that the connection has not taken.
    pub(super) fn waiting(&self) -> usize {
        self.events.max_capacity() - self.events.capacity()
    }
}

pub(super) struct Host {
    pub(super) address: SocketAddr,
    kafka: Arc<MemoryKafka>,
    feeds: Arc<Mutex<Vec<FeedHandle>>>,
    shutdown: Shutdown,
    telemetry: Telemetry,
    server: JoinHandle<()>,
}

impl Host {
    /// A server with one topic, `sites/#`, that takes 1,000 bytes.
    pub(super) async fn start(limits: Limits) -> Self {
        let kafka = Arc::new(MemoryKafka {
            mode: Mutex::new(Kafka::Store),
            records: Mutex::default(),
            held: Mutex::default(),
        });
        let topic = TopicEntry {
            name: "sites".to_owned(),
            kafka_name: "sites".to_owned(),
            filters: vec!["sites/#".to_owned()],
            partitions: 3,
            max_message_bytes: 1_000,
        };
        let telemetry = Telemetry::new();
        let publishing = telemetry.register(PublisherMetrics::new);
        let sink: Arc<dyn Sink> = Arc::clone(&kafka) as Arc<dyn Sink>;
        let feeds: Arc<Mutex<Vec<FeedHandle>>> = Arc::default();
        let shutdown = Shutdown::new(Duration::from_secs(30));
        let made = Arc::clone(&feeds);
        let shared = Shared {
            directory: Directory::fixed(Routes::new([&topic])),
            publisher: Publisher::new(sink, PublishLimits::from_config(&limits), publishing),
            access: Access::open(),
            limits: Limiter::new(limits),
            shutdown: shutdown.clone(),
            metrics: telemetry.register(Metrics::new),
            registry: Registry::default(),
            clock: Clock::default(),
            names: Names::default(),
            feed: move || {
                let (sender, events) = mpsc::channel(1_000);
                let filters: Arc<Mutex<Vec<String>>> = Arc::default();
                made.lock().unwrap().push(FeedHandle { events: sender, filters: Arc::clone(&filters) });
                MemoryFeed { events, filters }
            },
        };
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener { name: "mqtt".to_owned(), port: address.port() };
        let server = tokio::spawn(run(vec![(listener, socket)], Arc::new(shared)));
        Self { address, kafka, feeds, shutdown, telemetry, server }
    }

    pub(super) fn kafka(&self, mode: Kafka) {
        *self.kafka.mode.lock().unwrap() = mode;
    }

    /// Confirms every record that is held.
    pub(super) fn land_all(&self) {
        self.kafka.held.lock().unwrap().drain(..).for_each(|flight| flight.land(Ok(0)));
    }

    /// Confirms the oldest record that is held.
    pub(super) fn land_one(&self) {
        self.kafka.held.lock().unwrap().pop_front().unwrap().land(Ok(0));
    }

    /// The addresses of the records that Kafka was given.
    pub(super) fn stored(&self) -> Vec<String> {
        self.kafka.records.lock().unwrap().iter().map(|record| record.address.to_string()).collect()
    }

    pub(super) fn writers(&self) -> Vec<String> {
        self.kafka.records.lock().unwrap().iter().map(|record| record.metadata.device.clone()).collect()
    }

    pub(super) fn feed(&self, index: usize) -> FeedHandle {
        self.feeds.lock().unwrap()[index].clone()
    }

    pub(super) fn metrics(&self) -> String {
        self.telemetry.encode()
    }

    pub(super) fn shut_down(&self) {
        self.shutdown.begin();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.server.is_finished()
    }

    pub(super) async fn ended(&mut self) {
        within(&mut self.server).await.unwrap();
    }

    /// A client that is connected, under the name `meter`.
    pub(super) async fn client(&self, v5: bool) -> Client {
        let connect = testing::connect(v5);
        let mut client = self.connect(v5, &connect).await;
        assert!(matches!(client.hear().await, Heard::ConnAck { code: 0, .. }));
        client
    }

    /// A client that sent its CONNECT.
    pub(super) async fn connect(&self, v5: bool, connect: &[u8]) -> Client {
        let mut client = Client::open(self.address, v5).await;
        client.send(connect).await;
        client
    }

    /// Returns when the condition holds.
    pub(super) async fn until(&self, condition: impl Fn(&Self) -> bool) {
        within(async {
            while !condition(self) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

pub(super) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    v5: bool,
}

impl Client {
    pub(super) async fn open(address: SocketAddr, v5: bool) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), input: Vec::new(), v5 }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        within(self.stream.write_all(bytes)).await.unwrap();
    }

    /// Sends as much as the server lets it.
    pub(super) async fn send_unless_closed(&mut self, bytes: &[u8]) {
        let _ = within(self.stream.write_all(bytes)).await;
    }

    pub(super) async fn close_writing(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub(super) async fn publish(&mut self, topic: &str, qos: u8, id: u16) {
        let bytes = testing::publish(self.v5, topic, b"payload", qos, id);
        self.send(&bytes).await;
    }

    pub(super) async fn subscribe(&mut self, entries: &[(&str, u8)]) {
        let bytes = testing::subscribe(self.v5, 1, entries, Properties::new());
        self.send(&bytes).await;
        let codes = entries.iter().map(|(_, options)| options & 1).collect();
        assert_eq!(self.hear().await, Heard::SubAck { id: 1, codes });
    }

    /// The next packet.
    pub(super) async fn hear(&mut self) -> Heard {
        within(self.next()).await.expect("a packet before the end")
    }

    /// All packets until the server closes; then the client closes, too.
    pub(super) async fn rest(mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(heard) = within(self.next()).await {
            all.push(heard);
        }
        all
    }

    async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = hear_one(&mut self.input, self.v5) {
                return Some(heard);
            }
            // a reset is an end, too
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                assert!(self.input.is_empty(), "half a packet");
                return None;
            }
        }
    }
}

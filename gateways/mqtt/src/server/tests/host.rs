//! A server on loopback, its Kafka in memory, and a client.

use crate::server::input::{Budget, INPUT_BYTES};
use crate::server::serve_within;
use crate::testing::{self, Heard, hear_one};
use mqtt_protocol_core::mqtt::packet::Properties;
use std::net::SocketAddr;
use std::time::Duration;
use tidegate_contract::config::{Limits, Listener, ListenerTls};
use tidegate_core::Services;
use tidegate_core::publisher::PublishLimits;
use tidegate_core::tail::TailLimits;
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::memory::Bounds;
use tidegate_testkit::tls::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(super) struct Host {
    pub(super) address: SocketAddr,
    pub(super) kafka: MemoryKafka,
    pub(super) services: Services,
    server: JoinHandle<()>,
}

impl Host {
    /// A server with one topic, `sites/#`.
    pub(super) async fn start(limits: Limits) -> Self {
        let publish = PublishLimits::from_config(&limits);
        let input = Budget::new(INPUT_BYTES, limits.packet_bytes as usize);
        Self::start_within(limits, publish, input).await
    }

    /// The same with an encrypted listener.
    pub(super) async fn start_tls(limits: Limits, tls: ListenerTls) -> Self {
        let publish = PublishLimits::from_config(&limits);
        let input = Budget::new(INPUT_BYTES, limits.packet_bytes as usize);
        Self::start_on(limits, publish, input, Some(tls)).await
    }

    /// The same with bounds of the process that are a test's own.
    pub(super) async fn start_within(limits: Limits, publish: PublishLimits, input: Budget) -> Self {
        Self::start_on(limits, publish, input, None).await
    }

    async fn start_on(
        limits: Limits,
        publish: PublishLimits,
        input: Budget,
        tls: Option<ListenerTls>,
    ) -> Self {
        let kafka = MemoryKafka::new();
        kafka.topic("sites", &["sites/#"], 3);
        let tail = TailLimits { subscribe_ms: 1_000, ..TailLimits::default() };
        let bounds = Bounds { publish, tail, ..Bounds::default() };
        let services = kafka.services_with(bounds, limits).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener { tls, ..Listener::plain("mqtt", address.port()) };
        let serving = serve_within(vec![(listener, socket)], services.clone(), input);
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Self { address, kafka, services, server }
    }

    pub(super) fn shut_down(&self) {
        self.services.shutdown.begin();
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

    /// Returns when so many records wait for Kafka's answer.
    pub(super) async fn held(&self, count: usize) {
        self.until(|| self.kafka.held() >= count).await;
    }

    /// Returns when the metrics have a line that starts like this.
    pub(super) async fn metric(&self, start: &str) {
        self.metric_of(&format!("tidegate_mqtt_{start}")).await;
    }

    /// The same for one of another crate.
    pub(super) async fn metric_of(&self, start: &str) {
        self.until(|| self.services.telemetry.encode().lines().any(|line| line.starts_with(start))).await;
    }

    /// Returns when the condition holds.
    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        within(self.until_ever(condition)).await;
    }

    /// The same, however long that takes.
    pub(super) async fn until_ever(&self, condition: impl Fn() -> bool) {
        while !condition() {
            tokio::task::yield_now().await;
        }
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("in time")
}

pub(super) struct Client {
    stream: Box<dyn Socket>,
    input: Vec<u8>,
    v5: bool,
}

impl Client {
    pub(super) async fn open(address: SocketAddr, v5: bool) -> Self {
        Self::on(TcpStream::connect(address).await.unwrap(), v5)
    }

    /// A client on a connection that is there.
    pub(super) fn on(stream: impl Socket + 'static, v5: bool) -> Self {
        Self { stream: Box::new(stream), input: Vec::new(), v5 }
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
        self.publish_payload(topic, b"payload", qos, id).await;
    }

    pub(super) async fn publish_payload(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16) {
        let bytes = testing::publish(self.v5, topic, payload, qos, id);
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

    /// The next packet; nothing when the server closed.
    pub(super) async fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(heard) = hear_one(&mut self.input, self.v5) {
                return Some(heard);
            }
            // a reset is an end, too
            if self.read().await.unwrap_or(0) == 0 {
                assert!(self.input.is_empty(), "half a packet");
                return None;
            }
        }
    }

    /// Reads what comes next.
    pub(super) async fn read(&mut self) -> std::io::Result<usize> {
        self.stream.read_buf(&mut self.input).await
    }
}

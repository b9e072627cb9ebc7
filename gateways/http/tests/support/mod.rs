//! A gateway on loopback, its Kafka in memory, and a client that writes byte by byte as a device would: no HTTP library
//! decides what can be sent.
#![allow(dead_code, clippy::panic, clippy::unwrap_used)] // helpers of tests are tests; each binary uses a part

use serde_json::Value;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tidegate_contract::config::{Limits, Listener, ListenerTls};
use tidegate_core::Services;
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::memory::Bounds;
use tidegate_testkit::tls::Socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub const SOON: Duration = Duration::from_secs(10);
pub const ADDRESS: &str = "sites/berlin/telemetry/meter-7/power";

pub struct Gateway {
    pub kafka: MemoryKafka,
    pub services: Services,
    pub address: SocketAddr,
    pub serving: JoinHandle<Result<(), tidegate_http::ServeError>>,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with(Bounds::default(), Limits::default()).await
    }

    pub async fn with(bounds: Bounds, limits: Limits) -> Self {
        Self::start_on(bounds, limits, None).await
    }

    /// The same with an encrypted listener.
    pub async fn with_tls(limits: Limits, tls: ListenerTls) -> Self {
        Self::start_on(Bounds::default(), limits, Some(tls)).await
    }

    async fn start_on(bounds: Bounds, limits: Limits, tls: Option<ListenerTls>) -> Self {
        let kafka = MemoryKafka::new();
        kafka.topic("telemetry", &["sites/+/telemetry/#"], 12);
        let services = kafka.services_with(bounds, limits).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener { tls, ..Listener::plain("http", address.port()) };
        let serving = tokio::spawn(tidegate_http::serve(vec![(listener, socket)], services.clone()));
        Self { kafka, services, address, serving }
    }

    pub async fn connect(&self) -> Client {
        Client::on(TcpStream::connect(self.address).await.unwrap())
    }

    /// The same from an address of the test's choice.
    pub async fn connect_from(&self, source: Ipv4Addr) -> Client {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        Client::on(socket.connect(self.address).await.unwrap())
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, head: &str, body: &str) -> Response {
        self.connect().await.ask(head, body).await
    }

    /// Waits until the metrics have this line: a connection is counted after it is closed.
    pub async fn metric(&self, line: &str) {
        let found = timeout(SOON, async {
            while !self.services.telemetry.encode().lines().any(|have| have == line) {
                tokio::task::yield_now().await;
            }
        });
        assert!(found.await.is_ok(), "no {line} in {}", self.services.telemetry.encode());
    }
}

pub struct Client {
    pub socket: Box<dyn Socket>,
    pub input: Vec<u8>,
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// What a refusal says: status, reason, and whether the record is stored.
    pub fn refusal(&self) -> (u16, String, Value) {
        let json = self.json();
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(json["status"], self.status);
        assert!(json["detail"].as_str().unwrap().len() > 10, "{json}");
        let reason = json["type"].as_str().unwrap().trim_start_matches("urn:tidegate:problem:").to_owned();
        (self.status, reason, json["stored"].clone())
    }
}

impl Client {
    /// A client on a connection that is there.
    pub fn on(socket: impl Socket + 'static) -> Self {
        Self { socket: Box::new(socket), input: Vec::new() }
    }

    /// Reads what comes next.
    pub async fn fill(&mut self) -> std::io::Result<usize> {
        self.socket.read_buf(&mut self.input).await
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        // A gateway that has closed already has said why.
        let _ = self.socket.write_all(text.as_ref()).await;
    }

    pub async fn ask(&mut self, head: &str, body: &str) -> Response {
        self.send(request(head, body)).await;
        self.response(head.starts_with("HEAD")).await.unwrap()
    }

    /// The next response; nothing when the connection is closed.
    pub async fn response(&mut self, head_only: bool) -> Option<Response> {
        let end = loop {
            if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            self.read().await?;
        };
        let head = String::from_utf8(self.input.drain(..end + 4).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head, body: Vec::new() };
        let length = response.header("content-length").map_or(0, |text| text.parse().unwrap());
        if !head_only {
            while self.input.len() < length {
                self.read().await?;
            }
            response.body = self.input.drain(..length).collect();
        }
        if status == 100 { Box::pin(self.response(head_only)).await } else { Some(response) }
    }

    pub async fn read(&mut self) -> Option<()> {
        let count = timeout(SOON, self.socket.read_buf(&mut self.input)).await.unwrap().unwrap_or(0);
        (count > 0).then_some(())
    }

    pub async fn is_closed(&mut self) -> bool {
        self.input.clear();
        self.read().await.is_none()
    }
}

/// `head` is the request line without version, and more header lines.
pub fn request(head: &str, body: &str) -> String {
    let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
    let mut text = format!("{line} HTTP/1.1\r\nHost: gateway\r\n");
    for header in headers.lines() {
        write!(text, "{header}\r\n").unwrap();
    }
    if !body.is_empty() || line.starts_with('P') {
        write!(text, "Content-Length: {}\r\n", body.len()).unwrap();
    }
    text + "\r\n" + body
}

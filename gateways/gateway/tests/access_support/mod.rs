//! Devices that speak MQTT and HTTP byte by byte, so that no library decides what can be sent, and what they saw as text.
#![allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests are tests; each uses its part"
)]

pub mod permissions;
pub mod world;

use serde_json::Value;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tidegate_testkit::request::basic;
use tidegate_testkit::tls::alert;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// How long an answer may take.
pub const SOON: Duration = Duration::from_secs(30);

/// A connection of any kind.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// What a device says about itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who<'a> {
    pub username: Option<&'a str>,
    pub password: Option<&'a str>,
}

impl<'a> Who<'a> {
    pub const NOBODY: Who<'static> = Who { username: None, password: None };

    pub const fn new(username: &'a str, password: &'a str) -> Self {
        Self { username: Some(username), password: Some(password) }
    }
}

/// A connection from an address of the test's choice.
pub async fn from(source: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    // a port is used again while an earlier connection from it waits for stragglers
    socket.set_reuseaddr(true).unwrap();
    socket.bind((source, 0).into()).unwrap();
    let stream = socket.connect(to).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// An MQTT client.
pub struct Mqtt {
    socket: Box<dyn Socket>,
    v5: bool,
    input: Vec<u8>,
    end: String,
}

impl Mqtt {
    pub fn new(socket: impl Socket + 'static, v5: bool) -> Self {
        Self { socket: Box::new(socket), v5, input: Vec::new(), end: String::new() }
    }

    /// Sends CONNECT and hears the answer.
    pub async fn enter(&mut self, id: &str, who: Who<'_>, will: Option<&str>) -> String {
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', if self.v5 { 5 } else { 4 }];
        let flag = |set: bool, bit: u8| if set { 1 << bit } else { 0 };
        let credentials = flag(who.username.is_some(), 7) | flag(who.password.is_some(), 6);
        body.extend([2 | credentials | flag(will.is_some(), 2), 0, 60]);
        let empty: &[u8] = if self.v5 { &[0] } else { &[] };
        body.extend(empty);
        text(&mut body, id);
        if let Some(topic) = will {
            body.extend(empty);
            text(&mut body, topic);
            text(&mut body, "gone");
        }
        for each in [who.username, who.password].into_iter().flatten() {
            text(&mut body, each);
        }
        self.send(0x10, &body).await;
        self.hear().await
    }

    pub async fn publish(&mut self, topic: &str) {
        let mut body = Vec::new();
        text(&mut body, topic);
        body.extend([0, 7]);
        body.extend(if self.v5 { &[0][..] } else { &[] });
        body.push(b'x');
        self.send(0x32, &body).await;
    }

    pub async fn subscribe(&mut self, filter: &str) -> String {
        let mut body = vec![0, 8];
        body.extend(if self.v5 { &[0][..] } else { &[] });
        text(&mut body, filter);
        body.push(0);
        self.send(0x82, &body).await;
        self.hear().await
    }

    pub async fn ping(&mut self) {
        self.send(0xC0, &[]).await;
    }

    /// The next packet as text: its kind, and its code or topic.
    pub async fn hear(&mut self) -> String {
        let Some((kind, body)) = timeout(SOON, self.next()).await.unwrap() else {
            return self.end.clone();
        };
        let code = |at: usize| body.get(at).copied().unwrap_or(0);
        let said = |name: &str, at: usize| format!("{name} 0x{:02X}", code(at));
        match kind {
            2 if self.v5 => said("CONNACK", 1),
            2 => format!("CONNACK {}", code(1)),
            3 => {
                let length = usize::from(u16::from_be_bytes([code(0), code(1)]));
                format!("PUBLISH {}", String::from_utf8_lossy(&body[2..2 + length]))
            }
            4 if self.v5 => said("PUBACK", 2),
            4 => "PUBACK".to_owned(),
            9 => said("SUBACK", body.len() - 1),
            13 => "PINGRESP".to_owned(),
            14 => said("DISCONNECT", 0),
            other => panic!("packet type {other}"),
        }
    }

    async fn send(&mut self, first: u8, body: &[u8]) {
        let mut bytes = vec![first];
        let mut left = body.len();
        while left >= 0x80 {
            bytes.push(u8::try_from(left & 0x7F).unwrap() | 0x80);
            left >>= 7;
        }
        bytes.push(u8::try_from(left).unwrap());
        bytes.extend(body);
        // who was refused already finds out by reading
        let _ = timeout(SOON, self.socket.write_all(&bytes)).await.unwrap();
    }

    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(found) = self.take() {
                return Some(found);
            }
            if let Some(end) = read(&mut self.socket, &mut self.input).await {
                self.end = end;
                return None;
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let (mut length, mut shift, mut header) = (0_usize, 0, 1);
        loop {
            let byte = *self.input.get(header)?;
            length |= usize::from(byte & 0x7F) << shift;
            (shift, header) = (shift + 7, header + 1);
            if byte & 0x80 == 0 {
                break;
            }
        }
        if self.input.len() < header + length {
            return None;
        }
        let packet: Vec<u8> = self.input.drain(..header + length).collect();
        Some((packet[0] >> 4, packet[header..].to_vec()))
    }
}

fn text(body: &mut Vec<u8>, text: &str) {
    body.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    body.extend(text.as_bytes());
}

/// An HTTP client.
pub struct Http {
    socket: Box<dyn Socket>,
    input: Vec<u8>,
}

/// Reads more, or says how the connection ended.
async fn read(socket: &mut Box<dyn Socket>, input: &mut Vec<u8>) -> Option<String> {
    match socket.read_buf(input).await {
        Ok(0) => Some("closed".to_owned()),
        Ok(_) => None,
        Err(error) => Some(end_of(&error)),
    }
}

/// How a connection ended: by an alert of TLS, or just so.
pub fn end_of(error: &std::io::Error) -> String {
    alert(error).map_or_else(|_| "closed".to_owned(), |alert| format!("alert {alert:?}"))
}

impl Http {
    pub fn new(socket: impl Socket + 'static) -> Self {
        Self { socket: Box::new(socket), input: Vec::new() }
    }

    /// One request: its status, the problem's type and the headers that tell what to do.
    pub async fn ask(&mut self, method: &str, path: &str, who: Who<'_>) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: gateway\r\n");
        if let (Some(username), Some(password)) = (who.username, who.password) {
            head += &basic(username, password);
            head += "\r\n";
        }
        if method == "PUT" {
            head += "Content-Length: 1\r\n\r\nx";
        } else {
            head += "\r\n";
        }
        // who was refused already finds out by reading
        let _ = timeout(SOON, self.socket.write_all(head.as_bytes())).await.unwrap();
        timeout(SOON, self.answer()).await.unwrap().unwrap_or_else(|end| end)
    }

    async fn answer(&mut self) -> Result<String, String> {
        let end = loop {
            if let Some(end) = self.input.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            self.read().await?;
        };
        let head = String::from_utf8(self.input.drain(..end).collect()).unwrap();
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
        };
        let length = header("content-length").map_or(0, |text| text.parse().unwrap());
        while self.input.len() < length {
            self.read().await?;
        }
        let body: Vec<u8> = self.input.drain(..length).collect();
        let mut said = head.split(' ').nth(1).unwrap().to_owned();
        if header("content-type").as_deref() == Some("application/problem+json") {
            let problem: Value = serde_json::from_slice(&body).unwrap();
            said += " ";
            said += problem["type"].as_str().unwrap().trim_start_matches("urn:tidegate:problem:");
        }
        for name in ["WWW-Authenticate", "Retry-After"] {
            if header(name).is_some() {
                said += ", ";
                said += name;
            }
        }
        Ok(said)
    }

    async fn read(&mut self) -> Result<(), String> {
        read(&mut self.socket, &mut self.input).await.map_or(Ok(()), Err)
    }
}

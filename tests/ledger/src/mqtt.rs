//! One MQTT 5 connection as a careful device makes it. IO; the packets are rumqttc's, a codec that shares no line with
//! the gateway's.

use crate::login::Login;
use bytes::BytesMut;
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::mqttbytes::v5::{
    Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode, Filter, Login as Secrets, Packet, PingReq,
    Publish, Subscribe,
};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The largest packet that is taken, in bytes.
const MAX_PACKET: u32 = 4 * 1024 * 1024;
/// TCP connect and CONNACK together take this long at most.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket failed.
    #[error("socket: {}", .0.kind())]
    Io(#[from] io::Error),
    /// The other side closed without a word.
    #[error("closed by the other side")]
    Closed,
    /// The other side said why it closes.
    #[error("DISCONNECT 0x{:02X} {code:?}", *.code as u8)]
    Disconnected {
        /// The reason code (MQTT 5 §3.14.2.1).
        code: DisconnectReasonCode,
        /// Another server to use (MQTT 5 §3.14.2.2.5), `host:port`.
        server: Option<String>,
    },
    /// The bytes are no MQTT.
    #[error("failed to read a packet: {0}")]
    Packet(String),
    /// CONNECT was refused.
    #[error("failed to connect: {0:?}")]
    Refused(ConnectReturnCode),
    /// SUBSCRIBE was refused.
    #[error("failed to subscribe to {0:?}")]
    Subscribe(String),
    /// No answer in time.
    #[error("failed to get an answer in time")]
    Silent,
}

/// An accepted connection. Nothing is written before [`Connection::progress`] or [`Connection::flush`].
#[derive(Debug)]
pub struct Connection {
    socket: TcpStream,
    input: BytesMut,
    output: BytesMut,
    /// How many unacknowledged publishes the server takes (MQTT 5 §3.2.2.3.3).
    pub receive_maximum: u16,
    /// Send something at least this often, in seconds; 0: never needed (MQTT 5 §3.2.2.3.14).
    pub keep_alive_s: u16,
    next_packet_id: u16,
}

impl Connection {
    /// Connects to `target` (`host:port`) with a clean start and no delay of small packets; without `login` it says no name.
    pub async fn open(
        target: &str,
        client_id: &str,
        keep_alive_s: u16,
        login: Option<&Login>,
    ) -> Result<Self, ConnectionError> {
        timeout(CONNECT_LIMIT, Self::open_now(target, client_id, keep_alive_s, login))
            .await
            .unwrap_or(Err(ConnectionError::Silent))
    }

    async fn open_now(
        target: &str,
        client_id: &str,
        keep_alive_s: u16,
        login: Option<&Login>,
    ) -> Result<Self, ConnectionError> {
        let socket = TcpStream::connect(target).await?;
        socket.set_nodelay(true)?;
        let mut connection = Self {
            socket,
            input: BytesMut::with_capacity(16 * 1024),
            output: BytesMut::with_capacity(16 * 1024),
            receive_maximum: u16::MAX,
            keep_alive_s,
            next_packet_id: 1,
        };
        let connect = Connect {
            keep_alive: keep_alive_s,
            client_id: client_id.to_owned(),
            clean_start: true,
            properties: None,
        };
        let secrets = login.map(|login| Secrets::new(&login.username, &login.password));
        connection.queue(&Packet::Connect(connect, None, secrets))?;
        match connection.next().await? {
            Packet::ConnAck(ack) if ack.code == ConnectReturnCode::Success => {
                if let Some(properties) = ack.properties {
                    connection.receive_maximum = properties.receive_max.unwrap_or(u16::MAX);
                    connection.keep_alive_s = properties.server_keep_alive.unwrap_or(keep_alive_s);
                }
                Ok(connection)
            }
            Packet::ConnAck(ack) => Err(ConnectionError::Refused(ack.code)),
            other => Err(ConnectionError::Packet(format!("{other:?} instead of CONNACK"))),
        }
    }

    /// Subscribes to all filters at once with `QoS` 1 and waits for the answer.
    pub async fn subscribe(&mut self, filters: &[String]) -> Result<(), ConnectionError> {
        let refused = || ConnectionError::Subscribe(filters.join(", "));
        let all = filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
        let mut subscribe = Subscribe::new_many(all, None);
        subscribe.pkid = self.packet_id();
        self.queue(&Packet::Subscribe(subscribe))?;
        match timeout(CONNECT_LIMIT, self.next()).await.map_err(|_| ConnectionError::Silent)?? {
            Packet::SubAck(ack)
                if ack.return_codes.iter().all(|code| format!("{code:?}").starts_with("Success")) =>
            {
                Ok(())
            }
            _ => Err(refused()),
        }
    }

    /// Queues a `QoS` 1 publish and returns its packet id.
    pub fn publish(&mut self, address: &str, payload: Vec<u8>) -> Result<u16, ConnectionError> {
        let mut publish = Publish::new(address, QoS::AtLeastOnce, payload, None);
        publish.pkid = self.packet_id();
        let id = publish.pkid;
        self.queue(&Packet::Publish(publish))?;
        Ok(id)
    }

    /// Queues a PINGREQ.
    pub fn ping(&mut self) -> Result<(), ConnectionError> {
        self.queue(&Packet::PingReq(PingReq))
    }

    /// Queues any packet.
    pub fn queue(&mut self, packet: &Packet) -> Result<(), ConnectionError> {
        packet
            .write(&mut self.output, None)
            .map(|_| ())
            .map_err(|error| ConnectionError::Packet(error.to_string()))
    }

    /// Writes what is queued and reads what comes, whichever is possible first; a whole packet, if there is one now.
    /// Safe to cancel.
    pub async fn progress(&mut self) -> Result<Option<Packet>, ConnectionError> {
        if let Some(packet) = self.parse()? {
            return Ok(Some(packet));
        }
        let (mut reader, mut writer) = self.socket.split();
        tokio::select! {
            biased;
            wrote = writer.write_buf(&mut self.output), if !self.output.is_empty() => match wrote {
                Ok(_) => Ok(None),
                Err(error) => self.last_word(error),
            },
            read = reader.read_buf(&mut self.input) => {
                if read? == 0 {
                    return Err(ConnectionError::Closed);
                }
                self.parse()
            }
        }
    }

    /// A server that closes may have said why before: nothing can be written, but its last packets can be read.
    fn last_word(&mut self, error: io::Error) -> Result<Option<Packet>, ConnectionError> {
        while let Ok(1..) = self.socket.try_read_buf(&mut self.input) {}
        match self.parse()? {
            Some(packet) => Ok(Some(packet)),
            None => Err(error.into()),
        }
    }

    /// Writes all that is queued.
    pub async fn flush(&mut self) -> Result<(), ConnectionError> {
        Ok(self.socket.write_all_buf(&mut self.output).await?)
    }

    /// The next packet. Safe to cancel.
    pub async fn next(&mut self) -> Result<Packet, ConnectionError> {
        loop {
            if let Some(packet) = self.progress().await? {
                return Ok(packet);
            }
        }
    }

    /// Says goodbye, as far as the socket takes it.
    pub async fn close(mut self) {
        let goodbye = Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection));
        if self.queue(&goodbye).is_ok() {
            let written = timeout(CONNECT_LIMIT, async {
                self.socket.write_all(&self.output).await?;
                self.socket.shutdown().await
            });
            // The connection ends either way.
            let _ = written.await;
        }
    }

    fn parse(&mut self) -> Result<Option<Packet>, ConnectionError> {
        if self.input.is_empty() {
            return Ok(None);
        }
        // the short form without properties (MQTT 5 §3.14.2.2.1), which rumqttc takes for a part of a packet
        if let [0xE0, 1, code, ..] = *self.input {
            let code = DisconnectReasonCode::try_from(code)
                .map_err(|error| ConnectionError::Packet(error.to_string()))?;
            return Err(ConnectionError::Disconnected { code, server: None });
        }
        match Packet::read(&mut self.input, Some(MAX_PACKET)) {
            Ok(Packet::Disconnect(bye)) => Err(ConnectionError::Disconnected {
                code: bye.reason_code,
                server: bye.properties.and_then(|properties| properties.server_reference),
            }),
            Ok(packet) => Ok(Some(packet)),
            Err(rumqttc::v5::mqttbytes::Error::InsufficientBytes(_)) => Ok(None),
            Err(error) => Err(ConnectionError::Packet(error.to_string())),
        }
    }

    const fn packet_id(&mut self) -> u16 {
        let id = self.next_packet_id;
        self.next_packet_id = if id == u16::MAX { 1 } else { id + 1 };
        id
    }
}

//! Whatever one client sends, it closes that client's connection only.

use super::*;

#[tokio::test]
async fn every_malformed_input_closes_its_own_connection_with_its_reason_and_no_other() {
    let host = Host::start(Limits { connect_rate: 1_000, packet_bytes: 1_000, ..Limits::default() }).await;
    let mut healthy = host.connect(true, &connect5("healthy", Properties::new())).await;
    assert!(matches!(healthy.hear().await, Heard::ConnAck { .. }));
    // after CONNECT of version 5: bytes, code of the DISCONNECT, reason in the metrics
    let cases: [(&[u8], u8, &str); 20] = [
        (b"\x00\x00", 0x81, "ReservedType"),
        (b"\x20\x00", 0x82, "ServerOnly"),
        (b"\x80\x00", 0x81, "HeaderFlags"),
        (b"\x36\x00", 0x81, "QosThree"),
        (b"\x38\x00", 0x82, "DupAtQosZero"),
        (b"\x30\xFF\xFF\xFF\xFF\x7F", 0x81, "RemainingLength"),
        (b"\xC0\x80\x00", 0x81, "RemainingLength"),
        (b"\x30\xFF\x7F", 0x95, "PacketTooLarge"),
        (b"\x30\x02\x00\x05", 0x81, "Truncated"),
        (b"\xC0\x01x", 0x81, "Trailing"),
        (b"\x30\x04\x00\x01\xFF\x00", 0x81, "NotUtf8"),
        (b"\x30\x04\x00\x01\x00\x00", 0x81, "Nul"),
        (b"\x32\x06\x00\x01a\x00\x00\x00", 0x82, "PacketIdZero"),
        (b"\x30\x06\x00\x01a\x02\x63\x00", 0x81, "PropertyUnknown"),
        (b"\x30\x06\x00\x01a\x02\x0B\x01", 0x82, "PropertyMisplaced"),
        (b"\x30\x08\x00\x01a\x04\x01\x00\x01\x00", 0x82, "PropertyTwice"),
        (b"\x30\x06\x00\x01a\x02\x01\x07", 0x82, "PropertyValue"),
        (b"\x82\x07\x00\x01\x00\x00\x01a\xC0", 0x81, "SubscriptionOptions"),
        (b"\x82\x03\x00\x01\x00", 0x82, "NoFilter"),
        (b"\xE0\x01\x8D", 0x81, "ReasonCode"),
    ];
    for (bytes, code, reason) in cases {
        let mut client = host.client(true).await;
        client.send(bytes).await;
        assert_eq!(client.rest().await, [Heard::Disconnect { code }], "{reason}");
        host.metric(&format!("connections_closed_total{{reason=\"{reason}\"}}")).await;
    }
    // before CONNECT there is nobody to tell
    let cases: [(&[u8], &str); 5] = [
        (b"GET / HTTP/1.1\r\n\r\n", "HeaderFlags"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03", "HeaderFlags"),
        (b"\xC0\x00", "NotConnect"),
        (b"\x10\x0C\x00\x04HTTP\x05\x02\x00\x00\x00\x00", "ProtocolName"),
        (b"\x10\x0C\x00\x04MQTT\x04\x03\x00\x00\x00\x00", "ConnectFlags"),
    ];
    for (bytes, reason) in cases {
        let mut client = Client::open(host.address, true).await;
        client.send(bytes).await;
        assert_eq!(client.rest().await, [], "{reason}");
        host.metric(&format!("connections_closed_total{{reason=\"{reason}\"}}")).await;
    }
    healthy.publish("sites/1", 1, 9).await;
    assert_eq!(healthy.hear().await, Heard::PubAck { id: 9, code: 0 });
}

/// A close with unread bytes behind it would reset the connection, and the reason would be lost with it.
#[tokio::test]
async fn the_reason_arrives_even_when_the_client_goes_on_sending() {
    let host = Host::start(Limits { packet_bytes: 1_000, ..Limits::default() }).await;
    let mut client = host.client(true).await;
    let mut bytes = b"\x30\xFF\xFF\x7F".to_vec();
    bytes.extend(vec![b'x'; 300_000]);
    client.send_unless_closed(&bytes).await;
    assert_eq!(client.rest().await, [Heard::Disconnect { code: 0x95 }]);
}

#[tokio::test]
async fn a_client_that_says_nothing_and_leaves_is_forgotten() {
    let host = Host::start(Limits::default()).await;
    drop(Client::open(host.address, true).await);
    host.metric("connections_closed_total{reason=\"Lost\"} 1").await;
    host.metric("connections 0").await;
}

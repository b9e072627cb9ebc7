//! What waits in memory is bounded, and nobody waits for it for ever.

use super::*;
use crate::server::input::Budget;
use tidegate_core::publisher::PublishLimits;

#[tokio::test]
async fn many_half_sent_packets_stay_within_the_processs_memory_and_others_get_through() {
    let limits = Limits { packet_bytes: 64_000, connect_rate: 1_000, ..Limits::default() };
    let budget = Budget::new(128 << 10, 64_000);
    let whole = budget.left();
    let host = Host::start_within(limits.clone(), PublishLimits::from_config(&limits), budget.clone()).await;
    let large = testing::publish(true, "sites/1", &vec![b'x'; 60_000], 1, 1);
    let mut halves = Vec::new();
    for number in 0..20 {
        let mut half = host.connect(true, &connect5(&format!("half-{number}"), Properties::new())).await;
        assert!(matches!(half.hear().await, Heard::ConnAck { .. }));
        half.send(&large[..40_000]).await;
        halves.push(half);
    }
    // the next one of them would need more than there is: it is read no further
    host.until(|| budget.left() < 32 << 10).await;
    let mut small = host.connect(true, &connect5("small", Properties::new())).await;
    assert!(matches!(small.hear().await, Heard::ConnAck { .. }));
    for id in 1..=10 {
        small.publish("sites/2", 1, id).await;
        assert_eq!(small.hear().await, Heard::PubAck { id, code: 0 });
    }
    drop(halves);
    small.send(&large).await;
    assert_eq!(small.hear().await, Heard::PubAck { id: 1, code: 0 });
    host.until(|| budget.left() == whole).await;
}

/// `drain_ms` of the services is 5 s.
#[tokio::test]
async fn shutdown_does_not_wait_for_a_publish_that_found_no_room() {
    let limits = Limits::default();
    let publish = PublishLimits { partition_messages: 1, ..PublishLimits::from_config(&limits) };
    let mut host = Host::start_within(limits, publish, Budget::new(1 << 20, 1 << 21)).await;
    host.kafka.hold();
    let mut client = host.client(true).await;
    for id in 1..=3 {
        client.publish("sites/1", 1, id).await;
    }
    host.held(1).await;
    host.shut_down();
    assert_eq!(client.rest().await, [Heard::Disconnect { code: 0x8B }]);
    host.ended().await;
}

//! Kafka on loopback: killed brokers are dead, come back with their data, and nothing is left behind.

use std::time::{Duration, Instant};
use tidegate_testkit::Kafka;

#[test]
fn a_killed_broker_is_dead_and_comes_back_with_its_data() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    let mut kafka = Kafka::start(1).unwrap();
    kafka.create_topic("t", 1, 1, &[]).unwrap();
    let producer: BaseProducer = kafka.client_config().create().unwrap();
    producer.send(BaseRecord::to("t").key("a").payload("kept")).unwrap();
    producer.flush(Duration::from_secs(10)).unwrap();
    let port = kafka.port(0);
    kafka.kill(0).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    kafka.restart(0).unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    while kafka.leader("t", 0).is_err() {
        assert!(Instant::now() < until, "{}", kafka.logs());
    }
    let held = kafka.read_all("t").unwrap();
    assert_eq!((held.len(), held[0].key.as_str(), held[0].value.as_slice()), (1, "a", b"kept".as_slice()));
    drop(kafka);
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
}

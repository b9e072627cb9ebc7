//! The clients that everybody has: `mosquitto_pub` and `mosquitto_sub`, in both versions.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests, too, end the test

use std::process::{Output, Stdio};
use std::time::Duration;
use tidegate_contract::config::{ClientCertificates, Limits, Listener, ListenerTls};
use tidegate_core::Services;
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::certificates::Cast;
use tidegate_testkit::memory::Bounds;
use tidegate_testkit::pki::Authority;
use tidegate_testkit::tls::listener;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout, Command};

const LONG: Duration = Duration::from_secs(20);
const MISSING: &str = "mosquitto's clients are there: apt-get install mosquitto-clients";
const ADDRESS: &str = "sites/berlin/telemetry/meter-7/power";

struct Gateway {
    kafka: MemoryKafka,
    services: Services,
    port: u16,
}

impl Gateway {
    async fn start() -> Self {
        Self::start_on(None).await
    }

    async fn start_on(tls: Option<ListenerTls>) -> Self {
        let kafka = MemoryKafka::new();
        kafka.topic("telemetry", &["sites/+/telemetry/#"], 12);
        let services = kafka.services_with(Bounds::default(), Limits::default()).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let listener = Listener { tls, ..Listener::plain("mqtt", port) };
        tokio::spawn(tidegate_mqtt::serve(vec![(listener, socket)], services.clone()));
        Self { kafka, services, port }
    }

    fn mosquitto(&self, tool: &str, version: &str, arguments: &[&str]) -> Command {
        // lines, or what it says stays in a buffer
        let mut command = Command::new("stdbuf");
        command
            .args(["-oL", &format!("mosquitto_{tool}")])
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-V", version])
            .args(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    async fn run(&self, tool: &str, version: &str, arguments: &[&str]) -> Output {
        let output = self.mosquitto(tool, version, arguments).output();
        let output = tokio::time::timeout(LONG, output).await.expect("in time");
        output.expect(MISSING)
    }

    async fn publish(&self, version: &str, arguments: &[&str]) -> Output {
        self.run("pub", version, arguments).await
    }

    /// A subscriber that was told that it is subscribed.
    async fn subscribe(&self, version: &str, arguments: &[&str]) -> Subscriber {
        let mut child = self.mosquitto("sub", version, arguments).args(["-d", "-v"]).spawn().expect(MISSING);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !next(&mut lines).await.contains("Subscribed") {}
        Subscriber { _child: child, lines }
    }
}

struct Subscriber {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Subscriber {
    /// The next record as `address payload`.
    async fn record(&mut self) -> String {
        loop {
            let line = next(&mut self.lines).await;
            if line.starts_with("sites/") {
                return line;
            }
        }
    }
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = tokio::time::timeout(LONG, lines.next_line()).await.expect("in time");
    line.unwrap().expect("mosquitto_sub goes on")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_version_and_qos_of_mosquitto_publishes_and_subscribes() {
    let gateway = Gateway::start().await;
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1"] {
            let filters = ["-q", qos, "-t", "sites/+/telemetry/#"];
            let mut subscriber = gateway.subscribe(version, &filters).await;
            for number in 0..3 {
                let text = format!("{version} {qos} {number}");
                let output = gateway.publish(version, &["-q", qos, "-t", ADDRESS, "-m", &text]).await;
                assert!(output.status.success(), "{}", said(&output));
                assert_eq!(subscriber.record().await, format!("{ADDRESS} {text}"));
            }
        }
    }
    assert_eq!(gateway.kafka.stored(ADDRESS).len(), 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_hears_why_its_message_is_refused() {
    let gateway = Gateway::start().await;
    let output = gateway.publish("mqttv5", &["-q", "1", "-t", "nowhere", "-m", "x"]).await;
    assert!(said(&output).contains("Topic Name invalid"), "{}", said(&output));
    let output = gateway.publish("mqttv311", &["-q", "2", "-t", ADDRESS, "-m", "x"]).await;
    assert!(!output.status.success());
    assert!(gateway.kafka.stored(ADDRESS).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_of_mosquitto_reach_its_subscribers() {
    let gateway = Gateway::start().await;
    let format = "%t|%p|%C|%R|%D|%P|%E|%F";
    let filters = ["-q", "1", "-t", "sites/+/telemetry/#"];
    let mut child = gateway.mosquitto("sub", "mqttv5", &filters);
    let mut child = child.args(["-C", "1", "-d", "-F", format]).spawn().expect(MISSING);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while !next(&mut lines).await.contains("Subscribed") {}
    let properties = [
        ["content-type", "text/plain"],
        ["response-topic", "answers/here"],
        ["correlation-data", "c1"],
        ["message-expiry-interval", "60"],
        ["payload-format-indicator", "1"],
    ];
    let mut arguments =
        vec!["-q", "1", "-t", ADDRESS, "-m", "hello", "-D", "publish", "user-property", "unit", "W"];
    for [name, value] in &properties {
        arguments.extend(["-D", "publish", name, value]);
    }
    let output = gateway.publish("mqttv5", &arguments).await;
    assert!(output.status.success(), "{}", said(&output));
    let line = loop {
        let line = next(&mut lines).await;
        if line.starts_with(ADDRESS) {
            break line;
        }
    };
    assert_eq!(line, format!("{ADDRESS}|hello|text/plain|answers/here|c1|unit:W|60|1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_of_mosquitto_is_published_when_it_is_killed() {
    let gateway = Gateway::start().await;
    let will = ["--will-topic", ADDRESS, "--will-payload", "gone", "--will-qos", "1", "-t", "sites/x"];
    let subscriber = gateway.subscribe("mqttv311", &will).await;
    drop(subscriber);
    // counted once the connection has heard that Kafka holds it, which is after Kafka does
    let counted = async {
        while !gateway.services.telemetry.encode().contains("tidegate_mqtt_wills_total{reason=\"Stored\"} 1")
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, counted).await.expect("in time");
    assert_eq!(gateway.kafka.stored(ADDRESS), ["gone"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_comes_in_with_its_certificate_in_both_versions_of_tls() {
    let (cast, server) = (Cast::new().unwrap(), Authority::new("server's").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let tls = listener(folder.path(), &server.leaf("server").unwrap(), ClientCertificates::Required);
    let gateway = Gateway::start_on(Some(tls.unwrap())).await;
    cast.declare(gateway.services.directory.roster()).unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.crt", server.pem());
    let files = |name: &str, leaf: &tidegate_testkit::pki::Leaf| {
        [file(&format!("{name}.crt"), &leaf.certificate), file(&format!("{name}.key"), &leaf.key)]
    };
    let [certificate, key] = files("a1", &cast.auto.device("a1").unwrap());
    let [strange, strange_key] = files("stranger", &cast.stranger.device("a1").unwrap());
    for version in ["tlsv1.2", "tlsv1.3"] {
        let tls = ["--cafile", &ca, "--tls-version", version, "--cert", &certificate, "--key", &key];
        let filters = [&tls[..], &["-q", "1", "-t", "sites/+/telemetry/#"]].concat();
        let mut subscriber = gateway.subscribe("mqttv5", &filters).await;
        let message = [&tls[..], &["-q", "1", "-t", ADDRESS, "-m", version]].concat();
        let output = gateway.publish("mqttv311", &message).await;
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(subscriber.record().await, format!("{ADDRESS} {version}"));
        let stranger = ["--cafile", &ca, "--tls-version", version, "--cert", &strange, "--key", &strange_key];
        let output = gateway.publish("mqttv5", &[&stranger[..], &["-t", ADDRESS, "-m", "x"]].concat()).await;
        assert!(!output.status.success(), "{}", said(&output));
    }
    assert_eq!(gateway.kafka.stored(ADDRESS), ["tlsv1.2", "tlsv1.3"]);
}

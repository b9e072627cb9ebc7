use super::*;
use std::io::Write as _;

const GOOD: &str = r#"{"namespace":"plant","platform":"plant","gateway":"mqtt",
    "protocol":{"mqtt":{"listeners":[{"name":"mqtt","port":1883}]}},"kafka":{"bootstrap":"plant-kafka:9092"}}"#;

fn said(text: &str) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    match read(file.path()) {
        Ok(_) => "fine".to_owned(),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn the_operators_file_is_fine() {
    assert_eq!(said(GOOD), "fine");
}

#[test]
fn each_mistake_is_told_with_what_to_write() {
    let listener = r#"{"name":"mqtt","port":1883}"#;
    let cases = [
        (GOOD.replace("namespace", "namespase"), "unknown field `namespase`"),
        (GOOD.replace(listener, ""), "protocol.mqtt.listeners is empty"),
        (GOOD.replace(listener, &format!("{listener},{listener}")), "two listeners are called \"mqtt\""),
        (
            GOOD.replace(listener, &format!("{listener},{}", listener.replace("mqtt", "other"))),
            "want the same port 1883",
        ),
        (GOOD.replace("1883", "9100"), "wants adminPort 9100"),
        (GOOD.replace("plant-kafka:9092", " "), "kafka.bootstrap is empty"),
        (GOOD.replace(r#""kafka""#, r#""limits":{"inFlight":0},"kafka""#), "limits.inFlight is 0"),
        (GOOD.replace(r#""mqtt":{"listeners""#, r#""smtp":{"listeners""#), "unknown variant `smtp`"),
        (
            GOOD.replace(
                listener,
                r#"{"name":"mqtts","port":8883,"tls":{"certificate":"/nowhere/tls.crt","key":"/nowhere/tls.key"}}"#,
            ),
            "listener \"mqtts\" cannot be opened: tls.certificate names /nowhere/tls.crt, which cannot be read: No such file",
        ),
        (
            GOOD.replace(
                listener,
                r#"{"name":"mqtts","port":8883,"tls":{"certificate":"/proc/self/status","key":"/proc/self/status"}}"#,
            ),
            "listener \"mqtts\" cannot be opened: tls.certificate names /proc/self/status, which holds no certificate",
        ),
        (
            GOOD.replace(
                r#""bootstrap""#,
                r#""tls":{"ca":"/nowhere/ca.crt","client":{"certificate":"/nowhere/x","key":"/nowhere/y"}},"bootstrap""#,
            ),
            "kafka.tls.ca names /nowhere/ca.crt, which cannot be read",
        ),
    ];
    for (text, part) in cases {
        let said = said(&text);
        assert!(said.contains(part), "{said:?} does not say {part:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = format!("{:#}", read(Path::new("/nowhere/gateway.json")).unwrap_err());
    assert!(error.starts_with("failed to read /nowhere/gateway.json"), "{error}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_its_listener() {
    let taken = TcpListener::bind(("0.0.0.0", 0)).await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = bind(&[Listener::plain("mqtt", port)]).await.unwrap_err();
    assert!(format!("{error:#}").contains(&format!("port {port} (listener \"mqtt\")")));
}

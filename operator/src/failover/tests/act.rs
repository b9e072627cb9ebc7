//! What is written, against an API server in memory.

use crate::failover::act::{Done, act, may_mark, read_record};
use crate::failover::adverts;
use crate::failover::model::{Action, Announcers, Owner, PodRef};
use crate::failover::record::{Claim, Record};
use crate::frame::testing::FakeServer;
use http::Method;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

const NAMESPACE: &str = "tidegate-system";
const POD: &str = "/api/v1/namespaces/iot/pods/mqtt-1";
const ADVERT: &str = "/apis/metallb.io/v1beta1/namespaces/metallb-system/l2advertisements/tidegate.devices";

fn pod() -> PodRef {
    PodRef { namespace: "iot".to_owned(), name: "mqtt-1".to_owned(), uid: "u1".to_owned() }
}

fn server() -> FakeServer {
    let server = FakeServer::default();
    server.put(
        POD,
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mqtt-1", "uid": "u1",
        "labels": {"tidegate.io/in-service": "true", "other": "stays"}}}),
    );
    server
}

fn record(version: Option<&str>) -> Record {
    let claim =
        Claim { by: "a".to_owned(), since: Timestamp::UNIX_EPOCH, evidence: "3 of 3 targets".to_owned() };
    Record { claims: [("node2".to_owned(), claim)].into(), version: version.map(str::to_owned) }
}

fn write(record: Record) -> Action {
    Action::Record { record, claimed: vec!["node2".to_owned()], released: Vec::new() }
}

#[tokio::test]
async fn a_pod_is_labelled_only_while_it_is_the_same() {
    let server = server();
    let context = server.context();
    act(&context, NAMESPACE, &Action::Label { pod: pod(), in_service: false }).await.unwrap();
    let labels = server.get(POD).unwrap()["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"tidegate.io/in-service": "false", "other": "stays"}));
    server.edit(POD, |pod| pod["metadata"]["uid"] = "u2".into());
    let error = act(&context, NAMESPACE, &Action::Label { pod: pod(), in_service: true }).await.unwrap_err();
    assert!(error.is_outdated(), "{error}");
}

#[tokio::test]
async fn a_pod_is_deleted_gracefully_and_by_its_uid() {
    let server = server();
    act(&server.context(), NAMESPACE, &Action::Replace { pod: pod() }).await.unwrap();
    let asked = server.asked().into_iter().find(|one| one.method == Method::DELETE).unwrap();
    assert_eq!(asked.body["preconditions"], json!({"uid": "u1"}));
    assert!(asked.body.get("gracePeriodSeconds").is_none(), "{}", asked.body);
}

#[tokio::test]
async fn the_record_is_written_only_in_the_version_that_was_read() {
    let server = FakeServer::default();
    let context = server.context();
    assert_eq!(read_record(&context, NAMESPACE).await.unwrap(), Record::default());
    let Done::Record(first) = act(&context, NAMESPACE, &write(record(None))).await.unwrap() else {
        panic!("no record")
    };
    assert_eq!(first.claims, record(None).claims);
    act(&context, NAMESPACE, &write(first.clone())).await.unwrap();
    let error = act(&context, NAMESPACE, &write(first)).await.unwrap_err();
    assert!(error.is_outdated(), "{error}");
    assert_eq!(read_record(&context, NAMESPACE).await.unwrap().claims, record(None).claims);
}

#[tokio::test]
async fn who_announces_is_chosen_once_and_read_back() {
    let server = FakeServer::default();
    let context = server.context();
    let pool = "/apis/metallb.io/v1beta1/namespaces/metallb-system/ipaddresspools/devices";
    server.put(pool, json!({"metadata": {"name": "devices"}}));
    let announce = Action::Announce { pool: "devices".to_owned(), from: Announcers::InService };
    act(&context, NAMESPACE, &announce).await.unwrap();
    let read = async || adverts::list(&context).await.unwrap().unwrap().adverts;
    assert_eq!(read().await[0].from, Announcers::InService);
    for from in [Announcers::All, Announcers::InService] {
        let found = read().await;
        assert_eq!((found[0].owner, found.len()), (Owner::Shared, 1));
        let advert = found[0].clone();
        let select = Action::Select { advert: advert.name, uid: advert.uid, version: advert.version, from };
        act(&context, NAMESPACE, &select).await.unwrap();
        let spec = server.get(ADVERT).unwrap()["spec"].clone();
        assert_eq!(spec["ipAddressPools"], json!(["devices"]), "nothing else is touched");
        // Somebody wrote it since it was read.
        assert!(act(&context, NAMESPACE, &select).await.unwrap_err().is_outdated());
        assert_eq!(read().await[0].from, from);
    }
}

#[tokio::test]
async fn a_node_is_marked_only_while_it_is_the_same_and_has_no_mark_in_service() {
    let server = FakeServer::default();
    let (context, path) = (server.context(), "/api/v1/nodes/node2");
    let labels = json!({"kubernetes.io/hostname": "node2"});
    server.put(path, json!({"metadata": {"name": "node2", "uid": "u1", "labels": labels}}));
    let mark = |in_service| Action::Mark { node: "node2".to_owned(), uid: "u1".to_owned(), in_service };
    act(&context, NAMESPACE, &mark(false)).await.unwrap();
    assert_eq!(server.get(path).unwrap()["metadata"]["labels"]["tidegate.io/in-service"], "false");
    act(&context, NAMESPACE, &mark(true)).await.unwrap();
    assert_eq!(server.get(path).unwrap()["metadata"]["labels"], labels);
    server.edit(path, |node| node["metadata"]["uid"] = "u2".into());
    assert!(act(&context, NAMESPACE, &mark(false)).await.unwrap_err().is_outdated());
}

#[tokio::test]
async fn a_missing_right_to_mark_nodes_is_known_before_one_dies() {
    let server = FakeServer::default();
    may_mark(&server.context()).await.unwrap();
    server.fail(Method::PATCH, "/api/v1/nodes/tidegate-no-node", 403);
    assert!(may_mark(&server.context()).await.is_err());
}

#[tokio::test]
async fn a_cluster_without_metallb_has_no_announcements() {
    let server = FakeServer::default();
    for plural in ["ipaddresspools", "l2advertisements"] {
        server.fail(
            Method::GET,
            &format!("/apis/metallb.io/v1beta1/namespaces/metallb-system/{plural}"),
            404,
        );
    }
    assert_eq!(adverts::list(&server.context()).await.unwrap(), None);
}

#[test]
fn what_failover_writes_is_not_taken_for_somebody_elses() {
    let fields = |path: &str| json!({"f:spec": {path: {}}});
    let entry = |manager: &str, path: &str| {
        json!({"manager": manager, "operation": "Update", "apiVersion": "metallb.io/v1beta1",
            "fieldsType": "FieldsV1", "fieldsV1": fields(path)})
    };
    let advert = |manager: &str| {
        let object = json!({"apiVersion": "metallb.io/v1beta1", "kind": "L2Advertisement",
            "metadata": {"name": "a", "resourceVersion": "1", "managedFields": [
                entry("tidegate", "f:ipAddressPools"), entry(manager, "f:nodeSelectors")]},
            "spec": {"ipAddressPools": ["a"], "nodeSelectors": adverts::node_selectors(Announcers::InService)}});
        crate::frame::foreign::removal(&serde_json::from_value(object).unwrap())
    };
    assert!(advert("tidegate-failover").is_none());
    assert!(advert("somebody").is_some());
}

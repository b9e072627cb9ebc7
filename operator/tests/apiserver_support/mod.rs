//! A bare API server with the operator's manifests, and the operator's own program on it with the rights of the generated
//! role.
#![allow(dead_code, reason = "each test uses its part")]

use futures::{StreamExt as _, future};
use kube::api::{ApiResource, Object};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{Store, reflector};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, Resource};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tidegate_cluster::BareControlPlane;
use tidegate_crds::{Conditions, State};

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A bare API server with the operator's manifests.
pub struct World {
    pub server: BareControlPlane,
    pub folder: tempfile::TempDir,
    /// Where objects are looked at.
    pub namespace: &'static str,
}

impl World {
    /// An API server with the operator's manifests.
    pub fn new() -> Self {
        let (server, folder) = (BareControlPlane::start().unwrap(), tempfile::tempdir().unwrap());
        let world = Self { server, folder, namespace: "plant" };
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests/base");
        world.kubectl(&["apply", "--server-side", "-k", base]);
        world.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]);
        world.kubectl(&["create", "namespace", "plant"]);
        world
    }

    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.server.kubectl().args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments).unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    pub fn apply(&self, object: &Value) {
        let mut command = self.server.kubectl();
        command.args(["apply", "--server-side", "--field-manager=somebody", "--force-conflicts", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(object.to_string().as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{object}");
    }

    /// One value of one object; empty where there is none.
    pub fn value(&self, object: &str, path: &str) -> String {
        let format = format!("jsonpath={{{path}}}");
        self.try_kubectl(&["--namespace", self.namespace, "get", object, "-o", &format]).unwrap_or_default()
    }

    pub fn wait(&self, object: &str, path: &str, wanted: &str) {
        self.wait_until(&format!("{object} {path} is {wanted:?}"), || self.value(object, path) == wanted);
    }

    pub fn wait_until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}\n{}", self.everything());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    pub fn condition(&self, object: &str, type_: &str, reason: &str) {
        self.wait(object, &format!(".status.conditions[?(@.type=='{type_}')].reason"), reason);
    }

    /// What helps to see why a test failed.
    pub fn everything(&self) -> String {
        let objects = self.kubectl(&[
            "--namespace",
            self.namespace,
            "get",
            "iotp,pgw,tgt,dfl,deploy,svc,cm",
            "-o",
            "wide",
        ]);
        let logs = std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().path());
        let logs = logs.filter(|path| path.extension().is_some_and(|end| end == "log"));
        logs.fold(objects, |text, path| format!("{text}\n{}", std::fs::read_to_string(path).unwrap()))
    }

    /// A kubeconfig with the token of the operator's ServiceAccount.
    pub fn kubeconfig(&self) -> PathBuf {
        let namespace = "--namespace=tidegate-system";
        let token = self.kubectl(&[namespace, "create", "token", "tidegate-operator", "--duration=1h"]);
        let view = self.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&view).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        let path = self.folder.path().join("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        path
    }

    pub fn operator(&self, name: &str) -> Operator {
        self.operator_with(name, &[])
    }

    pub fn operator_with(&self, name: &str, environment: &[(&str, &str)]) -> Operator {
        let log = self.folder.path().join(format!("{name}.log"));
        // A port that was free a moment ago.
        let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_tidegate-operator"))
            .env("KUBECONFIG", self.kubeconfig())
            .env("POD_NAME", name)
            .env("TIDEGATE_LISTEN", listen.to_string())
            .envs(environment.iter().copied())
            .stdout(File::create(&log).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Operator { child, log, listen }
    }

    /// The administrator's client.
    pub async fn client(&self) -> Client {
        let config = Kubeconfig::read_from(self.server.kubeconfig()).unwrap();
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        Client::try_from(config).unwrap()
    }

    pub fn leader(&self) -> String {
        let path = "jsonpath={.spec.holderIdentity}";
        let lease = ["--namespace=tidegate-system", "get", "lease", "tidegate-operator", "-o", path];
        self.try_kubectl(&lease).unwrap_or_default()
    }
}

/// What is looked at of many objects.
pub type Seen = Object<IgnoredAny, Status>;

/// Their conditions.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Status {
    #[serde(default)]
    pub conditions: Conditions,
}

/// All objects of a kind in the namespace `plant`, kept by a watch: waiting for thousands of them asks the API server, which is
/// measured with them, for nothing. Within a runtime.
pub fn watch_all<K: Resource<DynamicType = ()>>(client: &Client) -> Store<Seen> {
    let resource = ApiResource::erase::<K>(&());
    let writer = Writer::new(resource.clone());
    let store = writer.as_reader();
    let api: Api<Seen> = Api::namespaced_with(client.clone(), "plant", &resource);
    let events = reflector(writer, watcher(api, watcher::Config::default()).default_backoff());
    tokio::spawn(events.for_each(|_| future::ready(())));
    store
}

/// What an object says of one condition: its state and reason.
pub fn says<'a>(object: &'a Seen, type_: &str) -> Option<(State, &'a str, &'a str)> {
    let said = object.status.as_ref()?.conditions.get(type_)?;
    let state =
        [State::True, State::False, State::Unknown].into_iter().find(|one| said.status == one.as_str())?;
    Some((state, &said.reason, &said.message))
}

/// The operator's program; it ends with this.
pub struct Operator {
    pub child: Child,
    pub log: PathBuf,
    listen: SocketAddr,
}

impl Operator {
    /// Its metrics, as they are scraped.
    pub fn metrics(&self) -> String {
        let url = format!("http://{}/metrics", self.listen);
        let output = Command::new("curl").args(["-sSf", &url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(mut self) -> (bool, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        (status.success(), std::fs::read_to_string(&self.log).unwrap())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The ledger in a story: the load outside the cluster, and a pod with a Kafka certificate of its own that reads what is stored.

use crate::{Kubectl, Story, until};
use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tidegate_ledger::judge::Rules;
use tidegate_ledger::read::Offsets;
pub use tidegate_ledger::report::reports;
use tidegate_ledger::{Judge, Load, LoadOptions, Login, Verdict};

const POD: &str = "ledger";
const LIMIT: Duration = Duration::from_secs(60);

/// A pod that reaches Kafka directly.
pub struct Pod<'a> {
    kubectl: &'a Kubectl,
}

impl<'a> Pod<'a> {
    /// Starts the pod, with a certificate from the platform's Kafka authority. `cargo xtask test` loads the image and names it.
    pub fn start(story: &'a Story) -> Result<Self> {
        let image = std::env::var("TIDEGATE_LEDGER_IMAGE")
            .context("TIDEGATE_LEDGER_IMAGE names no image: run stories by cargo xtask test --story NAME")?;
        let kubectl = &story.kubectl;
        let folder = tempfile::tempdir()?;
        certificate(kubectl, folder.path())?;
        let read = |file: &str| fs::read(folder.path().join(file)).map(|bytes| STANDARD.encode(bytes));
        kubectl.run(&["delete", "pod", POD, "--ignore-not-found", "--grace-period=1"])?;
        kubectl.apply(&format!(
            r#"
apiVersion: v1
kind: Secret
metadata: {{name: {POD}-kafka}}
data: {{ca.crt: {ca}, tls.crt: {certificate}, tls.key: {key}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {POD}}}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 1
  securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: ledger
    image: {image}
    imagePullPolicy: IfNotPresent
    args: [idle]
    env:
    - {{name: TIDEGATE_KAFKA_BOOTSTRAP, value: "plant-kafka.plant.svc:9092"}}
    - {{name: TIDEGATE_KAFKA_CA, value: /kafka/ca.crt}}
    - {{name: TIDEGATE_KAFKA_CERTIFICATE, value: /kafka/tls.crt}}
    - {{name: TIDEGATE_KAFKA_KEY, value: /kafka/tls.key}}
    securityContext:
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL]}}
      readOnlyRootFilesystem: true
    volumeMounts: [{{name: kafka, mountPath: /kafka, readOnly: true}}]
  volumes: [{{name: kafka, secret: {{secretName: {POD}-kafka}}}}]
"#,
            ca = read("ca.crt")?,
            certificate = read("tls.crt")?,
            key = read("tls.key")?,
        ))?;
        until("the ledger's pod", LIMIT, || {
            let pod = kubectl.get(&["pod", POD])?;
            ensure!(pod["status"]["containerStatuses"][0]["ready"] == true, "{}", pod["status"]);
            Ok(())
        })?;
        Ok(Self { kubectl })
    }

    /// Runs a subcommand of the ledger in the pod.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let mut all = vec!["exec", POD, "--", "/usr/local/bin/tidegate-ledger"];
        all.extend(arguments);
        self.kubectl.run(&all)
    }

    /// The next offset of each partition.
    pub fn offsets(&self, topic: &str) -> Result<Offsets> {
        self.run(&["offsets", "--topic", topic])?.parse().map_err(anyhow::Error::msg)
    }

    /// The broker that leads each partition.
    pub fn leaders(&self, topic: &str) -> Result<BTreeMap<i32, i32>> {
        let text = self.run(&["leaders", "--topic", topic])?;
        let pairs = text.trim().split(',').map(|pair| {
            let (partition, broker) = pair.split_once(':').with_context(|| format!("no leaders: {text}"))?;
            Ok((partition.parse()?, broker.parse()?))
        });
        pairs.collect()
    }

    /// Compares what a load logged with what Kafka holds from `start` on.
    pub fn judge(&self, options: &LoadOptions, topic: &str, start: &Offsets) -> Result<Verdict> {
        let from = format!("--from={start}");
        let stored = self.run(&[
            "read",
            "--topic",
            topic,
            "--run",
            options.run.as_str(),
            &from,
            "--address",
            &options.address,
        ])?;
        let mut judge = Judge::read_log(Rules::default(), BufReader::new(File::open(&options.log)?))?;
        judge.read_stored(stored.as_bytes())?;
        Ok(judge.verdict())
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let _ = self.kubectl.run(&[
            "delete",
            "pod,secret",
            POD,
            &format!("{POD}-kafka"),
            "--ignore-not-found",
            "--wait=false",
        ]);
    }
}

/// Makes `tls.crt`, `tls.key` and `ca.crt` for a Kafka client that may see everything, whatever a story declares: Kafka takes
/// it for the operator.
fn certificate(kubectl: &Kubectl, folder: &Path) -> Result<()> {
    let secret = kubectl.get(&["secret", "plant-kafka-ca"])?;
    for file in ["ca.crt", "ca.key"] {
        let data = secret["data"][file].as_str().with_context(|| format!("no {file} in plant-kafka-ca"))?;
        fs::write(folder.join(file), STANDARD.decode(data)?)?;
    }
    fs::write(folder.join("extensions"), "extendedKeyUsage=clientAuth\n")?;
    for arguments in [
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=operator -keyout tls.key -out tls.csr",
        "x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -days 2 -extfile extensions -out tls.crt",
    ] {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output()?;
        ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Who the ledger's clients are: the story.
pub fn login(story: &Story) -> Result<Login> {
    let tester = story.tester()?.clone();
    Ok(Login { username: tester.username, password: tester.password })
}

/// A load against the quickstart's gateways, of MQTT publishers unless `change` wants more; its log is below `target/ledger`.
pub fn load(story: &Story, change: impl FnOnce(&mut LoadOptions)) -> Result<(Load, LoadOptions)> {
    let target = |gateway| -> Result<String> {
        let (host, port) = crate::client::host_and_port(&story.url(gateway)?)?;
        Ok(format!("{host}:{port}"))
    };
    let folder = crate::story::root().join("target/ledger");
    fs::create_dir_all(&folder)?;
    let mut options = LoadOptions::new(&target("mqtt")?, PathBuf::new());
    options.login = Some(login(story)?);
    options.http = target("http")?;
    options.log = folder.join(format!("{}.log", options.run.as_str()));
    change(&mut options);
    Ok((Load::start(options.clone())?, options))
}

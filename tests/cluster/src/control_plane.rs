//! etcd, API server, controller manager and scheduler on the host's side of the bridge. Does IO.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cgroup::Cgroups;
use crate::command::succeeds;
use crate::pki::Pki;
use crate::plan::{API_SERVER, HOST_ADDRESS, POD_RANGE, SERVICE_RANGE};
use crate::process::{Daemon, Process, wait_until};

/// The group of the control plane's processes.
const GROUP: &str = "control-plane";
/// What runs, in the order in which it starts.
pub(crate) const PROGRAMS: [&str; 4] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// How long etcd and the API server may take to answer.
const PATIENCE: Duration = Duration::from_secs(90);

/// The control plane of the local cluster.
#[derive(Debug)]
pub struct ControlPlane<'a> {
    /// The cluster's folder.
    pub state: &'a Path,
    /// The folder of programs.
    pub programs: &'a Path,
    /// Keys and kubeconfigs.
    pub pki: &'a Pki,
    /// The machine's control groups.
    pub cgroups: &'a Cgroups,
}

/// Issues what the control plane needs beside the authorities.
pub(crate) fn issue(pki: &Pki) -> Result<()> {
    let names = format!(
        "IP:{HOST_ADDRESS},IP:127.0.0.1,IP:10.96.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,\
         DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local"
    );
    pki.issue("apiserver", "ca", "/CN=kube-apiserver", &names)?;
    pki.issue("kubelet-client", "ca", "/O=system:masters/CN=kube-apiserver-kubelet-client", "")?;
    pki.issue("front-client", "front", "/CN=front-proxy", "")?;
    pki.kubeconfig("admin", "/O=system:masters/CN=admin", API_SERVER)?;
    pki.kubeconfig("controller-manager", "/CN=system:kube-controller-manager", API_SERVER)?;
    pki.kubeconfig("scheduler", "/CN=system:kube-scheduler", API_SERVER)?;
    pki.kubeconfig("proxy", "/CN=system:kube-proxy", API_SERVER)?;
    Ok(())
}

impl ControlPlane<'_> {
    fn daemon(&self, program: &str, cgroups: Vec<PathBuf>) -> Daemon {
        daemon(self.state, program, cgroups)
    }

    /// Starts what does not run and waits until the API server is ready.
    ///
    /// # Errors
    /// When one of them ends or does not become ready; the error repeats the end of its log.
    pub fn start(&self) -> Result<()> {
        let joins = self.cgroups.create(GROUP)?;
        let start = |program: &str, arguments: &[String]| -> Result<(Daemon, Process)> {
            let daemon = self.daemon(program, joins.clone());
            let process = daemon.start(&self.programs.join(program), arguments)?;
            Ok((daemon, process))
        };
        start("etcd", &etcd_arguments(&self.state.join("etcd"), 2379, 2380))?;
        let (api, process) = start("kube-apiserver", &self.api_server_arguments())?;
        let kubeconfig = self.pki.path("admin.kubeconfig");
        wait_ready(&self.programs.join("kubectl"), &kubeconfig, &api, &process)?;
        start("kube-controller-manager", &self.controller_manager_arguments())?;
        start("kube-scheduler", &self.scheduler_arguments())?;
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.pki.path(name).to_string_lossy().into_owned()
    }

    fn api_server_arguments(&self) -> Vec<String> {
        let mut arguments = api_server_arguments(self.pki, 2379, 6443);
        arguments.extend([
            format!("--advertise-address={HOST_ADDRESS}"),
            "--bind-address=0.0.0.0".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--enable-admission-plugins=NodeRestriction".to_owned(),
            // There is no kube-proxy on the host: aggregated servers are reached by their pods' addresses.
            "--enable-aggregator-routing=true".to_owned(),
            format!("--kubelet-client-certificate={}", self.file("kubelet-client.crt")),
            format!("--kubelet-client-key={}", self.file("kubelet-client.key")),
            format!("--kubelet-certificate-authority={}", self.file("ca.crt")),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            format!("--requestheader-client-ca-file={}", self.file("front.crt")),
            "--requestheader-allowed-names=front-proxy".to_owned(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
            "--requestheader-group-headers=X-Remote-Group".to_owned(),
            "--requestheader-username-headers=X-Remote-User".to_owned(),
            format!("--proxy-client-cert-file={}", self.file("front-client.crt")),
            format!("--proxy-client-key-file={}", self.file("front-client.key")),
        ]);
        arguments
    }

    fn controller_manager_arguments(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.file("controller-manager.kubeconfig")),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
            "--allocate-node-cidrs=false".to_owned(),
            format!("--cluster-cidr={POD_RANGE}"),
            format!("--service-account-private-key-file={}", self.file("sa.key")),
            format!("--root-ca-file={}", self.file("ca.crt")),
            "--use-service-account-credentials=true".to_owned(),
            format!("--cluster-signing-cert-file={}", self.file("ca.crt")),
            format!("--cluster-signing-key-file={}", self.file("ca.key")),
            format!("--requestheader-client-ca-file={}", self.file("front.crt")),
            // A dead node is to be noticed in seconds; the kubelets renew their leases accordingly.
            "--node-monitor-grace-period=20s".to_owned(),
            "--node-monitor-period=2s".to_owned(),
        ]
    }

    fn scheduler_arguments(&self) -> Vec<String> {
        vec![
            format!("--kubeconfig={}", self.file("scheduler.kubeconfig")),
            "--bind-address=127.0.0.1".to_owned(),
            "--leader-elect=false".to_owned(),
        ]
    }
}

fn daemon(state: &Path, program: &str, cgroups: Vec<PathBuf>) -> Daemon {
    Daemon {
        record: state.join("run").join(program),
        log: state.join("log").join(format!("{program}.log")),
        cgroups,
    }
}

/// The control plane's processes that run, by name.
///
/// # Errors
/// When a record cannot be read.
pub(crate) fn running(state: &Path) -> Result<Vec<(&'static str, Option<Process>)>> {
    PROGRAMS.iter().map(|program| Ok((*program, daemon(state, program, vec![]).running()?))).collect()
}

/// Kills the control plane. What it would do on its way out concerns only what goes with it.
///
/// # Errors
/// When a process does not die.
pub(crate) fn kill(state: &Path) -> Result<()> {
    running(state)?.into_iter().filter_map(|(_, process)| process).try_for_each(|process| process.kill())
}

/// A cluster that lives for a test: nothing is worth waiting for the disk.
pub(crate) fn etcd_arguments(data: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ]
}

/// What the local cluster's API server and a bare one have in common.
pub(crate) fn api_server_arguments(pki: &Pki, etcd: u16, port: u16) -> Vec<String> {
    let file = |name: &str| pki.path(name).to_string_lossy().into_owned();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={port}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--authorization-mode=Node,RBAC".to_owned(),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
    ]
}

/// Waits until the API server says that it is ready, and no longer than its process lives.
pub(crate) fn wait_ready(kubectl: &Path, kubeconfig: &Path, api: &Daemon, process: &Process) -> Result<()> {
    let ready = wait_until(PATIENCE, || {
        !process.is_alive()
            || succeeds(
                Command::new(kubectl).arg("--kubeconfig").arg(kubeconfig).args(["get", "--raw", "/readyz"]),
            )
    });
    if !ready || !process.is_alive() {
        bail!("failed to start the API server:\n{}", api.last_words());
    }
    Ok(())
}

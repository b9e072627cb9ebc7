//! An API server and its etcd on free loopback ports, without nodes and without root: for tests of what the API server
//! itself does (validation, ownership of fields, watches). Does IO.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cache::Cache;
use crate::command::{describe, succeeds};
use crate::control_plane::{api_server_arguments, etcd_arguments};
use crate::files;
use crate::go;
use crate::pki::Pki;
use crate::process::wait_until;
use crate::progress::Progress;

const PATIENCE: Duration = Duration::from_secs(90);

/// A running API server; dropping it ends it and removes its files.
#[derive(Debug)]
pub struct BareControlPlane {
    dir: PathBuf,
    programs: PathBuf,
    kubeconfig: PathBuf,
    children: Vec<Child>,
}

impl BareControlPlane {
    /// Builds what is missing (some minutes the first time), starts and waits until the API server is ready.
    ///
    /// # Errors
    /// When the build fails or the API server does not become ready; the message repeats the end of its log.
    pub fn start() -> Result<Self> {
        let programs = go::kubernetes(&Cache::open(&Progress::new())?)?;
        let name = format!("tidegate-bare-{}-{}", std::process::id(), crate::command::unique());
        let dir = std::env::temp_dir().join(name);
        let pki = Pki::open(&dir.join("pki"))?;
        let [client, peer, port] = free_ports()?;
        pki.issue("apiserver", "ca", "/CN=kube-apiserver", "IP:127.0.0.1,IP:10.96.0.1,DNS:localhost")?;
        let kubeconfig =
            pki.kubeconfig("admin", "/O=system:masters/CN=admin", &format!("https://127.0.0.1:{port}"))?;

        // From here on dropping it ends what was started.
        let mut bare = Self { dir, programs, kubeconfig, children: Vec::new() };
        bare.spawn("etcd", &etcd_arguments(&bare.dir.join("etcd"), client, peer))?;
        let mut arguments = api_server_arguments(&pki, client, port);
        // The second address of the Service `kubernetes`, which nobody asks; loopback itself is refused.
        arguments.extend(["--bind-address=127.0.0.1", "--advertise-address=192.0.2.1"].map(str::to_owned));
        bare.spawn("kube-apiserver", &arguments)?;
        bare.wait()?;
        Ok(bare)
    }

    fn log(&self, program: &str) -> PathBuf {
        self.dir.join(format!("{program}.log"))
    }

    fn spawn(&mut self, program: &str, arguments: &[String]) -> Result<()> {
        let log = std::fs::File::create(self.log(program)).context("failed to create a log")?;
        let errors = log.try_clone().context("failed to create a log")?;
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).stdin(Stdio::null()).stdout(log).stderr(errors);
        let child = command.spawn().with_context(|| format!("failed to start {}", describe(&command)))?;
        self.children.push(child);
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        let mut ready = false;
        wait_until(PATIENCE, || {
            ready = succeeds(self.kubectl().args(["get", "--raw", "/readyz"]));
            let ended = self.children.iter_mut().any(|child| !matches!(child.try_wait(), Ok(None)));
            ready || ended
        });
        if !ready {
            let end = |program| {
                let text = std::fs::read_to_string(self.log(program)).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                lines[lines.len().saturating_sub(8)..].join("\n")
            };
            bail!("failed to start a bare API server:\n{}\n{}", end("etcd"), end("kube-apiserver"));
        }
        Ok(())
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A `kubectl` for this API server, ready for its arguments.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        command
    }
}

impl Drop for BareControlPlane {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = files::remove_dir(&self.dir);
    }
}

/// Ports that were free a moment ago. All are held at once, so that they differ.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let listeners: Vec<TcpListener> = (0..N)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()
        .context("failed to find a free port")?;
    let mut ports = [0; N];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr().context("failed to find a free port")?.port();
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let [one, two, three] = free_ports().unwrap();
        assert!(one != two && two != three && one != three);
    }
}

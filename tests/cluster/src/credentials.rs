//! What a device shows at a gateway: its username and password, for real clients. Its password is made by a machine and kept
//! in a Secret, nowhere else. Does IO: runs kubectl, starts clients.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::client::{Answer, curl, mosquitto};

/// Bytes of chance in a password; it is twice as many characters, which counts as machine-made.
const CHANCE: usize = 24;

/// A device's username and password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `<fleet>/<device>`.
    pub username: String,
    /// Its password.
    pub password: String,
}

/// The password stays out of logs and panics.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// A device of a fleet with this password.
    pub fn new(fleet: &str, device: &str, password: &str) -> Self {
        Self { username: format!("{fleet}/{device}"), password: password.to_owned() }
    }

    /// Those of a device whose password is in the Secret of its name, under the key `password`. The Secret is made with a
    /// new password where there is none. `kubectl` starts it in the right namespace with the given arguments.
    ///
    /// # Errors
    /// When the Secret can neither be read nor made.
    pub fn kept(kubectl: &dyn Fn(&[&str]) -> Result<Command>, fleet: &str, device: &str) -> Result<Self> {
        let read = ["get", "secret", device, "--ignore-not-found"];
        let template = "--output=go-template={{with .data.password}}{{. | base64decode}}{{end}}";
        let output = kubectl(&[read.as_slice(), &[template]].concat())?.output()?;
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "failed to read the Secret {device}: {}", error.trim());
        let there = String::from_utf8(output.stdout).context("a password that is no text")?;
        // Line breaks at its end are not part of it.
        let there = there.trim_end_matches(['\r', '\n']);
        if !there.is_empty() {
            return Ok(Self::new(fleet, device, there));
        }
        let made = Self::new(fleet, device, &password()?);
        keep(kubectl, device, &made.password)?;
        Ok(made)
    }

    /// `mosquitto_pub` or `mosquitto_sub` as this device, with the address of a gateway.
    ///
    /// # Errors
    /// When the URL has no host.
    pub fn mosquitto(&self, program: &str, url: &str) -> Result<Command> {
        let mut command = mosquitto(program, url)?;
        command.args(["-u", &self.username, "-P", &self.password]);
        Ok(command)
    }

    /// Runs curl as this device.
    ///
    /// # Errors
    /// When there was no answer.
    pub fn curl(&self, arguments: &[&str]) -> Result<Answer> {
        let user = format!("{}:{}", self.username, self.password);
        curl(&[["--user", &user].as_slice(), arguments].concat())
    }
}

/// Writes a password into the Secret of this name, which may be there.
///
/// # Errors
/// When the API server refuses.
pub fn keep(kubectl: &dyn Fn(&[&str]) -> Result<Command>, name: &str, password: &str) -> Result<()> {
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
        "stringData": {"password": password}});
    let mut child = kubectl(&["apply", "--server-side", "--force-conflicts", "--filename=-"])?
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("failed to start kubectl")?;
    // Not as an argument, which everybody on the machine could read.
    child.stdin.take().context("no standard input")?.write_all(secret.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "failed to make the Secret {name}: {}", error.trim());
    Ok(())
}

/// A new password from the operating system's chance.
///
/// # Errors
/// When that cannot be read.
pub fn password() -> Result<String> {
    let mut bytes = [0; CHANCE];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("no chance")?;
    let mut text = String::with_capacity(2 * CHANCE);
    bytes.iter().try_for_each(|byte| write!(text, "{byte:02x}"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_machine_made_and_differ_and_are_not_logged() {
        let (one, other) = (password().unwrap(), password().unwrap());
        assert!(one.len() >= 32 && one.bytes().all(|byte| byte.is_ascii_hexdigit()) && one != other);
        let device = Credentials::new("meters", "meter-7", &one);
        assert_eq!(device.username, "meters/meter-7");
        assert!(!format!("{device:?}").contains(&one));
    }

    /// A kubectl that answers a read with `stored` and takes what it is given.
    fn kubectl(stored: &'static str) -> impl Fn(&[&str]) -> Result<Command> {
        move |arguments| {
            let mut command = Command::new("sh");
            let says = format!("printf '{stored}'");
            command.args(["-c", if arguments[0] == "get" { &says } else { "cat >/dev/null" }]);
            Ok(command)
        }
    }

    #[test]
    fn a_password_that_is_kept_is_used_and_a_missing_one_is_made() {
        let kept = |stored| Credentials::kept(&kubectl(stored), "meters", "meter-7").unwrap().password;
        assert_eq!(kept("a person made this\\n"), "a person made this");
        assert_eq!(kept("").len(), 2 * CHANCE);
    }

    #[test]
    fn a_secret_that_cannot_be_read_is_told_and_not_made_anew() {
        let fails = |_: &[&str]| -> Result<Command> {
            let mut command = Command::new("sh");
            command.args(["-c", "echo forbidden >&2; exit 1"]);
            Ok(command)
        };
        let error = Credentials::kept(&fails, "meters", "meter-7").unwrap_err();
        assert!(error.to_string().contains("forbidden"), "{error:#}");
    }
}

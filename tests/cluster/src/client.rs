//! Real clients, as a device developer starts them: mosquitto and curl, outside the cluster.

use anyhow::{Context, Result, bail, ensure};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// A client that goes on running, line by line.
pub struct Client {
    child: Child,
    lines: Receiver<(Instant, String)>,
    name: String,
}

impl Client {
    /// Starts a program and reads its lines, standard output and standard error alike.
    pub fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        let (send, lines) = sync_channel(1000);
        let out = child.stdout.take().context("no standard output")?;
        let err = child.stderr.take().context("no standard error")?;
        let other = send.clone();
        std::thread::spawn(move || forward(BufReader::new(out), &send));
        std::thread::spawn(move || forward(BufReader::new(err), &other));
        Ok(Self { child, lines, name })
    }

    /// The next line, and when it came.
    pub fn line(&self, limit: Duration) -> Result<(Instant, String)> {
        self.lines.recv_timeout(limit).map_err(|error| match error {
            RecvTimeoutError::Timeout => anyhow::anyhow!("{} said nothing for {limit:?}", self.name),
            RecvTimeoutError::Disconnected => anyhow::anyhow!("{} has ended", self.name),
        })
    }

    /// Reads lines until one contains `text`.
    pub fn line_with(&self, text: &str, limit: Duration) -> Result<(Instant, String)> {
        let started = Instant::now();
        let mut seen = Vec::new();
        while let Some(left) = limit.checked_sub(started.elapsed()) {
            match self.line(left) {
                Ok(line) if line.1.contains(text) => return Ok(line),
                Ok(line) => seen.push(line.1),
                Err(error) => return Err(error.context(format!("waited for {text:?}; seen: {seen:?}"))),
            }
        }
        bail!("{} said no {text:?} within {limit:?}; seen: {seen:?}", self.name)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(reader: impl BufRead, to: &std::sync::mpsc::SyncSender<(Instant, String)>) {
    for line in reader.lines().map_while(Result::ok) {
        if to.send((Instant::now(), line)).is_err() {
            return;
        }
    }
}

/// `host` and `port` of a URL as `status.endpoints` has it.
pub fn host_and_port(url: &str) -> Result<(String, String)> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} has no scheme"))?;
    let default = if scheme == "http" { "80" } else { "1883" };
    let (host, port) = rest.rsplit_once(':').unwrap_or((rest, default));
    ensure!(!host.is_empty(), "{url} has no host");
    Ok((host.to_owned(), port.to_owned()))
}

/// `mosquitto_pub` or `mosquitto_sub` with the address of a gateway.
pub fn mosquitto(program: &str, url: &str) -> Result<Command> {
    let (host, port) = host_and_port(url)?;
    // line by line, so that a line's time is the event's
    let mut command = Command::new("stdbuf");
    command.args(["-oL", "-eL", program, "-h", &host, "-p", &port]);
    Ok(command)
}

/// What curl got.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// Header lines, in lower case up to the colon.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Runs curl.
pub fn curl(arguments: &[&str]) -> Result<Answer> {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "20", "--http1.1"])
        .args(arguments)
        .output()
        .context("failed to start curl")?;
    ensure!(output.status.success(), "curl: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse_answer(&String::from_utf8_lossy(&output.stdout))
}

fn parse_answer(text: &str) -> Result<Answer> {
    let (head, body) = text.split_once("\r\n\r\n").context("no end of headers")?;
    // an interim answer (100 Continue) comes first, with a head of its own
    if head.split(' ').nth(1).is_some_and(|status| status.starts_with('1')) {
        return parse_answer(body);
    }
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("no status line")?.parse()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Ok(Answer { status, headers, body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoints_url_is_split() {
        assert_eq!(host_and_port("mqtt://10.0.0.1:2883").unwrap(), ("10.0.0.1".into(), "2883".into()));
        assert_eq!(host_and_port("http://10.0.0.1").unwrap(), ("10.0.0.1".into(), "80".into()));
        assert!(host_and_port("10.0.0.1").is_err());
    }

    #[test]
    fn an_answer_after_100_continue_is_the_answer() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nTidegate-Offset: 7\r\n\r\n";
        let answer = parse_answer(text).unwrap();
        assert_eq!((answer.status, answer.header("tidegate-offset")), (204, Some("7")));
    }
}

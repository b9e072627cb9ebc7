//! Processes that outlive the command that started them, found again by a record that cannot fit another. Does IO.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::files;

/// In the environment of everything that the cluster starts, for a person who looks at a process list.
pub const MARK: &str = "TIDEGATE_CLUSTER";

/// Writes its own record, joins its cgroups, then becomes the program: there is no moment at which it runs unrecorded.
const LAUNCH: &str = r#"
record=$1; joined=$2; shift 2
read -r stat < /proc/$$/stat; set -f
rest=${stat##*) }; n=0; for field in $rest; do n=$((n + 1)); [ $n = 20 ] && start=$field; done
read -r boot < /proc/sys/kernel/random/boot_id
echo "$$ $start $boot" > "$record.new" && mv "$record.new" "$record" || exit 1
for group in $joined; do echo $$ > "$group" || exit 1; done
exec "$@"
"#;

/// A process of this boot, told from a later one with the same number by its start time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pid: i32,
    started: u64,
    boot: String,
}

impl Process {
    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The process that `record` names, whether it runs or not.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn recorded(record: &Path) -> Result<Option<Self>> {
        Ok(files::read_if_there(record)?.as_deref().and_then(Self::parse))
    }

    fn parse(record: &str) -> Option<Self> {
        let mut fields = record.split_whitespace();
        Some(Self {
            pid: fields.next()?.parse().ok()?,
            started: fields.next()?.parse().ok()?,
            boot: fields.next()?.to_owned(),
        })
    }

    /// Whether it still runs; one that only waits to be collected does not.
    pub fn is_alive(&self) -> bool {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        boot.trim() == self.boot
            && stat(self.pid).is_some_and(|(state, started)| state != 'Z' && started == self.started)
    }

    /// Sends `signal` if it still runs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.is_alive() {
            send(self.pid, signal)?;
        }
        Ok(())
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Errors
    /// When it is still there after 10 s.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        if !wait_until(Duration::from_secs(10), || !self.is_alive()) {
            bail!("failed to end process {}: it is still there 10 s after SIGKILL", self.pid);
        }
        Ok(())
    }
}

/// Sends a signal; a process that is gone is fine.
pub(crate) fn send(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("failed to send {signal} to process {pid}")),
    }
}

/// A process' state as the kernel writes it: `R`, `S`, `T` for stopped …; none for one that is gone.
pub(crate) fn state(pid: i32) -> Option<char> {
    stat(pid).map(|(state, _)| state)
}

/// State and start time, from `/proc/<pid>/stat`.
fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, but the last parenthesis ends it.
    let rest = text.rsplit_once(") ")?.1;
    let mut fields = rest.split(' ');
    Some((fields.next()?.chars().next()?, fields.nth(18)?.parse().ok()?))
}

/// Asks `done` every 20 ms until it says yes; whether it did within `patience`.
pub(crate) fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let began = Instant::now();
    loop {
        if done() {
            return true;
        }
        if began.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How to start a program that stays.
#[derive(Debug)]
pub struct Daemon {
    /// The file that names the running process.
    pub record: PathBuf,
    /// Where its output goes; started anew each time.
    pub log: PathBuf,
    /// The `cgroup.procs` files of the groups that it joins.
    pub cgroups: Vec<PathBuf>,
}

impl Daemon {
    /// The process if it runs.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn running(&self) -> Result<Option<Process>> {
        Ok(Process::recorded(&self.record)?.filter(Process::is_alive))
    }

    /// Starts `program` unless it runs, detached from this process and its terminal.
    ///
    /// # Errors
    /// When it cannot be started; one that ends right after is the caller's to notice.
    pub fn start(&self, program: &Path, arguments: &[String]) -> Result<Process> {
        if let Some(process) = self.running()? {
            return Ok(process);
        }
        let work = || -> Result<Process> {
            for file in [&self.record, &self.log] {
                files::make_dir(file.parent().unwrap_or(Path::new("/")))?;
            }
            let _ = fs::remove_file(&self.record);
            let log = fs::File::create(&self.log)?;
            let errors = log.try_clone()?;
            let joined = self.cgroups.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>().join(" ");
            // Forked, so that it is nobody's child but init's, who collects it whatever becomes of us.
            let status = Command::new("setsid")
                .args(["--fork", "sh", "-c", LAUNCH, "sh"])
                .arg(&self.record)
                .arg(joined)
                .arg(program)
                .args(arguments)
                .env(MARK, "1")
                .current_dir("/")
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(errors)
                .status()?;
            if !status.success() {
                bail!("setsid: {status}");
            }
            let mut process = None;
            wait_until(Duration::from_secs(5), || {
                process = Process::recorded(&self.record).ok().flatten();
                process.is_some()
            });
            process.with_context(|| self.last_words())
        };
        work().with_context(|| format!("failed to start {}", program.display()))
    }

    /// The end of its log, to go with an error.
    pub fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        format!("{}\n(all of it: {})", lines[lines.len().saturating_sub(10)..].join("\n"), self.log.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn daemon(dir: &Path) -> Daemon {
        Daemon { record: dir.join("run/it"), log: dir.join("log/it"), cgroups: vec![] }
    }

    #[test]
    fn a_started_program_is_found_again_by_its_record_and_ended() {
        let dir = tempfile::tempdir().unwrap();
        let daemon = daemon(dir.path());
        let process = daemon.start(Path::new("sleep"), &["60".to_owned()]).unwrap();
        assert!(process.is_alive());
        assert_eq!(daemon.running().unwrap(), Some(process.clone()));
        assert_eq!(daemon.start(Path::new("sleep"), &["60".to_owned()]).unwrap(), process, "it runs already");
        process.kill().unwrap();
        assert_eq!(daemon.running().unwrap(), None);
    }

    #[test]
    fn a_record_does_not_fit_another_process_with_the_same_number() {
        let (_, started) = stat(std::process::id().cast_signed()).unwrap();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let mine = Process::parse(&format!("{} {started} {boot}", std::process::id())).unwrap();
        assert!(mine.is_alive());
        assert!(!Process { started: started + 1, ..mine.clone() }.is_alive());
        assert!(!Process { boot: "before".into(), ..mine }.is_alive());
    }

    #[test]
    fn a_half_written_record_names_nothing() {
        assert_eq!(Process::parse("12"), None);
        assert_eq!(Process::parse(""), None);
    }
}

//! What a machine is like, to compare before `up` with after `down`. Taking one is IO, comparing is pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::command::run;

/// Kernel settings that count or change by themselves.
const RESTLESS: [&str; 15] = [
    "fs.aio-nr",
    "fs.dentry-state",
    "fs.file-nr",
    "fs.inode-nr",
    "fs.inode-state",
    "fs.quota",
    "kernel.hung_task_detect_count",
    "kernel.ns_last_pid",
    "kernel.pty.nr",
    "kernel.random",
    "kernel.sched_domain",
    "net.netfilter.nf_conntrack_count",
    "vm.stat_refresh",
    "net.ipv4.tcp_fastopen_key",
    "kernel.perf_event_max_sample_rate",
];

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Process {
    pid: i32,
    parent: i32,
    started: u64,
    line: String,
}

/// A machine at one moment, in the order of the file that holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Lines by section: links, routes, mounts …
    sections: BTreeMap<String, BTreeSet<String>>,
    processes: Vec<Process>,
}

impl Snapshot {
    /// Looks at this machine.
    ///
    /// # Errors
    /// When a part of it cannot be read.
    pub fn take() -> Result<Self> {
        let processes = processes()?;
        let mut sections = BTreeMap::new();
        let mut put = |name: &str, lines: BTreeSet<String>| {
            sections.insert(name.to_owned(), lines);
        };
        put("namespaces", namespaces(&processes));
        put("links", links()?);
        put("addresses", ip(&["address", "show"], |line| !line.contains("valid_lft"))?);
        put(
            "routes",
            [
                ip(&["route", "show", "table", "all"], |_| true)?,
                ip(&["-6", "route", "show", "table", "all"], |_| true)?,
            ]
            .concat_sets(),
        );
        put(
            "routing rules",
            [ip(&["rule", "show"], |_| true)?, ip(&["-6", "rule", "show"], |_| true)?].concat_sets(),
        );
        put("mounts", mounts()?);
        put("loop devices", loop_devices());
        let mut groups = BTreeSet::new();
        folders(Path::new("/sys/fs/cgroup"), &mut groups);
        put("control groups", groups);
        for program in
            ["iptables", "ip6tables", "iptables-legacy", "ip6tables-legacy", "iptables-nft", "ip6tables-nft"]
        {
            put(program, rules(&format!("{program}-save"), &[]));
        }
        put("nft", rules("nft", &["list", "ruleset"]));
        let mut settings = BTreeSet::new();
        read_settings(Path::new("/proc/sys"), "", &mut settings);
        put("kernel settings", settings);
        Ok(Self { sections, processes })
    }

    /// What `later` has more and less than this, one line each; empty if there is no difference.
    ///
    /// Of the processes only those count that nobody who was there before has started: a shell's or a build's come
    /// and go, a forgotten daemon belongs to init.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let none = BTreeSet::new();
        let names: BTreeSet<&String> = self.sections.keys().chain(later.sections.keys()).collect();
        for name in names {
            let before = self.sections.get(name).unwrap_or(&none);
            let after = later.sections.get(name).unwrap_or(&none);
            lines.extend(before.difference(after).map(|line| format!("{name}: - {line}")));
            lines.extend(after.difference(before).map(|line| format!("{name}: + {line}")));
        }
        lines.extend(
            self.forgotten(later)
                .into_iter()
                .map(|process| format!("processes: + {} {}", process.pid, process.line)),
        );
        lines
    }

    fn forgotten<'a>(&self, later: &'a Self) -> Vec<&'a Process> {
        let known: BTreeSet<(i32, u64)> = self.processes.iter().map(|one| (one.pid, one.started)).collect();
        let by_pid: BTreeMap<i32, &Process> = later.processes.iter().map(|one| (one.pid, one)).collect();
        let belongs_to_somebody = |mut process: &'a Process| {
            loop {
                // The kernel's own threads are children of 2.
                if process.pid <= 2 {
                    return process.pid == 2;
                }
                if known.contains(&(process.pid, process.started)) {
                    return true;
                }
                match by_pid.get(&process.parent) {
                    Some(parent) => process = parent,
                    None => return false,
                }
            }
        };
        later.processes.iter().filter(|process| process.pid > 2 && !belongs_to_somebody(process)).collect()
    }
}

trait ConcatSets {
    fn concat_sets(self) -> BTreeSet<String>;
}

impl<const N: usize> ConcatSets for [BTreeSet<String>; N] {
    fn concat_sets(self) -> BTreeSet<String> {
        self.into_iter().flatten().collect()
    }
}

fn processes() -> Result<Vec<Process>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").context("failed to list processes")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // One that ends meanwhile is no process any more.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let fields: Vec<&str> = rest.split(' ').collect();
        let number =
            |index: usize| fields.get(index).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
        if fields.first() == Some(&"Z") {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        all.push(Process {
            pid,
            parent: i32::try_from(number(1)).unwrap_or_default(),
            started: number(19),
            line: line.trim().chars().take(200).collect(),
        });
    }
    Ok(all)
}

/// Named network namespaces, and those that a process is in.
fn namespaces(processes: &[Process]) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = names_in("/run/netns").map(|name| format!("net {name}")).collect();
    for process in processes {
        for kind in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            if let Ok(target) = fs::read_link(format!("/proc/{}/ns/{kind}", process.pid)) {
                all.insert(target.to_string_lossy().into_owned());
            }
        }
    }
    all
}

fn names_in(folder: &str) -> impl Iterator<Item = String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
}

/// Name, state and kind, without what counts.
fn links() -> Result<BTreeSet<String>> {
    let text = run(Command::new("ip").args(["-details", "-oneline", "link", "show"]))?;
    let without_number = |line: &str| line.split_once(": ").map_or(line, |(_, rest)| rest).trim().to_owned();
    Ok(text.lines().map(without_number).collect())
}

fn ip(arguments: &[&str], keep: impl Fn(&str) -> bool) -> Result<BTreeSet<String>> {
    let text = run(Command::new("ip").args(arguments))?;
    Ok(text.lines().filter(|line| keep(line)).map(steady).collect())
}

/// A line of `ip` without what changes by itself: numbers of links, which are given out anew, and the seconds that a
/// router's announcement still holds.
fn steady(line: &str) -> String {
    let line = match line.split_once(": ") {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => line.trim(),
    };
    let mut words = Vec::new();
    let mut all = line.split_whitespace();
    while let Some(word) = all.next() {
        if word == "expires" {
            all.next();
        } else {
            words.push(word);
        }
    }
    words.join(" ")
}

fn mounts() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("failed to read the list of mounts")?;
    let without_numbers = |line: &str| line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
    Ok(text.lines().map(without_numbers).collect())
}

/// Files that are disks.
fn loop_devices() -> BTreeSet<String> {
    let file = |name: &str| fs::read_to_string(format!("/sys/block/{name}/loop/backing_file")).ok();
    names_in("/sys/block").filter_map(|name| Some(format!("{name} {}", file(&name)?.trim()))).collect()
}

fn folders(folder: &Path, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.insert(entry.path().to_string_lossy().into_owned());
            folders(&entry.path(), all);
        }
    }
}

/// Rules without comments and counters; none where the program is not there.
fn rules(program: &str, arguments: &[&str]) -> BTreeSet<String> {
    let text = run(Command::new(program).args(arguments)).unwrap_or_default();
    let without_counters = |line: &str| line.split(" [").next().unwrap_or_default().trim_end().to_owned();
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(without_counters)
        .collect()
}

fn read_settings(folder: &Path, prefix: &str, all: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if RESTLESS.iter().any(|restless| name.starts_with(restless)) {
            continue;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            read_settings(&entry.path(), &format!("{name}."), all);
        } else if let Ok(value) = fs::read_to_string(entry.path()) {
            all.insert(format!("{name} = {}", value.trim()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(links: &[&str], running: &[(i32, i32, &str)]) -> Snapshot {
        let named = links.iter().map(|line| (*line).to_owned()).collect();
        let parse = |(pid, above, line): &(i32, i32, &str)| Process {
            pid: *pid,
            parent: *above,
            started: 7,
            line: (*line).to_owned(),
        };
        Snapshot {
            sections: BTreeMap::from([("links".to_owned(), named)]),
            processes: running.iter().map(parse).collect(),
        }
    }

    #[test]
    fn a_machine_does_not_differ_from_itself() {
        let one = snapshot(&["lo", "eth0"], &[(1, 0, "init"), (10, 1, "shell")]);
        assert_eq!(one.difference(&one), Vec::<String>::new());
    }

    #[test]
    fn what_was_added_and_what_is_missing_are_both_said() {
        let before = snapshot(&["lo", "eth0"], &[]);
        let after = snapshot(&["lo", "tg0"], &[]);
        assert_eq!(before.difference(&after), ["links: - eth0", "links: + tg0"]);
    }

    #[test]
    fn a_forgotten_daemon_counts_and_a_build_that_somebody_runs_does_not() {
        let before = snapshot(&[], &[(1, 0, "init"), (10, 1, "shell")]);
        let after = snapshot(
            &[],
            &[(1, 0, "init"), (10, 1, "shell"), (20, 10, "make"), (21, 20, "cc"), (30, 1, "kubelet")],
        );
        assert_eq!(before.difference(&after), ["processes: + 30 kubelet"]);
    }

    #[test]
    fn a_number_that_was_given_out_again_is_another_process() {
        let before = snapshot(&[], &[(1, 0, "init"), (10, 1, "shell")]);
        let mut after = before.clone();
        after.processes[1].started = 8;
        assert_eq!(before.difference(&after), ["processes: + 10 shell"]);
    }

    #[test]
    fn what_counts_down_is_no_difference() {
        assert_eq!(
            steady("default via fe80::1 dev eth0 proto ra metric 100 expires 1790sec pref medium"),
            "default via fe80::1 dev eth0 proto ra metric 100 pref medium"
        );
        assert_eq!(steady("7: eth0: <UP> mtu 1500"), "eth0: <UP> mtu 1500");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let taken = Snapshot::take().unwrap();
        assert!(taken.sections["links"].iter().any(|line| line.starts_with("lo:")));
        assert!(
            taken.sections["kernel settings"].iter().any(|line| line.starts_with("kernel.ostype = Linux"))
        );
    }
}

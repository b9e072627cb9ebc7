//! Writers and readers against an HTTP server in this process that keeps what it gets in memory and fails as it is told.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tidegate_ledger::judge::Rules;
use tidegate_ledger::log::wall_us;
use tidegate_ledger::payload::decode;
use tidegate_ledger::stored::{Line, StoredRecord, TimeKind};
use tidegate_ledger::{Judge, Load, LoadOptions, Login, PayloadSize, Verdict};

const LIMIT: Duration = Duration::from_secs(30);

/// What the server does with one write, counted from 0 over all connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    Store,
    /// Says 204 and stores nothing.
    Lose,
    /// Says 503 and to come again at once.
    Later,
    /// Says 403.
    Refuse,
    /// Stores and closes without an answer.
    Close,
    /// Stores, and hides it from readers.
    Hide,
}

#[derive(Default)]
struct Stored {
    records: Vec<(u16, u32, i64)>,
    newest: BTreeMap<String, Vec<u8>>,
    seen: usize,
}

/// Runs one writer and one reader until `count` messages are acknowledged.
fn run(count: u64, deeds: impl Fn(usize) -> Deed + Send + Sync + 'static) -> Verdict {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut options = LoadOptions::new("127.0.0.1:1", folder.path().join("log"));
    options.http = listener.local_addr().unwrap().to_string();
    (options.publishers, options.writers, options.readers) = (0, 1, 1);
    (options.http_rate, options.payload) = (200.0, PayloadSize::fixed(64));
    options.login = Some(Login { username: "f/d".to_owned(), password: "p".to_owned() });
    let stored = Arc::new(Mutex::new(Stored::default()));
    let (shared, deeds) = (Arc::clone(&stored), Arc::new(deeds));
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (shared, deeds) = (Arc::clone(&shared), Arc::clone(&deeds));
            std::thread::spawn(move || while serve(&socket, &shared, &*deeds).is_some() {});
        }
    });
    let load = Load::start(options.clone()).unwrap();
    load.wait_acknowledged(count, LIMIT).unwrap();
    load.stop(LIMIT).unwrap();
    let mut judge = Judge::read_log(Rules::default(), &*std::fs::read(&options.log).unwrap()).unwrap();
    let stored = stored.lock().unwrap();
    for (offset, (publisher, sequence, time_ms)) in (0..).zip(&stored.records) {
        let (publisher, sequence, time_ms) = (*publisher, *sequence, *time_ms);
        let record =
            StoredRecord { partition: 0, offset, time_ms, kind: TimeKind::Append, publisher, sequence };
        judge.stored(&Line::Record(record)).unwrap();
    }
    judge.stored(&Line::End { records: stored.records.len() as u64, others: 0 }).unwrap();
    judge.verdict()
}

/// One request; nothing when the connection is over.
fn serve(socket: &TcpStream, stored: &Mutex<Stored>, deeds: &dyn Fn(usize) -> Deed) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, socket);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        head.push_str(&line);
    }
    // f/d:p; who does not say so is somebody else
    if !head.contains("authorization: Basic Zi9kOnA=\r\n") {
        return answer(socket, "401 Unauthorized", b"");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?, words.next()?.to_owned());
    let mut stored = stored.lock().unwrap();
    if method == "GET" {
        let newest = stored.newest.get(&path).cloned();
        return match newest {
            Some(body) => answer(socket, "200 OK", &body),
            None => answer(socket, "404 Not Found", b""),
        };
    }
    let stamp = decode(&body).ok()?;
    let deed = deeds(stored.seen);
    stored.seen += 1;
    if matches!(deed, Deed::Store | Deed::Close | Deed::Hide) {
        let now_ms = i64::try_from(wall_us() / 1000).unwrap();
        stored.records.push((stamp.publisher, stamp.sequence, now_ms));
    }
    if matches!(deed, Deed::Store | Deed::Close) {
        stored.newest.insert(path, body);
    }
    match deed {
        Deed::Store | Deed::Lose | Deed::Hide => answer(socket, "204 No Content", b""),
        Deed::Later => answer(socket, "503 Service Unavailable\r\nRetry-After: 0", b""),
        Deed::Refuse => answer(socket, "403 Forbidden", b""),
        Deed::Close => {
            let _ = socket.shutdown(std::net::Shutdown::Both);
            None
        }
    }
}

fn answer(mut socket: &TcpStream, status: &str, body: &[u8]) -> Option<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
    socket.write_all(&[head.as_bytes(), body].concat()).ok()
}

#[test]
fn a_run_against_a_faithful_server_is_clean() {
    let verdict = run(100, |_| Deed::Store);
    assert!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
    assert_eq!(
        (verdict.acknowledged, verdict.duplicates, verdict.connections_broken),
        (verdict.offered, 0, 0)
    );
    assert_eq!(verdict.acknowledged_http, verdict.acknowledged);
    let seen = verdict.watched.unwrap();
    assert!(seen.reads >= 2 && seen.reads_failed == 0, "{seen:?}");
}

#[test]
fn what_got_no_answer_or_a_passing_one_is_sent_again_in_order() {
    let verdict = run(100, |seen| match seen {
        20 => Deed::Close,
        40 | 41 => Deed::Later,
        _ => Deed::Store,
    });
    assert!(verdict.is_clean(), "{:?} {:?}", verdict.faults(), verdict.examples);
    assert_eq!((verdict.duplicates, verdict.disorder, verdict.refused), (1, 0, 0));
    assert_eq!((verdict.acknowledged, verdict.connections_broken), (verdict.offered, 1));
}

#[test]
fn a_server_that_loses_what_it_acknowledged_is_caught() {
    let verdict = run(100, |seen| if seen == 50 { Deed::Lose } else { Deed::Store });
    assert_eq!(verdict.acknowledged_lost, 1);
}

#[test]
fn a_refused_write_is_not_sent_again() {
    let verdict = run(100, |seen| if seen == 50 { Deed::Refuse } else { Deed::Store });
    assert!(verdict.is_clean(), "{:?}", verdict.faults());
    assert_eq!((verdict.refused, verdict.acknowledged + 1), (1, verdict.offered));
}

#[test]
fn a_server_that_hides_what_it_acknowledged_from_readers_is_caught() {
    let verdict = run(200, |seen| if seen >= 20 { Deed::Hide } else { Deed::Store });
    assert!(verdict.watched.clone().unwrap().reads_stale > 0, "{:?}", verdict.watched);
    assert!(!verdict.is_clean());
}

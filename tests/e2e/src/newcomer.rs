//! A device that has never connected before, ten times a second: what it is refused is a gap in the service, and when the
//! gap ends. IO on threads of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The time between two attempts.
const EVERY: Duration = Duration::from_millis(100);
/// A newcomer gives up after so long.
const PATIENCE: Duration = Duration::from_secs(1);

/// One attempt.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    began: Instant,
    connected: bool,
    answered: bool,
}

/// Newcomers that go on coming.
pub struct Newcomers {
    ended: Arc<AtomicBool>,
    attempts: Arc<Mutex<Vec<Attempt>>>,
    thread: Option<JoinHandle<()>>,
}

/// Seconds from a moment until nothing was refused any more; 0 where nothing was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gap {
    /// For new TCP connections.
    pub connect_s: f64,
    /// For HTTP requests over them.
    pub http_s: f64,
    /// Attempts that were not answered.
    pub failed: usize,
}

impl Newcomers {
    /// Starts to connect to an HTTP gateway.
    pub fn start(http: SocketAddr) -> Self {
        let (ended, attempts) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let (stop, all) = (Arc::clone(&ended), Arc::clone(&attempts));
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let all = Arc::clone(&all);
                std::thread::spawn(move || {
                    let attempt = attempt(http);
                    all.lock().unwrap_or_else(PoisonError::into_inner).push(attempt);
                });
                due += EVERY;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
            }
        });
        Self { ended, attempts, thread: Some(thread) }
    }

    /// Ends it, and says what was refused since `cut`.
    pub fn gap_since(mut self, cut: Instant) -> Gap {
        self.finish();
        // the last ones are under way
        std::thread::sleep(2 * PATIENCE);
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let last = |failed: fn(&&Attempt) -> bool| {
            let last = attempts.iter().filter(failed).map(|attempt| attempt.began).max();
            last.map_or(0.0, |began| began.saturating_duration_since(cut).as_secs_f64())
        };
        Gap {
            connect_s: last(|attempt| !attempt.connected),
            http_s: last(|attempt| !attempt.answered),
            failed: attempts.iter().filter(|attempt| !attempt.answered).count(),
        }
    }

    fn finish(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.finish();
    }
}

fn attempt(http: SocketAddr) -> Attempt {
    let began = Instant::now();
    let Ok(mut stream) = TcpStream::connect_timeout(&http, PATIENCE) else {
        return Attempt { began, connected: false, answered: false };
    };
    let mut answer = [0; 9];
    let answered = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.write_all(b"GET / HTTP/1.1\r\nHost: newcomer\r\nConnection: close\r\n\r\n"))
        .and_then(|()| stream.read_exact(&mut answer))
        .is_ok();
    Attempt { began, connected: true, answered: answered && answer.starts_with(b"HTTP/1.") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_gap_is_from_the_cut_to_the_last_refusal() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let newcomers = Newcomers::start(closed);
        let cut = Instant::now();
        std::thread::sleep(3 * EVERY);
        let gap = newcomers.gap_since(cut);
        assert!(gap.failed >= 2 && gap.connect_s > 0.0, "{gap:?}");
    }
}

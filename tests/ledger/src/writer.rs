//! One HTTP writer of the load: as a [`crate::publisher`], but a request at a time. What got no answer, or was told to come
//! again later, is sent again before anything newer. IO.

use crate::http::{Answer, HttpConnection, HttpError};
use crate::load::LoadOptions;
use crate::log::{Clock, Entry, Message, Sender, wall_us};
use crate::payload::{Stamp, encode};
use crate::publisher::{BACKLOG, BACKOFF_FIRST, BACKOFF_LONGEST, Wish, jittered, until};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A server that says "later" is believed, up to this.
const LATER_AT_MOST: Duration = Duration::from_secs(5);

pub(crate) struct Writer {
    pub number: u16,
    pub options: Arc<LoadOptions>,
    pub target: String,
    /// Between two messages.
    pub interval: Duration,
    /// Of the first message.
    pub phase: Duration,
    pub clock: Clock,
    pub log: Sender,
    pub wish: watch::Receiver<Wish>,
}

/// What came of a request; the connection with it, if it can go on.
type Done = (Option<HttpConnection>, Result<Answer, HttpError>);
type Asking = Pin<Box<dyn Future<Output = Done> + Send>>;

impl Writer {
    /// Runs until the load says stop and everything is answered, or the time for that is over.
    pub async fn run(mut self) {
        let mut due = Instant::from_std(self.clock.zero()) + self.phase;
        let mut next_sequence = 0_u32;
        let mut queue = VecDeque::<u32>::new();
        let mut sent_us = None;
        let mut connection = None;
        let mut backoff = Duration::ZERO;
        let mut asking: Option<Asking> = None;
        loop {
            let wish = *self.wish.borrow();
            let deadline = match wish {
                Wish::Publish => None,
                Wish::Drain(_) if queue.is_empty() => break,
                Wish::Drain(until) => Some(until),
            };
            if asking.is_none()
                && let Some(sequence) = queue.front()
            {
                let sent_us = *sent_us.get_or_insert_with(wall_us);
                asking = Some(self.ask(connection.take(), *sequence, sent_us, jittered(backoff)));
            }
            tokio::select! {
                () = sleep_until(due), if wish == Wish::Publish && queue.len() < BACKLOG => {
                    self.log.send(Entry::Offered(self.message(next_sequence)));
                    queue.push_back(next_sequence);
                    next_sequence += 1;
                    due += self.interval;
                }
                (open, result) = answered(&mut asking) => {
                    asking = None;
                    connection = open;
                    let sequence = queue.front().copied().unwrap_or_default();
                    if let Some(wait) = self.judge(result, sequence) {
                        backoff = (backoff * 2).clamp(wait, BACKOFF_LONGEST.max(wait));
                    } else {
                        queue.pop_front();
                        (sent_us, backoff) = (None, Duration::ZERO);
                    }
                }
                () = until(deadline) => break,
                // An error means that the load is gone: the next turn sees its last wish.
                _ = self.wish.changed() => {}
            }
        }
    }

    fn message(&self, sequence: u32) -> Message {
        Message { publisher: self.number, sequence, at: self.clock.now() }
    }

    /// Logs what came of a request; how long to wait before it is sent again, or nothing when it is answered.
    fn judge(&self, result: Result<Answer, HttpError>, sequence: u32) -> Option<Duration> {
        match result {
            Ok(answer) => match answer.status {
                200..=299 => self.log.send(Entry::Acknowledged(self.message(sequence))),
                408 | 425 | 429 | 500.. => {
                    let wait = answer.retry_after.map_or(BACKOFF_FIRST, Duration::from_secs);
                    return Some(wait.clamp(BACKOFF_FIRST, LATER_AT_MOST));
                }
                _ => self.log.send(Entry::Refused(self.message(sequence))),
            },
            Err(error) => {
                let at = self.clock.now();
                self.log.send(Entry::Disconnected { publisher: self.number, at, reason: error.to_string() });
                return Some(BACKOFF_FIRST);
            }
        }
        None
    }

    /// Sends a message after `wait`, over a new connection where there is none.
    fn ask(&self, open: Option<HttpConnection>, sequence: u32, sent_us: u64, wait: Duration) -> Asking {
        let (options, target) = (Arc::clone(&self.options), self.target.clone());
        let (number, log, clock) = (self.number, self.log.clone(), self.clock);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            let mut connection = match open {
                Some(connection) => connection,
                None => match HttpConnection::open(&target, options.login.as_ref()).await {
                    Ok(connection) => {
                        log.send(Entry::Connected { publisher: number, at: clock.now() });
                        connection
                    }
                    Err(error) => return (None, Err(error)),
                },
            };
            let stamp = Stamp { run: options.run, publisher: number, sequence, sent_us };
            let payload = encode(&stamp, options.payload.of(number, sequence));
            let result = connection.put(&options.address_of(number), payload, options.patience).await;
            (result.is_ok().then_some(connection), result)
        })
    }
}

async fn answered(asking: &mut Option<Asking>) -> Done {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

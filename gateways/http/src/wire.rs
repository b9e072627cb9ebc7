//! The socket as hyper sees it, with what hyper does not tell: whether a head has begun, whether a write is stuck, and
//! whether a request's length is ambiguous. IO: passes bytes through.

use crate::framing::{Ambiguity, Framing};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tidegate_core::tls::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// A head must come whole within this.
const HEAD: Duration = Duration::from_secs(10);
/// A device must take some of an answer within this.
const WRITE: Duration = Duration::from_secs(30);
/// How often a connection is looked at while nothing is due sooner.
const LOOK: Duration = Duration::from_secs(5);

/// What is known of a connection beside hyper. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Watch(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    framing: Framing,
    /// Requests that were handed to the service.
    requests: u64,
    serving: bool,
    head_since: Option<Instant>,
    write_since: Option<Instant>,
    idle_since: Instant,
}

/// What to do with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Look again then.
    At(Instant),
    /// Close it: it said nothing for as long as it may.
    Idle,
    /// Close it: its head takes too long.
    SlowHead,
    /// Close it: it does not take its answer.
    SlowRead,
}

impl Watch {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            framing: Framing::default(),
            requests: 0,
            serving: false,
            head_since: None,
            write_since: None,
            idle_since: Instant::now(),
        })))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was parsed; why it must not be served, if it must not.
    pub fn request(&self) -> Option<Ambiguity> {
        let mut state = self.state();
        state.requests += 1;
        state.serving = true;
        let number = state.requests;
        state.framing.refused().filter(|(refused, _)| number >= *refused).map(|(_, why)| why)
    }

    /// The answer to the request was made.
    pub fn answered(&self) {
        let mut state = self.state();
        state.serving = false;
        state.idle_since = Instant::now();
        // A pipelined head has waited for this answer, not for its sender.
        state.head_since = state.framing.inside_head().then_some(state.idle_since);
    }

    /// What is due now.
    pub fn due(&self, idle: Duration) -> Due {
        let (state, now) = (self.state(), Instant::now());
        let (end, due) = if let Some(since) = state.write_since {
            (since + WRITE, Due::SlowRead)
        } else if state.serving {
            return Due::At(now + LOOK);
        } else if let Some(since) = state.head_since {
            (since + HEAD, Due::SlowHead)
        } else {
            (state.idle_since + idle, Due::Idle)
        };
        if now >= end { due } else { Due::At(end.min(now + LOOK)) }
    }
}

/// The socket with its [`Watch`].
#[derive(Debug)]
pub(crate) struct Wire {
    socket: Stream,
    watch: Watch,
}

impl Wire {
    pub fn new(socket: Stream) -> (Self, Watch) {
        let watch = Watch::new();
        (Self { socket, watch: watch.clone() }, watch)
    }

    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        let mut state = self.watch.state();
        match result {
            Poll::Pending => _ = state.write_since.get_or_insert_with(Instant::now),
            Poll::Ready(_) => {
                state.write_since = None;
                state.idle_since = Instant::now();
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.socket).poll_read(cx, buf);
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            let mut state = self.watch.state();
            state.framing.feed(bytes);
            if state.framing.inside_head() {
                state.head_since.get_or_insert_with(Instant::now);
            } else {
                state.head_since = None;
            }
        }
        result
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(300);

    fn feed(watch: &Watch, bytes: &[u8]) {
        let mut state = watch.state();
        state.framing.feed(bytes);
        state.head_since = state.framing.inside_head().then(|| state.head_since.unwrap_or_else(Instant::now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_idle_after_its_time() {
        let watch = Watch::new();
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(watch.due(IDLE), Due::At(Instant::now() + Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(watch.due(IDLE), Due::Idle);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_trickles_is_too_slow_however_often_bytes_come() {
        let watch = Watch::new();
        for byte in b"GET / HTTP" {
            feed(&watch, &[*byte]);
            assert!(matches!(watch.due(IDLE), Due::At(_)));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(watch.due(IDLE), Due::SlowHead);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_served_is_neither_idle_nor_slow() {
        let watch = Watch::new();
        feed(&watch, b"GET / HTTP/1.1\r\n\r\nGET /pipelined");
        assert_eq!(watch.request(), None);
        tokio::time::advance(IDLE * 2).await;
        assert!(matches!(watch.due(IDLE), Due::At(_)));
        watch.answered();
        assert!(matches!(watch.due(IDLE), Due::At(_)));
        tokio::time::advance(HEAD).await;
        assert_eq!(watch.due(IDLE), Due::SlowHead);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_ambiguous_request_and_what_follows_it_are_refused() {
        let watch = Watch::new();
        feed(
            &watch,
            b"GET / HTTP/1.1\r\n\r\nPUT /a HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        );
        assert_eq!(watch.request(), None);
        assert_eq!(watch.request(), Some(Ambiguity::Lengths));
        assert_eq!(watch.request(), Some(Ambiguity::Lengths));
    }
}

//! Collects a request's body within bounds of size, time and the process's memory. IO: reads the connection.

use crate::problem::Problem;
use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt as _};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// The next bytes of a body must come within this.
const PAUSE: Duration = Duration::from_secs(10);
/// A whole body must come within this.
const WHOLE: Duration = Duration::from_secs(60);
/// What a permit of the budget stands for, in bytes.
const UNIT: usize = 1024;

/// Bodies of all connections that are in memory and not in Kafka's client yet. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    /// A budget of `bytes`, rounded up to whole KiB.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(UNIT))))
    }
}

/// A whole body; its memory counts until it is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    pub bytes: Bytes,
    _held: Option<OwnedSemaphorePermit>,
}

/// Reads a body of at most `limit` bytes. Memory is counted as it fills, not as it is announced: whoever announces
/// much and sends nothing holds nothing.
pub(crate) async fn collect<B: Buf, E>(
    stream: impl Stream<Item = Result<B, E>>,
    limit: usize,
    budget: &Budget,
) -> Result<Body, Problem> {
    let end = Instant::now() + WHOLE;
    let mut stream = pin!(stream);
    let mut bytes = BytesMut::new();
    let mut held: Option<OwnedSemaphorePermit> = None;
    loop {
        let pause = end.min(Instant::now() + PAUSE);
        let Some(part) = timeout_at(pause, stream.next()).await.map_err(|_| Problem::BodyTooSlow)? else {
            break;
        };
        let mut part = part.map_err(|_| Problem::BodyBroken)?;
        let size = bytes.len() + part.remaining();
        if size > limit {
            return Err(Problem::TooLarge { limit });
        }
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(size.div_ceil(UNIT).saturating_sub(have)).unwrap_or(u32::MAX);
        if more > 0 {
            // Waiting here could wait for a body that waits here too.
            let more = Arc::clone(&budget.0).try_acquire_many_owned(more).map_err(|_| Problem::Busy)?;
            match &mut held {
                Some(held) => held.merge(more),
                None => held = Some(more),
            }
        }
        while part.has_remaining() {
            let chunk = part.chunk();
            let taken = chunk.len();
            bytes.extend_from_slice(chunk);
            part.advance(taken);
        }
    }
    Ok(Body { bytes: bytes.freeze(), _held: held })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use std::convert::Infallible;

    fn parts(parts: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part))).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn a_body_within_its_bounds_comes_whole() {
        let budget = Budget::new(4096);
        let body = collect(parts(&[b"21", b"", b".5"]), 4, &budget).await.unwrap();
        assert_eq!(&body.bytes[..], b"21.5");
        assert_eq!(budget.0.available_permits(), 3);
        drop(body);
        assert_eq!(budget.0.available_permits(), 4);
        assert!(collect(parts(&[]), 0, &budget).await.unwrap().bytes.is_empty());
    }

    #[tokio::test]
    async fn a_body_over_its_bound_is_refused_before_it_is_kept() {
        let problem = collect(parts(&[b"21", b".55"]), 4, &Budget::new(4096)).await.unwrap_err();
        assert_eq!(problem, Problem::TooLarge { limit: 4 });
    }

    #[tokio::test]
    async fn bodies_beyond_the_processs_memory_are_refused_and_hold_nothing() {
        let budget = Budget::new(2048);
        let first = collect(parts(&[&[0; 1500]]), 4096, &budget).await.unwrap();
        let problem = collect(parts(&[&[0; 1000]]), 4096, &budget).await.unwrap_err();
        assert_eq!(problem, Problem::Busy);
        drop(first);
        assert!(collect(parts(&[&[0; 1000], &[0; 1000]]), 4096, &budget).await.is_ok());
        assert_eq!(budget.0.available_permits(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_or_trickles_is_given_up() {
        let budget = Budget::new(4096);
        let stops =
            stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"x")) }).chain(stream::pending());
        let start = Instant::now();
        assert_eq!(collect(stops, 4096, &budget).await.unwrap_err(), Problem::BodyTooSlow);
        assert_eq!(start.elapsed(), PAUSE);
        let trickles = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(9)).await;
            Some((Ok::<_, Infallible>(Bytes::from_static(b"x")), ()))
        });
        let start = Instant::now();
        assert_eq!(collect(trickles, 4096, &budget).await.unwrap_err(), Problem::BodyTooSlow);
        assert_eq!(start.elapsed(), WHOLE);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_refused() {
        let breaks = stream::iter([Ok(Bytes::from_static(b"x")), Err("reset")]);
        assert_eq!(collect(breaks, 10, &Budget::new(4096)).await.unwrap_err(), Problem::BodyBroken);
    }
}

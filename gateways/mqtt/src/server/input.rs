//! What a connection has read and not decoded: its memory is taken from a budget of the whole process once
//! more than a little of a packet is there. No IO: the connection reads into it.

use bytes::{BufMut, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// How much room there is for reading at a time, in bytes: what an idle connection costs. Packets that fit cost
/// the budget nothing, so small messages get through whatever large ones do.
pub(super) const READ_BYTES: usize = 4 << 10;
/// What the packets of all connections may hold beyond that, in bytes. The pod's default limit is 512Mi: 10,000
/// idle connections take up to a quarter of it, this an eighth, records on their way into Kafka an eighth.
pub(super) const INPUT_BYTES: usize = (512 << 20) / 8;
/// How long a connection waits for room before it is closed: who holds the room may wait for more, too.
const ROOM_TIME: Duration = Duration::from_secs(10);
/// How long a packet that takes from the budget may take to come.
const PACKET_TIME: Duration = Duration::from_secs(60);
/// What a permit of the budget stands for, in bytes.
const UNIT: usize = 1 << 10;

/// Memory that connections take from. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    room: Arc<Semaphore>,
    /// How long to wait for room.
    wait: Duration,
}

impl Budget {
    /// A budget of `bytes`, but enough for one packet of the largest size.
    pub(super) fn new(bytes: usize, packet_bytes: usize) -> Self {
        let units = bytes.max(packet_bytes + READ_BYTES).div_ceil(UNIT);
        Self { room: Arc::new(Semaphore::new(units)), wait: ROOM_TIME }
    }

    /// What is not taken, in bytes.
    #[cfg(test)]
    pub(super) fn left(&self) -> usize {
        self.room.available_permits() * UNIT
    }
}

/// One connection's input.
pub(super) struct Input {
    buffer: BytesMut,
    /// Covers the buffer's whole capacity once it is larger than what is free.
    held: Option<OwnedSemaphorePermit>,
    budget: Budget,
    /// Room that was asked for: nothing is read before it is there.
    asked: Option<BoxFuture<'static, Option<OwnedSemaphorePermit>>>,
    /// Since when a packet that takes from the budget is on its way.
    since: Option<Instant>,
}

impl Input {
    pub(super) fn new(budget: Budget) -> Self {
        Self { buffer: BytesMut::new(), held: None, budget, asked: None, since: None }
    }

    /// What was read and not decoded.
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Where to read into: see [`Input::make_room`].
    pub(super) fn space(&mut self) -> impl BufMut + '_ {
        let free = self.buffer.capacity() - self.buffer.len();
        (&mut self.buffer).limit(free)
    }

    /// A packet was decoded: the next one has its own time.
    pub(super) fn decoded(&mut self) {
        self.since = None;
    }

    /// Nothing is read now: it is not the client that lets a packet wait. What is not needed is given back, unless
    /// a record that was decoded from it still waits.
    pub(super) fn rest(&mut self, pinned: bool) {
        if self.asked.is_none() {
            self.since = None;
        }
        if !pinned {
            self.shrink();
        }
    }

    /// Makes room for the rest of the packet, `packet` bytes as a whole where that is known, or asks for it:
    /// [`Input::is_waiting`] then says so. All at once: connections that hold a part and wait for more of what
    /// others hold would wait for each other.
    pub(super) fn make_room(&mut self, packet: Option<usize>) {
        if self.asked.is_some() {
            return;
        }
        self.shrink();
        let length = self.buffer.len();
        if length < READ_BYTES && self.held.is_none() {
            return self.buffer.reserve(READ_BYTES);
        }
        self.since.get_or_insert_with(Instant::now);
        let size = packet.unwrap_or_default();
        if length < self.buffer.capacity() && size <= self.buffer.capacity() {
            return;
        }
        let size = size.max(length + 1).div_ceil(UNIT);
        let have = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(size.saturating_sub(have)).unwrap_or(u32::MAX);
        let room = &self.budget.room;
        if let Ok(permit) = Arc::clone(room).try_acquire_many_owned(more) {
            return self.grow(permit);
        }
        let asked = timeout(self.budget.wait, Arc::clone(room).acquire_many_owned(more));
        self.asked = Some(asked.map(|got| got.ok().and_then(Result::ok)).boxed());
    }

    /// Whether nothing may be read until [`Input::room`] returns.
    pub(super) fn is_waiting(&self) -> bool {
        self.asked.is_some()
    }

    /// Returns when there is the room that was asked for, or false when there was none in time. Cancel-safe.
    pub(super) async fn room(&mut self) -> bool {
        let Some(asked) = &mut self.asked else { return std::future::pending().await };
        let got = asked.await;
        self.asked = None;
        let there = got.is_some();
        if let Some(permit) = got {
            self.grow(permit);
        }
        there
    }

    /// When a packet that takes from the budget has to be there.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.since.map(|since| since + PACKET_TIME)
    }

    fn grow(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
        let size = self.held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * UNIT;
        self.copy_to(size);
    }

    /// Gives back what a large packet took once what is left is small.
    fn shrink(&mut self) {
        if self.buffer.len() < READ_BYTES && self.held.is_some() && self.asked.is_none() {
            self.copy_to(2 * READ_BYTES);
            self.held = None;
        }
    }

    /// A new buffer: growing in place would take what it likes, and stay as large.
    fn copy_to(&mut self, capacity: usize) {
        let mut buffer = BytesMut::with_capacity(capacity);
        buffer.extend_from_slice(&self.buffer);
        self.buffer = buffer;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads so many bytes of a packet.
    fn fill(input: &mut Input, mut bytes: usize, packet: usize) {
        while bytes > 0 {
            input.make_room(Some(packet));
            assert!(!input.is_waiting());
            let free = input.space().remaining_mut().min(bytes);
            input.space().put_bytes(0, free);
            bytes -= free;
        }
    }

    #[tokio::test]
    async fn who_finds_no_room_waits_for_it_and_not_for_ever() {
        let budget = Budget { wait: Duration::from_millis(1), ..Budget::new(64 << 10, 60 << 10) };
        let mut first = Input::new(budget.clone());
        fill(&mut first, READ_BYTES, 40 << 10);
        assert_eq!(budget.left(), 64 << 10);
        fill(&mut first, READ_BYTES, 40 << 10);
        assert_eq!(budget.left(), 24 << 10);
        let mut second = Input::new(budget.clone());
        fill(&mut second, READ_BYTES, 30 << 10);
        second.make_room(Some(30 << 10));
        assert!(second.is_waiting());
        assert!(!second.room().await);
        second.budget.wait = ROOM_TIME;
        second.make_room(Some(30 << 10));
        assert!(second.is_waiting());
        first.bytes().clear();
        first.rest(true);
        assert!(second.room().now_or_never().is_none());
        first.rest(false);
        assert!(second.room().await);
        drop((first, second));
        assert_eq!(budget.left(), 64 << 10);
    }

    #[test]
    fn a_buffer_is_as_large_as_what_it_took_and_gives_it_back() {
        let budget = Budget::new(1 << 20, 100_000);
        let mut input = Input::new(budget.clone());
        fill(&mut input, 99_999, 100_000);
        let taken = (1 << 20) - budget.left();
        assert_eq!((taken, input.buffer.capacity()), (98 << 10, 98 << 10));
        drop(input.bytes().split_to(99_990));
        input.decoded();
        input.make_room(None);
        assert_eq!(&input.bytes()[..], [0; 9]);
        assert!(input.buffer.capacity() <= 4 * READ_BYTES);
        assert_eq!((budget.left(), input.deadline()), (1 << 20, None));
    }
}

//! Deliveries of QoS 1 that the client has not acknowledged yet.

use std::collections::HashSet;

/// The window of unacknowledged deliveries.
#[derive(Debug)]
pub(super) struct Deliveries {
    unacknowledged: HashSet<u16>,
    last: u16,
    window: usize,
}

impl Deliveries {
    /// A window of the smaller of the client's Receive Maximum (MQTT-3.3.4-9) and this server's own bound.
    pub(super) fn new(receive_maximum: u16, in_flight: u16) -> Self {
        let window = usize::from(receive_maximum.min(in_flight).max(1));
        Self { unacknowledged: HashSet::new(), last: 0, window }
    }

    /// Whether one more may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.unacknowledged.len() < self.window
    }

    /// A packet identifier that is not in use (MQTT-2.2.1-4); nothing when the window is full.
    pub(super) fn take(&mut self) -> Option<u16> {
        if !self.has_room() {
            return None;
        }
        // the window is smaller than the number of identifiers, so one is free
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if self.unacknowledged.insert(self.last) {
                return Some(self.last);
            }
        }
    }

    /// The client acknowledged one, or it was not sent after all. Answers whether it was waited for.
    pub(super) fn release(&mut self, packet_id: u16) -> bool {
        self.unacknowledged.remove(&packet_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_round_without_zero_and_without_those_in_use() {
        let mut deliveries = Deliveries::new(3, 64);
        let first = deliveries.take().unwrap();
        for _ in 0..70_000 {
            let id = deliveries.take().unwrap();
            assert!(id != 0 && id != first);
            assert!(deliveries.release(id));
        }
        assert!(!deliveries.release(0));
    }

    #[test]
    fn the_window_is_the_smaller_of_both_sides() {
        for (client, server, window) in [(2, 64, 2), (65_535, 3, 3), (1, 0, 1)] {
            let mut deliveries = Deliveries::new(client, server);
            assert_eq!(std::iter::from_fn(|| deliveries.take()).count(), window);
        }
    }
}

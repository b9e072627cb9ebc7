//! The clocks of a session: CONNECT in time, keep-alive, idle time, a reader that takes nothing.

use super::types::{Close, Now, SessionConfig};

#[derive(Debug)]
pub(super) struct Timers {
    heard_ms: u64,
    /// How long the client may say nothing, and what it is called when it does.
    silence: (u64, Close),
    /// Whether packets are read; only then does silence count.
    reading: bool,
    /// Since when output waits without any of it moving.
    waiting_since: Option<u64>,
    idle_ms: u64,
    stalled_ms: u64,
}

impl Timers {
    pub(super) const fn new(config: &SessionConfig, now: Now) -> Self {
        Self {
            heard_ms: now.steady_ms,
            silence: (config.connect_ms, Close::ConnectTimeout),
            reading: true,
            waiting_since: None,
            idle_ms: config.idle_ms,
            stalled_ms: config.stalled_ms,
        }
    }

    /// CONNECT came: 1.5 times its keep-alive (MQTT-3.1.2-22), the idle time where that is shorter or there is
    /// no keep-alive.
    pub(super) fn connected(&mut self, keep_alive_s: u16) {
        let keep_alive = u64::from(keep_alive_s) * 1_500;
        self.silence = if keep_alive == 0 || self.idle_ms < keep_alive {
            (self.idle_ms, Close::Idle)
        } else {
            (keep_alive, Close::KeepAlive)
        };
    }

    /// A packet came.
    pub(super) fn heard(&mut self, now: Now) {
        // before CONNECT nothing that was heard buys time
        if self.silence.1 != Close::ConnectTimeout {
            self.heard_ms = now.steady_ms;
        }
    }

    pub(super) fn set_reading(&mut self, reading: bool, now: Now) {
        if reading && !self.reading {
            self.heard(now);
        }
        self.reading = reading;
    }

    pub(super) fn set_waiting(&mut self, waiting: bool, now: Now) {
        if waiting {
            self.waiting_since.get_or_insert(now.steady_ms);
        } else {
            self.waiting_since = None;
        }
    }

    /// Some of the output moved.
    pub(super) fn moved(&mut self, now: Now) {
        if self.waiting_since.is_some() {
            self.waiting_since = Some(now.steady_ms);
        }
    }

    fn silence_ends(&self) -> Option<u64> {
        self.reading.then(|| self.heard_ms.saturating_add(self.silence.0))
    }

    fn waiting_ends(&self) -> Option<u64> {
        self.waiting_since.map(|since| since.saturating_add(self.stalled_ms))
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        match (self.silence_ends(), self.waiting_ends()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Whose time is over.
    pub(super) fn due(&self, now: Now) -> Option<Close> {
        let over = |end: Option<u64>| end.is_some_and(|end| now.steady_ms >= end);
        if over(self.waiting_ends()) {
            return Some(Close::Stalled);
        }
        over(self.silence_ends()).then_some(self.silence.1)
    }
}

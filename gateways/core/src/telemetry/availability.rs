//! Whether Kafka takes records, from what its producer tells: brokers that are up, and records that were
//! confirmed or not. No IO.

use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A time-out says that Kafka is away only if nothing was confirmed for so long: one partition that is not
/// written to makes no Kafka that is away.
const CONFIRMED: Duration = Duration::from_secs(5);
/// A time-out counts as long as records wait, and for so long after the last one that did: more than a publish may take,
/// so that while devices try again it always does; not for ever, or a gateway that nobody writes to would never see that
/// Kafka is back.
const TIMED_OUT: Duration = Duration::from_secs(15);

/// The gauge and what it follows from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Availability {
    gauge: Gauge,
    times: Arc<Times>,
}

/// When something was last seen, in milliseconds since `start` and 1 more; 0: never.
#[derive(Debug)]
struct Times {
    start: Instant,
    confirmed: AtomicU64,
    timed_out: AtomicU64,
}

impl Default for Times {
    fn default() -> Self {
        Self { start: Instant::now(), confirmed: AtomicU64::new(0), timed_out: AtomicU64::new(0) }
    }
}

impl Times {
    fn at(&self, now: Instant) -> u64 {
        let ms = now.saturating_duration_since(self.start).as_millis();
        u64::try_from(ms).unwrap_or(u64::MAX).saturating_add(1)
    }
}

fn within(time: Duration, seen: u64, now: u64) -> bool {
    seen != 0 && u128::from(now.saturating_sub(seen)) < time.as_millis()
}

impl Availability {
    pub(super) fn gauge(&self) -> Gauge {
        self.gauge.clone()
    }

    pub(super) fn is_available(&self) -> bool {
        self.gauge.get() == 1
    }

    /// Some broker is up, or none is; and whether records wait for one.
    pub(super) fn brokers(&self, up: bool, waiting: bool, now: Instant) {
        let now = self.times.at(now);
        let timed_out = self.times.timed_out.load(Ordering::Relaxed);
        if waiting && within(TIMED_OUT, timed_out, now) {
            self.times.timed_out.store(now, Ordering::Relaxed);
        }
        self.set(up && !within(TIMED_OUT, timed_out, now));
    }

    /// A record was confirmed. Called for each: no more than two atomic operations.
    pub(super) fn confirmed(&self, now: Instant) {
        self.times.confirmed.store(self.times.at(now), Ordering::Relaxed);
        if self.times.timed_out.load(Ordering::Relaxed) != 0 {
            self.times.timed_out.store(0, Ordering::Relaxed);
            self.set(true);
        }
    }

    /// A record was not confirmed in time.
    pub(super) fn timed_out(&self, now: Instant) {
        let now = self.times.at(now);
        if !within(CONFIRMED, self.times.confirmed.load(Ordering::Relaxed), now) {
            self.times.timed_out.store(now, Ordering::Relaxed);
            self.set(false);
        }
    }

    fn set(&self, available: bool) {
        match (self.gauge.set(i64::from(available)), available) {
            (0, true) => tracing::info!("Kafka is there"),
            (1, false) => tracing::warn!("Kafka is away: nothing is acknowledged until it returns"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_confirm_nothing_are_a_kafka_that_is_away() {
        let kafka = Availability::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        kafka.brokers(true, false, at(0));
        kafka.confirmed(at(0));
        assert!(kafka.is_available());
        kafka.timed_out(at(10));
        assert!(!kafka.is_available());
        kafka.brokers(true, false, at(11));
        assert!(!kafka.is_available());
        kafka.confirmed(at(12));
        assert!(kafka.is_available());
        kafka.brokers(true, false, at(13));
        assert!(kafka.is_available());
        kafka.brokers(false, false, at(14));
        assert!(!kafka.is_available());
    }

    #[test]
    fn a_gateway_that_nobody_writes_to_sees_that_kafka_is_back() {
        let kafka = Availability::default();
        let start = Instant::now();
        kafka.timed_out(start);
        kafka.brokers(true, false, start + Duration::from_secs(14));
        assert!(!kafka.is_available());
        kafka.brokers(true, false, start + Duration::from_secs(16));
        assert!(kafka.is_available());
    }

    #[test]
    fn while_records_wait_that_were_not_confirmed_in_time_kafka_is_away() {
        let kafka = Availability::default();
        let start = Instant::now();
        kafka.timed_out(start);
        for second in 1..60 {
            kafka.brokers(true, true, start + Duration::from_secs(second));
            assert!(!kafka.is_available());
        }
        kafka.confirmed(start + Duration::from_secs(60));
        kafka.brokers(true, true, start + Duration::from_secs(61));
        assert!(kafka.is_available());
    }

    #[test]
    fn a_partition_that_is_not_written_to_among_others_that_are_is_no_kafka_that_is_away() {
        let kafka = Availability::default();
        let start = Instant::now();
        kafka.brokers(true, false, start);
        kafka.confirmed(start + Duration::from_secs(9));
        kafka.timed_out(start + Duration::from_secs(10));
        assert!(kafka.is_available());
    }
}

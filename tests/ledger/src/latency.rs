//! Latencies of one kind and their figures in a report. Pure.

use crate::report::Row;
use hdrhistogram::Histogram;
use std::time::Duration;

/// A day, in microseconds: what takes longer counts as a day.
const LONGEST_US: u64 = 86_400_000_000;

/// A histogram from a microsecond to a day, exact to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("these constant bounds are valid")))
    }

    pub fn add(&mut self, latency: Duration) {
        self.add_us(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn add_us(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency that `share` of all stay within (0.5: the median), in milliseconds.
    pub fn within_ms(&self, share: f64) -> f64 {
        as_f64(self.0.value_at_quantile(share)) / 1000.0
    }

    pub fn longest_ms(&self) -> f64 {
        as_f64(self.0.max()) / 1000.0
    }

    /// Sets `<name>_p50_ms`, `<name>_p99_ms` and `<name>_max_ms`.
    pub fn set(&self, row: &mut Row, name: &str) {
        row.set(&format!("{name}_p50_ms"), self.within_ms(0.5))
            .set(&format!("{name}_p99_ms"), self.within_ms(0.99))
            .set(&format!("{name}_max_ms"), self.longest_ms());
    }
}

/// Exact up to 2^53, which no count and no time in microseconds here comes near.
#[allow(clippy::cast_precision_loss)]
pub(crate) const fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_exact_to_three_digits_from_a_microsecond_to_hours() {
        let mut latencies = Latencies::new();
        for us in [5, 5_000, 5_000_000, 7_200_000_000] {
            latencies.add_us(us);
        }
        assert!((latencies.within_ms(0.25) - 0.005).abs() < 1e-6);
        assert!((latencies.within_ms(0.5) - 5.0).abs() < 0.01);
        assert!((latencies.longest_ms() - 7_200_000.0).abs() < 7_200.0);
        assert_eq!(latencies.count(), 4);
    }
}

//! When a connection's turn to end comes after the signal to end. No IO.

use std::time::Duration;
use tidegate_core::{Limiter, Shutdown};
use tokio::time::Instant;

/// How long a connection goes on after the signal to end. Spread so that the clients, who come back at once, arrive
/// no faster than one gateway like this lets them in; half of the time to drain at most.
pub(super) fn leave_in(connection: u64, limits: &Limiter, shutdown: &Shutdown) -> Duration {
    let rate = limits.limits().connect_rate.max(1);
    let spread = Duration::from_secs(1).mul_f64(f64::from(limits.open()) / f64::from(rate));
    let left = shutdown.deadline().map(|end| end.saturating_duration_since(Instant::now()));
    spread.min(left.unwrap_or_default() / 2).mul_f64(spread_evenly(connection))
}

/// A number from 0 up to 1 that differs as much as it can between numbers that follow each other.
fn spread_evenly(number: u64) -> f64 {
    // multiples of the golden ratio, of which the fraction counts
    let [a, b, c, d, ..] = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    f64::from(u32::from_be_bytes([a, b, c, d])) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::spread_evenly;

    #[test]
    fn a_hundred_connections_leave_at_even_distances() {
        let mut turns: Vec<_> = (0..100).map(spread_evenly).collect();
        turns.sort_by(f64::total_cmp);
        assert!(turns.windows(2).all(|pair| (0.003..0.03).contains(&(pair[1] - pair[0]))), "{turns:?}");
    }
}

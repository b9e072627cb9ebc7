//! How much a device may publish: its fleet's `publishRate` and `publishBytes`. No IO.
//!
//! Both are one number each: the moment until which what was published pays for (the generic cell rate algorithm).
//! A device may be one second ahead of itself. It is never refused a message that it may send at all: what goes beyond
//! is paid for by waiting.

use std::time::{Duration, Instant};
use tidegate_contract::fleet::DeviceLimits;

/// How far ahead a device may be: so much it may send at once.
const AHEAD: Duration = Duration::from_secs(1);

/// What a device has published of late.
#[derive(Debug, Default)]
pub(super) struct Allowance {
    messages: Option<Instant>,
    bytes: Option<Instant>,
}

impl Allowance {
    /// How long the device has to wait before it may publish; nothing: it may now.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = |paid: Option<Instant>| paid?.checked_duration_since(now)?.checked_sub(AHEAD);
        wait(self.messages).max(wait(self.bytes)).filter(|wait| !wait.is_zero())
    }

    /// Counts a message.
    pub(super) fn spend(&mut self, limits: &DeviceLimits, bytes: usize, now: Instant) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let pay = |paid: &mut Option<Instant>, amount: u64, rate: Option<u64>| {
            *paid = rate.map(|rate| paid.map_or(now, |paid| paid.max(now)) + time(amount, rate));
        };
        pay(&mut self.messages, 1, limits.publish_rate.map(u64::from));
        pay(&mut self.bytes, bytes, limits.publish_bytes);
    }

    /// Whether nothing is owed: then it can be forgotten.
    pub(super) fn is_settled(&self, now: Instant) -> bool {
        [self.messages, self.bytes].into_iter().flatten().all(|paid| paid <= now)
    }
}

/// How long `amount` takes at `rate` a second; a day at most.
fn time(amount: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(amount) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX)).min(Duration::from_hours(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(publish_rate: Option<u32>, publish_bytes: Option<u64>) -> DeviceLimits {
        DeviceLimits { publish_rate, publish_bytes, connections_per_device: None }
    }

    /// How many messages of so many bytes a device gets out in 10 s that takes every chance.
    fn sent(limits: &DeviceLimits, bytes: usize) -> u32 {
        let (mut allowance, start) = (Allowance::default(), Instant::now());
        let (mut now, mut count) = (start, 0);
        while now < start + Duration::from_secs(10) && count < 100_000 {
            if let Some(wait) = allowance.wait(now) {
                now += wait;
            } else {
                allowance.spend(limits, bytes, now);
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_device_gets_its_rate_and_a_second_ahead() {
        assert!((540..=560).contains(&sent(&limits(Some(50), None), 1)));
        assert!((109..=112).contains(&sent(&limits(None, Some(1_000)), 100)));
        assert!((11..=12).contains(&sent(&limits(Some(1), Some(1 << 20)), 100)));
        assert_eq!(sent(&limits(None, None), 100), 100_000);
    }

    #[test]
    fn a_message_larger_than_a_seconds_worth_goes_and_is_paid_for() {
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        allowance.spend(&limits(None, Some(100)), 1_000, now);
        assert_eq!(allowance.wait(now), Some(Duration::from_secs(9)));
        assert!(!allowance.is_settled(now));
        assert_eq!(allowance.wait(now + Duration::from_secs(9)), None);
        assert!(allowance.is_settled(now + Duration::from_secs(10)));
    }

    #[test]
    fn a_limit_that_is_lifted_is_owed_no_more() {
        let (mut allowance, now) = (Allowance::default(), Instant::now());
        allowance.spend(&limits(Some(1), Some(1)), 100, now);
        allowance.spend(&limits(None, None), 100, now);
        assert!(allowance.wait(now).is_none() && allowance.is_settled(now));
    }
}

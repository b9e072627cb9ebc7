//! Who was wrong too often has to wait: a source as a whole, and a source with one username. No IO.
//!
//! A source is an address, and many devices may share one (NAT, a load balancer that hides it). So it is held up
//! gently: it has a small number of wrong tries a second, and is well again as soon as they end. One that is wrong
//! with the same username again and again has to wait longer each time. A username that is tried from elsewhere is not
//! held up for its device: nobody is locked out by another.

use super::table::Table;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

/// What a source may be wrong at once, and the time in which it earns another.
const SOURCE_FREE: u32 = 50;
const SOURCE_EARNS: Duration = Duration::from_millis(200);
/// How often a source may be wrong with one username before it has to wait; then how long, doubled each time.
const NAME_FREE: u32 = 4;
const NAME_WAITS: Duration = Duration::from_secs(1);
const NAME_WAITS_MOST: Duration = Duration::from_secs(60);
/// After so long without a wrong try it is forgotten.
const NAME_FORGOTTEN: Duration = Duration::from_secs(600);
/// So many sources, and so many of their usernames, are remembered: half a megabyte.
const PLACES: usize = 8192;

pub(super) struct Backoff {
    sources: Table<Source>,
    names: Table<Name>,
}

/// The moment until which the wrong tries of a source are paid for by time.
#[derive(Clone, Copy, Default)]
struct Source(Option<Instant>);

#[derive(Clone, Copy, Default)]
struct Name {
    failures: u32,
    until: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { sources: Table::new(PLACES), names: Table::new(PLACES) }
    }
}

impl Backoff {
    /// How long this source has to wait with this username; nothing: it may try.
    pub(super) fn wait(&self, source: IpAddr, username: &str, now: Instant) -> Option<Duration> {
        let source = network(source);
        let left = |until: Option<Instant>| until?.checked_duration_since(now).filter(|left| !left.is_zero());
        let ahead = left(self.sources.get(source).0);
        let whole = ahead.and_then(|ahead| ahead.checked_sub(SOURCE_EARNS * (SOURCE_FREE - 1)));
        whole.max(left(self.names.get((source, username)).until))
    }

    /// It was wrong.
    pub(super) fn failed(&self, source: IpAddr, username: &str, now: Instant) {
        let source = network(source);
        self.sources.change(source, |source| {
            source.0 = Some(source.0.map_or(now, |until| until.max(now)) + SOURCE_EARNS);
        });
        self.names.change((source, username), |name| {
            if name.until.is_some_and(|until| now.saturating_duration_since(until) > NAME_FORGOTTEN) {
                *name = Name::default();
            }
            name.failures = name.failures.saturating_add(1);
            let doublings = name.failures.checked_sub(NAME_FREE);
            let wait =
                doublings.map(|times| NAME_WAITS.saturating_mul(1 << times.min(16)).min(NAME_WAITS_MOST));
            name.until = Some(now + wait.unwrap_or_default());
        });
    }

    /// What was counted as wrong turned out to be right.
    pub(super) fn take_back(&self, source: IpAddr) {
        self.sources.change(network(source), |source| {
            source.0 = source.0.and_then(|until| until.checked_sub(SOURCE_EARNS));
        });
    }

    /// It was right: its username is free again there, the source is not, or one good device would cover for guesses.
    pub(super) fn succeeded(&self, source: IpAddr, username: &str) {
        self.names.change((network(source), username), |name| *name = Name::default());
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 host has for itself.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_username_waits_longer_each_time_and_is_free_after_the_right_password() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        let waits: Vec<_> = (0..12)
            .map(|_| {
                backoff.failed(HERE, "f/d", now);
                backoff.wait(HERE, "f/d", now).map_or(0, |wait| wait.as_secs())
            })
            .collect();
        assert_eq!(waits, [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(backoff.wait(HERE, "f/d", now + Duration::from_secs(60)), None);
        assert_eq!(backoff.wait(HERE, "f/other", now), None);
        assert_eq!(backoff.wait([10, 0, 0, 1].into(), "f/d", now), None);
        backoff.succeeded(HERE, "f/d");
        assert_eq!(backoff.wait(HERE, "f/d", now), None);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        (0..9).for_each(|_| backoff.failed(HERE, "f/d", now));
        let later = now + NAME_FORGOTTEN + Duration::from_secs(100);
        backoff.failed(HERE, "f/d", later);
        assert_eq!(backoff.wait(HERE, "f/d", later), None);
    }

    #[test]
    fn a_source_that_tries_many_usernames_gets_five_a_second_and_others_are_not_held_up() {
        let (backoff, start) = (Backoff::default(), Instant::now());
        let mut tries = 0;
        for ms in 0..10_000 {
            let (now, name) = (start + Duration::from_millis(ms), format!("f/{ms}"));
            if backoff.wait(HERE, &name, now).is_none() {
                backoff.failed(HERE, &name, now);
                tries += 1;
            }
        }
        assert!((95..=105).contains(&tries), "{tries}");
        let end = start + Duration::from_secs(10);
        assert!(backoff.wait(HERE, "f/x", end).is_none_or(|wait| wait <= SOURCE_EARNS));
        assert_eq!(backoff.wait([10, 0, 0, 1].into(), "f/x", end), None);
    }

    #[test]
    fn what_turned_out_right_does_not_count() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        for device in 0..1_000 {
            let name = format!("f/{device}");
            assert_eq!(backoff.wait(HERE, &name, now), None);
            backoff.failed(HERE, &name, now);
            backoff.take_back(HERE);
        }
    }

    #[test]
    fn a_host_does_not_escape_by_its_many_ipv6_addresses() {
        let (backoff, now) = (Backoff::default(), Instant::now());
        for host in 0..60_u16 {
            backoff.failed(IpAddr::V6(Ipv6Addr::new(0xfd00, 1, 2, 3, 0, 0, 0, host)), "f/d", now);
        }
        assert!(backoff.wait("fd00:1:2:3::ffff".parse().unwrap(), "f/e", now).is_some());
        assert_eq!(backoff.wait("fd00:1:2:4::1".parse().unwrap(), "f/e", now), None);
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
    }
}

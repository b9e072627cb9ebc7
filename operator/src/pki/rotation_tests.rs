//! Rotations from the first step to the last, with everybody who holds certificates.

use super::leaf::{Issued, LeafSpec, Renewal, keep_or_issue, signed};
use super::parsed::certificates;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

const YEAR: Duration = Duration::days(365);
const INSIDE: Duration = Duration::minutes(5);
const KAFKA: Pace = Pace { renew_before: Duration::days(1217), inside: INSIDE, outside: Outside::Nobody };
const DEVICES: Pace = Pace { outside: Outside::Lifetime(YEAR), ..KAFKA };

fn start() -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(1_795_449_600).unwrap()
}

fn made() -> Authority {
    Authority::keep_or_make(None, "plant Kafka", start()).unwrap()
}

fn asks(text: &str, ask: Ask) -> Seen<'_> {
    Seen { asked: Some((text, Some(ask))), delivered: true, rolled: true }
}

/// As the next pass reads it from the Secret.
fn stored(authority: &Authority) -> Authority {
    Authority::keep_or_make(Some(&authority.data()), "plant Kafka", start()).unwrap()
}

fn count(authority: &Authority) -> usize {
    certificates(authority.bundle()).len()
}

#[test]
fn an_authority_gives_way_in_time_step_by_step_and_each_step_waits_for_everybody() {
    let (mut authority, mut now) = (made(), start());
    let old = authority.bundle().to_owned();
    let everywhere = Seen { asked: None, delivered: true, rolled: true };
    let mut turn = |seen: &Seen<'_>, now| {
        let turn = authority.turn("plant Kafka", seen, &KAFKA, now).unwrap();
        authority = stored(&authority);
        (turn.news, turn.waits, authority.bundle().to_owned())
    };
    now += Duration::days(3650 - 1218);
    assert_eq!(turn(&everywhere, now), (None, Waits::Nothing, old.clone()));
    now += Duration::days(2);
    let (news, _, both) = turn(&everywhere, now);
    assert_eq!(news, Some(News::Began(Step::TrustBoth)));
    assert!(both.starts_with(&old) && certificates(&both).len() == 2);
    for next in [Step::NewLeaves, Step::DropOld, Step::Steady] {
        let (before, last) = (now, Step::DropOld);
        assert_eq!(turn(&Seen::default(), now).1, Waits::Secrets);
        now += Duration::days(1);
        assert_eq!(turn(&Seen { delivered: true, ..Seen::default() }, now).1, Waits::Brokers);
        // Counted from when every Secret was seen, not from when the step began.
        now += INSIDE - Duration::seconds(1);
        assert_eq!(turn(&everywhere, now).1, Waits::Inside(before + Duration::days(1) + INSIDE));
        // Somebody edited one meanwhile: pods may have it, and they need their time again.
        assert_eq!(turn(&Seen { rolled: true, ..Seen::default() }, now).1, Waits::Secrets);
        now += Duration::seconds(1);
        assert_eq!(turn(&everywhere, now).1, Waits::Inside(now + INSIDE));
        now += INSIDE;
        let news = if next == Step::Steady { News::Ended(last) } else { News::Began(next) };
        assert_eq!(turn(&everywhere, now).0, Some(news));
    }
    let (news, waits, new) = turn(&everywhere, now);
    assert_eq!((news, waits), (None, Waits::Nothing));
    assert_eq!(certificates(&new).len(), 1);
    assert!(both.ends_with(&new) && new != old);
}

#[test]
fn a_request_is_answered_once_whatever_restarts_and_a_second_one_waits_for_the_first() {
    let (mut authority, mut now) = (made(), start());
    let one = asks("kafka-authority/1", Ask::Successor);
    let begun = authority.turn("x", &one, &KAFKA, now).unwrap();
    assert_eq!(begun.news, Some(News::Began(Step::TrustBoth)));
    let two = asks("certificates/2", Ask::Leaves);
    let mut ends = Vec::new();
    for _ in 0..12 {
        authority = stored(&authority);
        now += INSIDE;
        let seen = if ends.is_empty() { &two } else { &one };
        let turn = authority.turn("x", seen, &KAFKA, now).unwrap();
        if ends.is_empty() && authority.life().step != Step::Steady {
            assert!(turn.deferred || matches!(turn.news, Some(News::Began(_))));
        }
        if let Some(News::Ended(step)) = turn.news {
            ends.push(step);
        }
        if ends.len() == 1 {
            break;
        }
    }
    assert_eq!(ends, [Step::DropOld]);
    let turn = stored(&authority).turn("x", &two, &KAFKA, now).unwrap();
    assert_eq!(turn.news, Some(News::Began(Step::Renew)), "it waited");
}

#[test]
fn a_request_that_stays_is_not_repeated_and_one_that_was_taken_off_may_come_again() {
    let (mut authority, now) = (made(), start());
    let one = asks("certificates/1", Ask::Leaves);
    authority.turn("x", &one, &KAFKA, now).unwrap();
    authority.turn("x", &one, &KAFKA, now + INSIDE).unwrap();
    let end = now + INSIDE + INSIDE;
    assert_eq!(authority.turn("x", &one, &KAFKA, end).unwrap().news, Some(News::Ended(Step::Renew)));
    let mut authority = stored(&authority);
    let other = Seen { asked: Some(("devices-authority/1", None)), ..one };
    for seen in [&one, &other, &one] {
        assert_eq!(authority.turn("x", seen, &KAFKA, end + YEAR).unwrap().news, None);
    }
    authority.turn("x", &Seen { asked: None, ..one }, &KAFKA, end).unwrap();
    let again = stored(&authority).turn("x", &one, &KAFKA, end).unwrap();
    assert_eq!(again.news, Some(News::Began(Step::Renew)));
}

#[test]
fn devices_have_years_unless_a_person_knows_that_they_need_none() {
    let everywhere = Seen { asked: None, delivered: true, rolled: true };
    let mut authority = made();
    let (first, due) = (authority.expires(), authority.expires() - Duration::days(1216));
    authority.turn("x", &everywhere, &DEVICES, due).unwrap();
    let begun = authority.data();
    let waits = |authority: &mut Authority, now| {
        authority.turn("x", &everywhere, &DEVICES, now).unwrap();
        let again = authority.turn("x", &everywhere, &DEVICES, now + INSIDE).unwrap();
        (again.waits, authority.life().step)
    };
    assert_eq!(waits(&mut authority, due), (Waits::Outside(first - YEAR), Step::TrustBoth));
    assert_eq!(waits(&mut authority, first - YEAR).1, Step::NewLeaves);
    assert_eq!(waits(&mut authority, first - YEAR + INSIDE), (Waits::Outside(first), Step::NewLeaves));
    assert_eq!(count(&authority), 2);
    assert_eq!(waits(&mut authority, first).1, Step::DropOld);

    let mut hurried = Authority::read(&begun).unwrap();
    let on = asks("devices-authority-next/1", Ask::GoOn);
    let mut now = due;
    assert!(
        matches!(hurried.turn("x", &on, &DEVICES, now).unwrap().waits, Waits::Inside(_)),
        "pods are waited for"
    );
    now += INSIDE;
    assert_eq!(hurried.turn("x", &on, &DEVICES, now).unwrap().news, Some(News::Began(Step::NewLeaves)));
    hurried = stored(&hurried);
    hurried.turn("x", &on, &DEVICES, now).unwrap();
    let turn = hurried.turn("x", &on, &DEVICES, now + INSIDE).unwrap();
    assert_eq!(turn.waits, Waits::Outside(first), "it was about one step");
}

#[test]
fn an_authority_that_expired_is_replaced_at_once() {
    let mut authority = made();
    let late = authority.expires() + Duration::seconds(1);
    let turn = authority.turn("x", &Seen::default(), &KAFKA, late).unwrap();
    assert_eq!(turn.news, Some(News::Began(Step::NewLeaves)));
    assert!(authority.expires() > late);
    let (_, why) = keep_or_issue(None, &LeafSpec::client("gateway"), &authority, late).unwrap();
    assert_eq!(why, Some(Renewal::Missing));
}

#[test]
fn what_a_dropped_authority_signed_is_not_kept_even_from_a_backup() {
    let (mut authority, now) = (made(), start());
    let spec = LeafSpec::client("gateway");
    let (old, _) = keep_or_issue(None, &spec, &authority, now).unwrap();
    let again = |authority: &Authority| {
        let parts = (old.certificate.as_str(), old.key.pem(), old.authorities.as_str());
        keep_or_issue(Some(parts), &spec, authority, now).unwrap().1
    };
    authority.beget("x", now).unwrap();
    assert_eq!(again(&authority), None);
    authority.succeed(now).unwrap();
    assert_eq!(again(&authority), Some(Renewal::Succeeded));
    authority.drop_others(now);
    assert_eq!(again(&stored(&authority)), Some(Renewal::Untrusted));
}

/// Certificate and trust that somebody uses.
type Held = (String, String);

/// A platform: its Secrets, and what its processes have loaded.
struct World {
    authority: BTreeMap<String, String>,
    secrets: BTreeMap<&'static str, Issued>,
    /// When each Secret was written last.
    written: BTreeMap<&'static str, OffsetDateTime>,
    running: BTreeMap<&'static str, Held>,
    now: OffsetDateTime,
}

const BROKERS: [&str; 3] = ["broker-0", "broker-1", "broker-2"];
const CLIENTS: [&str; 3] = ["operator", "gateway-a", "gateway-b"];

/// Pods of one gateway share a Secret.
fn secret_of(who: &'static str) -> &'static str {
    if who.starts_with("gateway") { "gateway" } else { who }
}

impl World {
    fn new() -> Self {
        let (authority, now) = (made().data(), start());
        let (secrets, written, running) = Default::default();
        let mut world = Self { authority, secrets, written, running, now };
        world.pass(None, usize::MAX);
        for who in BROKERS.into_iter().chain(CLIENTS) {
            world.load(who);
        }
        world
    }

    fn held(&self, who: &'static str) -> Held {
        let issued = &self.secrets[secret_of(who)];
        (issued.certificate.clone(), issued.authorities.clone())
    }

    fn load(&mut self, who: &'static str) {
        self.running.insert(who, self.held(who));
    }

    fn settle(&self, authority: &Authority) -> (Vec<(&'static str, Issued)>, bool) {
        let mut all = Vec::new();
        let mut same = true;
        for who in BROKERS.into_iter().chain(["operator", "gateway"]) {
            let there = self.secrets.get(who);
            let parts = there.map(|it| (it.certificate.as_str(), it.key.pem(), it.authorities.as_str()));
            let (issued, _) = keep_or_issue(parts, &LeafSpec::client(who), authority, self.now).unwrap();
            same &= there == Some(&issued);
            all.push((who, issued));
        }
        (all, same)
    }

    /// One pass of an operator that is killed after so many writes.
    fn pass(&mut self, asked: Option<(&str, Ask)>, writes: usize) {
        let mut authority = Authority::read(&self.authority).unwrap();
        let (_, delivered) = self.settle(&authority);
        let rolled = BROKERS
            .into_iter()
            .all(|who| self.secrets.contains_key(who) && self.running.get(who) == Some(&self.held(who)));
        let asked = asked.map(|(text, ask)| (text, Some(ask)));
        authority.turn("x", &Seen { asked, delivered, rolled }, &KAFKA, self.now).unwrap();
        if writes == 0 {
            return;
        }
        self.authority = authority.data();
        for (who, issued) in self.settle(&authority).0.into_iter().take(writes - 1) {
            if self.secrets.get(who) != Some(&issued) {
                self.secrets.insert(who, issued);
                self.written.insert(who, self.now);
            }
        }
    }

    /// Time goes by; nobody needs longer than the time that is allowed.
    fn wait(&mut self, time: Duration) {
        self.now += time;
        for who in CLIENTS {
            if self.now - self.written[secret_of(who)] > INSIDE - Duration::seconds(1) {
                self.load(who);
            }
        }
    }

    /// Everybody can talk with every broker.
    fn check(&self) -> Result<(), TestCaseError> {
        let trusts = |trust: &str, leaf: &str| {
            let leaf = certificates(leaf);
            certificates(trust).iter().any(|(_, authority)| signed(&leaf[0].1, authority, self.now))
        };
        for broker in BROKERS {
            for other in BROKERS.into_iter().chain(CLIENTS) {
                let (one, two) = (&self.running[broker], &self.running[other]);
                prop_assert!(trusts(&one.1, &two.0), "{broker} does not trust {other}");
                prop_assert!(trusts(&two.1, &one.0), "{other} does not trust {broker}");
            }
        }
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Event {
    Pass { ask: Option<usize>, writes: usize },
    Restart(usize),
    Load(usize),
    Wait(i64),
}

const REQUESTS: [(&str, Ask); 4] =
    [("a/1", Ask::Successor), ("c/1", Ask::Leaves), ("n/1", Ask::GoOn), ("a/2", Ask::Successor)];

fn events() -> impl Strategy<Value = Vec<Event>> {
    let writes = prop_oneof![2 => Just(usize::MAX), 1 => 0usize..6];
    let event = prop_oneof![
        4 => (proptest::option::of(0..REQUESTS.len()), writes).prop_map(|(ask, writes)| Event::Pass { ask, writes }),
        4 => (0..BROKERS.len()).prop_map(Event::Restart),
        1 => (0..CLIENTS.len()).prop_map(Event::Load),
        3 => (1i64..400).prop_map(Event::Wait),
    ];
    proptest::collection::vec(event, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn everybody_can_talk_with_every_broker_whenever_the_operator_is_killed(events in events()) {
        let mut world = World::new();
        for event in events {
            match event {
                Event::Pass { ask, writes } => world.pass(ask.map(|at| REQUESTS[at]), writes),
                Event::Restart(at) => world.load(BROKERS[at]),
                Event::Load(at) => world.load(CLIENTS[at]),
                Event::Wait(seconds) => world.wait(Duration::seconds(seconds)),
            }
            world.check()?;
        }
        // Whatever was left, it comes to an end.
        for _ in 0..12 {
            world.pass(None, usize::MAX);
            for who in BROKERS {
                world.load(who);
            }
            world.pass(None, usize::MAX);
            world.wait(INSIDE);
            world.check()?;
        }
        let authority = Authority::read(&world.authority).unwrap();
        prop_assert_eq!(authority.life().step, Step::Steady);
        prop_assert_eq!(certificates(authority.bundle()).len(), 1);
    }
}

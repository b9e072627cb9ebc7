use super::*;
use std::fmt::Write as _;

const BASE_US: u64 = 1_795_400_000_000_000;
const RUN: &str = "abc123";

/// A run written by hand: what the load logged and what Kafka holds.
struct Case {
    log: String,
    stored: String,
    records: u64,
    at_us: u64,
}

impl Case {
    fn new(publishers: u16) -> Self {
        let log = format!("load 2 {RUN} {publishers} 0 10000 100\n");
        Self { log, stored: format!("stored 1 {RUN} telemetry\n"), records: 0, at_us: 0 }
    }

    fn log(&mut self, text: &str) {
        writeln!(self.log, "{text} {} {}", self.at_us, BASE_US + self.at_us).unwrap();
    }

    fn offer(&mut self, publisher: u16, sequence: u32) {
        self.log(&format!("o {publisher} {sequence}"));
    }

    fn ack(&mut self, publisher: u16, sequence: u32) {
        self.log(&format!("a {publisher} {sequence}"));
    }

    /// Kafka holds this one, stored now, in the order of the calls.
    fn store(&mut self, publisher: u16, sequence: u32) {
        let ms = (BASE_US + self.at_us) / 1000;
        writeln!(self.stored, "{publisher} {} A{ms} {publisher} {sequence}", self.records).unwrap();
        self.records += 1;
    }

    fn pass(&mut self, ms: u64) -> &mut Self {
        self.at_us += ms * 1000;
        self
    }

    /// An ordinary message: offered, stored 3 ms later, acknowledged 2 ms after that.
    fn good(&mut self, publisher: u16, sequence: u32) {
        self.offer(publisher, sequence);
        self.pass(3).store(publisher, sequence);
        self.pass(2).ack(publisher, sequence);
    }

    fn verdict(mut self) -> Verdict {
        self.log("e");
        writeln!(self.stored, "end {} 0", self.records).unwrap();
        self.unfinished()
    }

    fn unfinished(self) -> Verdict {
        let mut judge = Judge::read_log(Rules::default(), self.log.as_bytes()).unwrap();
        judge.read_stored(self.stored.as_bytes()).unwrap();
        judge.verdict()
    }
}

#[test]
fn a_clean_run_is_reported_clean() {
    let mut case = Case::new(2);
    for sequence in 0..100 {
        case.good(0, sequence);
        case.pass(95).good(1, sequence);
        case.pass(95);
    }
    let verdict = case.verdict();
    assert!(verdict.is_clean(), "{:?}", verdict.faults());
    assert_eq!((verdict.offered, verdict.acknowledged, verdict.stored), (200, 200, 200));
    assert_eq!((verdict.duplicates, verdict.unanswered, verdict.refused), (0, 0, 0));
    assert!((4.9..5.1).contains(&verdict.ack_p50_ms) && (4.9..5.1).contains(&verdict.ack_p99_ms));
    assert!(verdict.longest_gap_s < 0.2 && verdict.append_times);
    assert_eq!(verdict.per_second[3], Second { offered: 10, acknowledged: 10, ..Second::default() });
}

#[test]
fn a_planted_loss_is_reported() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.offer(0, 1);
    case.pass(5).ack(0, 1);
    case.good(0, 2);
    let verdict = case.verdict();
    assert_eq!(verdict.acknowledged_lost, 1);
    assert_eq!(verdict.examples.0, ["acknowledged and lost: 0/1"]);
    assert_eq!(verdict.faults(), ["1 acknowledged and lost"]);
}

#[test]
fn a_message_that_nobody_acknowledged_may_be_missing() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.offer(0, 1);
    let verdict = case.verdict();
    assert!(verdict.is_clean());
    assert_eq!((verdict.unanswered, verdict.acknowledged_lost), (1, 0));
}

#[test]
fn a_planted_duplicate_is_reported_and_allowed() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.store(0, 0);
    case.good(0, 1);
    let verdict = case.verdict();
    assert!(verdict.is_clean());
    assert_eq!((verdict.duplicates, verdict.stale_repeats, verdict.stored, verdict.records), (1, 0, 2, 3));
}

#[test]
fn a_repeat_behind_a_newer_message_is_a_stale_repeat_and_no_disorder() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.good(0, 1);
    case.store(0, 0);
    let verdict = case.verdict();
    assert!(verdict.is_clean());
    assert_eq!((verdict.duplicates, verdict.stale_repeats, verdict.disorder), (1, 1, 0));
}

#[test]
fn a_planted_disorder_is_reported() {
    let mut case = Case::new(1);
    for sequence in 0..3 {
        case.offer(0, sequence);
    }
    for sequence in [0, 2, 1] {
        case.store(0, sequence);
    }
    for sequence in 0..3 {
        case.ack(0, sequence);
    }
    let verdict = case.verdict();
    assert_eq!(verdict.disorder, 1);
    assert_eq!(verdict.examples.0, ["out of order: 0/1 at 0/2"]);
    assert!(!verdict.is_clean());
}

#[test]
fn order_is_judged_per_address_only() {
    let mut case = Case::new(2);
    case.offer(0, 0);
    case.offer(1, 0);
    case.store(1, 0);
    case.store(0, 0);
    assert_eq!(case.verdict().disorder, 0);
}

#[test]
fn a_planted_early_acknowledgement_is_reported() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.offer(0, 1);
    case.pass(1).ack(0, 1);
    case.pass(20).store(0, 1);
    let verdict = case.verdict();
    assert_eq!(verdict.early_acknowledged, 1);
    assert_eq!(verdict.examples.0, ["acknowledged 20 ms before it was stored: 0/1"]);
    assert!(!verdict.is_clean());
}

#[test]
fn the_first_copy_decides_whether_an_acknowledgement_was_early() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.pass(500).store(0, 0);
    assert_eq!(case.verdict().early_acknowledged, 0);
}

#[test]
fn what_was_never_offered_or_came_back_changed_or_elsewhere_is_reported() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.store(0, 7);
    case.store(9, 0);
    case.stored.push_str("altered 0 99\n5 1 A1795400000001 0 0\n");
    case.records += 2;
    let verdict = case.verdict();
    assert_eq!((verdict.unoffered, verdict.altered, verdict.misplaced), (2, 1, 1));
}

#[test]
fn refused_messages_are_counted_and_need_not_be_stored() {
    let mut case = Case::new(1);
    case.offer(0, 0);
    case.log("r 0 0");
    let verdict = case.verdict();
    assert!(verdict.is_clean());
    assert_eq!((verdict.refused, verdict.unanswered), (1, 0));
}

#[test]
fn a_cut_log_or_output_is_no_clean_run() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.log.push_str("a 0 1 17");
    let verdict = case.unfinished();
    assert_eq!(verdict.faults(), ["the load did not end its log", "the reader did not come to the end"]);
}

#[test]
fn lines_that_are_missing_from_the_output_are_noticed() {
    let mut judge =
        Judge::read_log(Rules::default(), &b"load 2 abc123 1 0 1000 100\no 0 0 1 1\n"[..]).unwrap();
    let output = "stored 1 abc123 t\n0 0 A1 0 0\nend 2 0\n";
    assert!(matches!(judge.read_stored(output.as_bytes()), Err(JudgeError::Stored { line: 3, .. })));
}

#[test]
fn a_log_or_output_that_contradicts_itself_is_refused() {
    for log in [
        "o 0 0 1 1\n",
        "load 2 abc123 1 0 1 1\no 0 1 1 1\n",
        "load 2 abc123 1 0 1 1\na 0 0 1 1\n",
        "load 2 abc123 1 0 1 1\no 1 0 1 1\n",
        "load 2 abc123 1 0 1 1\no 0 0 1 1\na 0 0 1 1\na 0 0 1 1\n",
        "",
    ] {
        assert!(Judge::read_log(Rules::default(), log.as_bytes()).is_err(), "{log:?}");
    }
    for output in ["stored 1 zzz999 t\n", "0 5 A1 0 0\n0 5 A1 0 0\n", "end 0 0\n0 1 A1 0 0\n"] {
        let mut judge = Judge::read_log(Rules::default(), &b"load 2 abc123 1 0 1 1\n"[..]).unwrap();
        assert!(judge.read_stored(output.as_bytes()).is_err(), "{output:?}");
    }
}

#[test]
fn after_a_fault_the_verdict_says_when_the_offered_rate_was_acknowledged_again() {
    let mut case = Case::new(1);
    for sequence in 0..20 {
        case.good(0, sequence);
        case.pass(95);
    }
    writeln!(case.log, "m {} {} leader killed", case.at_us, BASE_US + case.at_us).unwrap();
    // Thirty messages fall due in three silent seconds and are acknowledged together.
    for sequence in 20..50 {
        case.offer(0, sequence);
        case.pass(100);
    }
    for sequence in 20..50 {
        case.store(0, sequence);
        case.ack(0, sequence);
    }
    for sequence in 50..80 {
        case.good(0, sequence);
        case.pass(95);
    }
    let verdict = case.verdict();
    let mark = &verdict.marks[0];
    assert_eq!(
        (mark.name.as_str(), mark.acknowledged_before, mark.acknowledged_after),
        ("leader killed", 20, 60)
    );
    assert_eq!(mark.served_after_s, Some(3.0));
    assert!((3.0..3.2).contains(&verdict.longest_gap_s), "{}", verdict.longest_gap_s);
    assert!(verdict.is_clean());
}

#[test]
fn after_a_fault_that_never_ends_nothing_is_served_again() {
    let mut case = Case::new(1);
    case.good(0, 0);
    writeln!(case.log, "m {} {} leader killed", case.at_us, BASE_US + case.at_us).unwrap();
    case.offer(0, 1);
    case.pass(60_000);
    let verdict = case.verdict();
    assert_eq!(verdict.marks[0].served_after_s, None);
    assert!(verdict.longest_gap_s >= 60.0);
}

#[test]
fn a_million_messages_take_one_small_entry_each() {
    assert!(size_of::<Known>() <= 32);
}

#[test]
fn what_subscribers_get_twice_late_or_never_is_reported() {
    let mut case = Case::new(1);
    case.log("w 7");
    for sequence in 0..4 {
        case.good(0, sequence);
    }
    for sequence in [0, 3, 1, 1] {
        case.pass(5).log(&format!("s 7 0 {sequence}"));
    }
    // far enough behind the one that never came
    case.pass(2_000).good(0, 4);
    case.log("s 7 0 4");
    case.log("x 7");
    case.log("s 7 0 99");
    let verdict = case.verdict();
    let seen = verdict.watched.clone().unwrap();
    assert_eq!((seen.delivered, seen.delivered_again, seen.delivered_disorder), (4, 1, 1));
    assert_eq!((seen.missed, seen.seen_altered, seen.subscriptions), (1, 2, 1));
    assert_eq!(verdict.examples.0, ["subscriber 7 got it out of order: 0/1", "subscriber 7 missed: 0/2"]);
    assert_eq!(verdict.faults().len(), 3);
}

#[test]
fn a_stale_repeat_is_no_disorder_for_who_was_not_subscribed_when_the_first_copy_came() {
    let mut case = Case::new(1);
    case.log("w 7");
    for sequence in 0..2 {
        case.good(0, sequence);
    }
    case.pass(5).log("s 7 0 1");
    case.store(0, 0);
    case.pass(5).log("s 7 0 0");
    let verdict = case.verdict();
    assert_eq!(verdict.watched.clone().unwrap().delivered_disorder, 0);
    assert_eq!((verdict.duplicates, verdict.stale_repeats), (1, 1));
}

#[test]
fn a_subscriber_need_not_get_what_was_sent_while_it_was_away() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.log("w 0");
    case.good(0, 1);
    case.log("s 0 0 1");
    case.log("b 0");
    case.good(0, 2);
    case.pass(5_000).log("w 0");
    case.good(0, 3);
    case.log("s 0 0 3");
    let verdict = case.verdict();
    assert!(verdict.is_clean(), "{:?}", verdict.faults());
    let seen = verdict.watched.unwrap();
    assert_eq!((seen.missed, seen.subscriptions, seen.subscriptions_broken), (0, 2, 1));
}

#[test]
fn a_read_of_less_than_was_acknowledged_before_it_is_reported() {
    let mut case = Case::new(1);
    for sequence in 0..3 {
        case.good(0, sequence);
    }
    let asked = case.at_us;
    // acknowledged while the reader waited: it may see either
    case.good(0, 3);
    for (sequence, asked) in [("3", asked), ("2", asked + 1), ("1", asked + 1), ("-", asked + 1)] {
        case.log(&format!("g 5 0 {sequence} {asked}"));
    }
    case.log("b 5");
    let verdict = case.verdict();
    let seen = verdict.watched.clone().unwrap();
    assert_eq!((seen.reads, seen.reads_failed, seen.reads_stale), (4, 1, 2));
    assert_eq!(verdict.faults(), ["2 reads of something older than what was acknowledged before"]);
}

#[test]
fn a_read_of_a_repeat_is_what_kafka_holds_as_newest() {
    let mut case = Case::new(1);
    case.good(0, 0);
    case.good(0, 1);
    case.store(0, 0);
    let asked = case.at_us + 1;
    case.pass(5).log(&format!("g 5 0 0 {asked}"));
    let verdict = case.verdict();
    assert!(verdict.is_clean(), "{:?}", verdict.faults());
}

/// Writes one attempt that begins now.
fn probe(case: &mut Case, kind: char, took_ms: u64, failed: &str) {
    let line = format!("p {kind} {} {} {}{failed}", case.at_us, BASE_US + case.at_us, took_ms * 1000);
    writeln!(case.log, "{line}").unwrap();
}

#[test]
fn after_a_fault_the_verdict_says_when_new_connections_work_and_when_the_last_open_one_knew() {
    let mut case = Case::new(2);
    for publisher in 0..2 {
        case.log(&format!("c {publisher}"));
    }
    for sequence in 0..10 {
        case.good(0, sequence);
        probe(&mut case, 'c', 3, "");
        probe(&mut case, 'h', 3, "");
        case.pass(95);
    }
    writeln!(case.log, "m {} {} off", case.at_us, BASE_US + case.at_us).unwrap();
    for turn in 0..30 {
        // new connections work after 2 s, requests after 1 s; one that takes long does not work
        let late = |until| if turn < until { (5_000, " refused") } else { (3, "") };
        let (took, why) = if turn == 15 { (1_100, "") } else { late(20) };
        probe(&mut case, 'c', took, why);
        probe(&mut case, 'h', late(10).0, late(10).1);
        case.pass(100);
        if turn == 4 || turn == 11 {
            let publisher = u16::from(turn == 11);
            case.log(&format!("d {publisher}"));
            case.log(&format!("c {publisher}"));
        }
    }
    for sequence in 10..20 {
        case.good(0, sequence);
        case.pass(95);
    }
    let verdict = case.verdict();
    let mark = verdict.marks[0].clone();
    assert_eq!(mark.told_after_s, Some(1.2));
    let recovered = mark.recovered.unwrap();
    assert_eq!((recovered.connect_after_s, recovered.http_after_s), (Some(2.003), Some(1.003)));
    let phases: Vec<_> = verdict.phases.iter().map(|one| (one.name.as_str(), one.acknowledged)).collect();
    assert_eq!(phases, [("before", 10), ("off", 10)]);
    assert_eq!(verdict.thin_phases(10), Vec::<String>::new());
    assert_eq!(verdict.thin_phases(11).len(), 2);
    let second = verdict.per_second[1];
    assert_eq!((second.probes, second.probes_failed, second.http_probes_failed), (10, 10, 10));
}

#[test]
fn a_service_that_never_comes_back_has_no_time() {
    let mut case = Case::new(1);
    case.good(0, 0);
    writeln!(case.log, "m {} {} off", case.at_us, BASE_US + case.at_us).unwrap();
    for _ in 0..10 {
        case.pass(100);
        probe(&mut case, 'c', 5_000, " refused");
    }
    let recovered = case.verdict().marks[0].recovered.unwrap();
    assert_eq!((recovered.connect_after_s, recovered.http_after_s), (None, None));
}

#[test]
fn what_was_written_over_http_is_told_from_the_rest() {
    let mut case = Case::new(1);
    case.log = case.log.replace(" 1 0 10000", " 1 1 10000");
    case.good(0, 0);
    case.good(1, 0);
    case.good(1, 1);
    let verdict = case.verdict();
    assert_eq!((verdict.acknowledged, verdict.acknowledged_http, verdict.connections), (3, 2, 2));
    assert_eq!(verdict.per_second[0].acknowledged_http, 2);
}

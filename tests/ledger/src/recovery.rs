//! How the service came back after each mark: for connections that were open, for new ones, and for messages. Pure.

use crate::judge::{Known, NEVER, Rules, seconds};
use crate::latency::Latencies;
use crate::log::{Moment, Probe, ProbeKind};
use crate::verdict::{Mark, Phase, Probed, Recovered, Second, second};

/// One attempt of a client that connects anew.
#[derive(Clone, Copy)]
struct Attempt {
    began_us: u64,
    ended_us: u64,
    worked: bool,
}

/// What the log says beside messages.
#[derive(Default)]
pub(crate) struct Events {
    connects: Vec<Attempt>,
    requests: Vec<Attempt>,
    /// Connections that were accepted and ended, in the order of their ends.
    broken: Vec<(u64, u64)>,
    probed: Option<Probed>,
}

impl Events {
    /// One that takes longer than what counts as late for a message does not work, although it may count as accepted.
    pub fn probe(&mut self, probe: Probe, rules: &Rules) {
        let all = self.probed.get_or_insert_default();
        let failed = probe.failed.is_some();
        let attempt = Attempt {
            began_us: probe.at.mono_us,
            ended_us: probe.at.mono_us.saturating_add(probe.took_us),
            worked: !failed && u128::from(probe.took_us) <= rules.late.as_micros(),
        };
        if probe.kind == ProbeKind::Connect {
            all.probes += 1;
            all.probes_failed += u64::from(failed);
            self.connects.push(attempt);
        } else {
            all.http_probes += 1;
            all.http_probes_failed += u64::from(failed);
            self.requests.push(attempt);
        }
        if let Some(why) = probe.failed {
            all.count(why);
        }
    }

    /// A connection that was accepted and has ended.
    pub fn broke(&mut self, accepted_us: u64, ended_us: u64) {
        self.broken.push((accepted_us, ended_us));
    }

    /// What probes came to, if there were any.
    pub fn probed(&mut self) -> Option<Probed> {
        self.probed.take()
    }

    /// Adds the probes to the seconds in which they began.
    pub fn fill(&self, all: &mut Vec<Second>, started: u64) {
        for attempt in &self.connects {
            let second = second(all, attempt.began_us.saturating_sub(started));
            second.probes += 1;
            second.probes_failed += u64::from(!attempt.worked);
        }
        for attempt in &self.requests {
            let second = second(all, attempt.began_us.saturating_sub(started));
            second.http_probes += 1;
            second.http_probes_failed += u64::from(!attempt.worked);
        }
    }

    /// What happened around each mark.
    pub fn marks(
        &self,
        marks: &[(Moment, String)],
        messages: &[&Known],
        rules: &Rules,
        started: u64,
    ) -> Vec<Mark> {
        let times: Vec<u64> = marks.iter().map(|(at, _)| at.mono_us).collect();
        let until = |place: usize| times.get(place + 1).copied().unwrap_or(NEVER);
        let mark = |(place, (at, name)): (usize, &(Moment, String))| {
            let at_us = at.mono_us;
            let acknowledged = |know: &&&Known| know.acked_us != NEVER;
            let all = messages.iter().filter(acknowledged).count() as u64;
            let before = messages.iter().filter(|known| known.acked_us < at_us).count() as u64;
            let told =
                self.broken.iter().filter(|(from, to)| *from < at_us && (at_us..until(place)).contains(to));
            Mark {
                name: name.clone(),
                at_s: seconds(at_us.saturating_sub(started)),
                acknowledged_before: before,
                acknowledged_after: all - before,
                served_after_s: served(at_us, messages, rules),
                told_after_s: told.map(|(_, to)| to - at_us).max().map(seconds),
                recovered: (!self.connects.is_empty()).then(|| Recovered {
                    connect_after_s: works(at_us, &self.connects, rules),
                    http_after_s: works(at_us, &self.requests, rules),
                }),
            }
        };
        marks.iter().enumerate().map(mark).collect()
    }
}

/// From `at_us` until the last late message was acknowledged.
fn served(at_us: u64, messages: &[&Known], rules: &Rules) -> Option<f64> {
    let late_us = micros(rules.late);
    let mut late: Vec<_> = messages
        .iter()
        .filter(|known| !known.refused && known.acked_us > at_us)
        .filter(|known| known.acked_us == NEVER || known.acked_us - known.offered_us > late_us)
        .map(|known| (known.offered_us, known.acked_us))
        .collect();
    late.sort_unstable();
    let mut until = at_us;
    for (offered, acked) in late {
        if until == NEVER || offered > until.saturating_add(micros(rules.calm)) {
            break;
        }
        until = until.max(acked);
    }
    (until != NEVER).then(|| seconds(until - at_us))
}

/// From `at_us` until an attempt worked that no failed one followed within the time that counts as calm.
fn works(at_us: u64, attempts: &[Attempt], rules: &Rules) -> Option<f64> {
    let mut all: Vec<_> = attempts.iter().filter(|attempt| attempt.ended_us > at_us).collect();
    all.sort_unstable_by_key(|attempt| attempt.began_us);
    let mut last_failed = None;
    for attempt in all.iter().filter(|attempt| !attempt.worked) {
        let since = last_failed.unwrap_or(at_us);
        if attempt.began_us > since.saturating_add(micros(rules.calm)) {
            break;
        }
        last_failed = Some(attempt.began_us);
    }
    let Some(last_failed) = last_failed else {
        return (!all.is_empty()).then_some(0.0);
    };
    let good = all.iter().filter(|attempt| attempt.worked && attempt.began_us > last_failed);
    good.map(|attempt| attempt.ended_us.saturating_sub(at_us)).min().map(seconds)
}

/// The run between its marks: before the first, and from each to the next.
pub(crate) fn phases(
    marks: &[(Moment, String)],
    messages: &[(bool, &Known)],
    started: u64,
    ended: u64,
) -> Vec<Phase> {
    let mut borders = vec![(started, "before")];
    borders.extend(marks.iter().map(|(at, name)| (at.mono_us, name.as_str())));
    let phase = |place: usize| {
        let (from, name) = borders[place];
        let to = borders.get(place + 1).map_or(ended.saturating_add(1), |(to, _)| *to);
        let mut latencies = Latencies::new();
        let mut phase = Phase {
            name: name.to_owned(),
            from_s: seconds(from.saturating_sub(started)),
            ..Phase::default()
        };
        phase.to_s = seconds(to.saturating_sub(started));
        for (over_http, known) in messages {
            phase.offered += u64::from((from..to).contains(&known.offered_us));
            if known.acked_us != NEVER && (from..to).contains(&known.acked_us) {
                phase.acknowledged += 1;
                phase.acknowledged_http += u64::from(*over_http);
                latencies.add_us(known.acked_us.saturating_sub(known.offered_us));
            }
        }
        if latencies.count() > 0 {
            (phase.ack_p50_ms, phase.ack_p99_ms) = (latencies.within_ms(0.5), latencies.within_ms(0.99));
        }
        phase
    };
    (0..borders.len()).map(phase).collect()
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

//! Settings of topics that somebody else changed in Kafka, told from settings whose declaration changed. Pure.

use super::admin::Outcomes;
use super::plan::{Desired, Observed};
use super::routes::Notice;
use std::collections::BTreeMap;
use tidegate_crds::reasons;

/// How many settings one notice names.
const NAMED: usize = 8;
/// How much of a value it shows, in characters.
const SHOWN: usize = 64;

type Config = BTreeMap<String, String>;

/// What is known of one topic.
struct Known {
    /// What was declared when all of it was last seen in Kafka.
    declared: Config,
    /// What was there instead, in words: told once it is seen to be put back.
    wrong: Option<String>,
}

/// Which settings were seen to be as declared, by the topic's name in Kafka.
#[derive(Default)]
pub struct Repairs(BTreeMap<String, Known>);

impl Repairs {
    /// Takes what a sweep saw and did; says what somebody else had changed and is seen to be put back. That Kafka took
    /// a change is not enough: it does not say what it refused.
    pub fn settle(
        &mut self,
        prefix: &str,
        wanted: &[Desired],
        outcomes: &Outcomes,
        seen: &Observed,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for want in wanted {
            let done = outcomes.get(&want.name).is_some_and(Result::is_ok);
            let have = seen.topics.get(&want.name);
            match have.map(|topic| topic.config.as_ref()) {
                // Made a moment ago.
                None if done => drop(self.keep(want)),
                Some(Some(have)) if want.whole(have) == *have => {
                    let topic = want.name.strip_prefix(prefix).unwrap_or(&want.name).to_owned();
                    let notice =
                        |text| Notice { topic, warning: true, reason: reasons::CONFIG_REPAIRED, text };
                    notices.extend(self.keep(want).map(notice));
                }
                Some(Some(have)) if done => self.wrong(want, have),
                _ => {}
            }
        }
        // A topic that is paused stays known; one that is gone from Kafka is not the same when it comes back.
        self.0.retain(|name, _| seen.topics.contains_key(name) || outcomes.contains_key(name));
        notices
    }

    /// All is as declared; what was wrong before.
    fn keep(&mut self, want: &Desired) -> Option<String> {
        let known = Known { declared: want.config.clone(), wrong: None };
        self.0.insert(want.name.clone(), known)?.wrong
    }

    fn wrong(&mut self, want: &Desired, have: &Config) {
        let known = self.0.remove(&want.name);
        let changes = changes(want, have, known.as_ref().map(|known| &known.declared));
        let (declared, wrong) =
            known.map_or_else(|| (want.config.clone(), None), |known| (known.declared, known.wrong));
        let text = (!changes.is_empty()).then(|| {
            let mut text = changes.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
            if changes.len() > NAMED {
                text = format!("{text}; and {} more", changes.len() - NAMED);
            }
            format!("settings of topic {:?} in Kafka were not as declared: {text}", want.name)
        });
        self.0.insert(want.name.clone(), Known { declared, wrong: text.or(wrong) });
    }
}

/// What differs and not because its declaration changed, in words. An operator that was just started knows no earlier
/// declaration: a setting that is missing then may be one that a newer version makes.
fn changes(want: &Desired, have: &Config, declared: Option<&Config>) -> Vec<String> {
    let mut changes = Vec::new();
    for (name, value) in &want.config {
        let was = have.get(name);
        let same = declared.map_or(was.is_some(), |declared| declared.get(name) == Some(value));
        if was == Some(value) || !same {
            continue;
        }
        let was = was.map_or_else(|| "unset".to_owned(), |was| shown(was));
        changes.push(format!("{name} was {was} and is {} again", shown(value)));
    }
    let whole = want.whole(have);
    for (name, was) in have.iter().filter(|(name, _)| !whole.contains_key(*name)) {
        if declared.is_none_or(|declared| !declared.contains_key(name)) {
            changes.push(format!("{name} {} was added and is removed", shown(was)));
        }
    }
    changes
}

fn shown(value: &str) -> String {
    let cut: String = value.chars().take(SHOWN).collect();
    if cut.len() < value.len() { format!("{cut:?}…") } else { format!("{cut:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::plan::Topic;

    fn config(entries: &[(&str, &str)]) -> Config {
        entries.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn want(retention: &str) -> Desired {
        let config = config(&[("retention.ms", retention), ("cleanup.policy", "delete")]);
        Desired { name: "p.t".to_owned(), partitions: 1, replicas: 1, config }
    }

    fn seen(entries: &[(&str, &str)]) -> Observed {
        let topic = Topic { config: Some(config(entries)), ..Topic::default() };
        Observed { topics: [("p.t".to_owned(), topic)].into(), ..Observed::default() }
    }

    const FINE: [(&str, &str); 2] = [("retention.ms", "1000"), ("cleanup.policy", "delete")];

    /// One sweep that finds `have` and puts it right; what the next one tells.
    fn repaired(repairs: &mut Repairs, want: &Desired, have: &[(&str, &str)]) -> Vec<String> {
        assert!(sweep(repairs, want, have).is_empty(), "told before it was seen");
        let fine: Vec<_> = want.config.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        sweep(repairs, want, &fine)
    }

    /// One sweep that finds `have`, and puts it right where it is not.
    fn sweep(repairs: &mut Repairs, want: &Desired, have: &[(&str, &str)]) -> Vec<String> {
        let seen = seen(have);
        let differs = seen.topics["p.t"].config.as_ref() != Some(&want.config);
        let outcomes = differs.then(|| ("p.t".to_owned(), Ok(()))).into_iter().collect();
        let notices = repairs.settle("p.", std::slice::from_ref(want), &outcomes, &seen);
        notices
            .into_iter()
            .map(|notice| {
                assert_eq!(
                    (notice.topic.as_str(), notice.reason, notice.warning),
                    ("t", "ConfigRepaired", true)
                );
                notice.text
            })
            .collect()
    }

    #[test]
    fn what_somebody_changed_added_or_removed_is_told_from_what_to_what() {
        let mut repairs = Repairs::default();
        assert!(sweep(&mut repairs, &want("1000"), &FINE).is_empty());
        let told = repaired(&mut repairs, &want("1000"), &[("retention.ms", "5"), ("retention.bytes", "1")]);
        let text = "settings of topic \"p.t\" in Kafka were not as declared: cleanup.policy was unset and is \"delete\" again; \
                    retention.ms was \"5\" and is \"1000\" again; retention.bytes \"1\" was added and is removed";
        assert_eq!(told, [text]);
        assert!(sweep(&mut repairs, &want("1000"), &FINE).is_empty(), "told twice");
    }

    #[test]
    fn a_changed_declaration_is_no_repair() {
        let mut repairs = Repairs::default();
        sweep(&mut repairs, &want("1000"), &FINE);
        // A broker that lags shows what was before once more.
        assert!(sweep(&mut repairs, &want("2000"), &FINE).is_empty());
        assert!(repaired(&mut repairs, &want("2000"), &FINE).is_empty());
        assert_eq!(repaired(&mut repairs, &want("2000"), &FINE).len(), 1);
    }

    #[test]
    fn what_is_wrong_for_several_looks_is_told_once() {
        let mut repairs = Repairs::default();
        let bad = [("retention.ms", "5"), FINE[1]];
        sweep(&mut repairs, &want("1000"), &FINE);
        sweep(&mut repairs, &want("1000"), &bad);
        assert_eq!(repaired(&mut repairs, &want("1000"), &bad).len(), 1);
        assert_eq!(repaired(&mut repairs, &want("1000"), &bad).len(), 1);
    }

    #[test]
    fn an_operator_that_was_just_started_tells_what_it_put_back_and_not_what_a_newer_version_sets() {
        let told = repaired(&mut Repairs::default(), &want("1000"), &[("retention.ms", "5"), ("x", "y")]);
        assert!(told[0].contains("retention.ms was") && told[0].contains("x \"y\" was added"), "{told:?}");
        assert!(repaired(&mut Repairs::default(), &want("1000"), &FINE[..1]).is_empty());
    }

    #[test]
    fn many_changes_and_long_values_stay_short() {
        let names: Vec<_> = (0..50).map(|n| format!("x.{n:02}")).collect();
        let long = "é".repeat(5000);
        let mut have = FINE.to_vec();
        have.extend(names.iter().map(|name| (name.as_str(), long.as_str())));
        let told = repaired(&mut Repairs::default(), &want("1000"), &have);
        assert!(told[0].ends_with("; and 42 more") && told[0].chars().count() < 1000, "{}", told[0]);
    }
}

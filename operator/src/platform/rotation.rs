//! The rotation of a platform's certificates: what is asked for, how far brokers and Secrets are, and what is said about
//! it. [`Authority::turn`] decides; the caller writes. No IO of its own.

use super::secrets::{Existing, SecretError};
use crate::frame::Cycle;
use crate::kafka::cluster::Cluster;
use crate::kafka::names::Names;
use crate::kafka::stateful_set::CERTIFICATES;
use crate::pki::{
    Ask, Authority, CA_CRT, News, Outside, Pace, PkiError, Seen, Step, Turn, Waits, expires, text,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration as Wait;
use tidegate_crds::labels::ROTATE;
use tidegate_crds::platform::{CertificateName, CertificateStatus};
use tidegate_crds::{IoTPlatform, reasons};
use time::{Duration, OffsetDateTime};

/// A successor is made when a third of an authority's ten years is left.
const RENEW_BEFORE: Duration = Duration::days(1217);
/// The successor of the devices' authority signs when a year is left of the old one's life.
const DEVICES_LEFT: Duration = Duration::days(365);
/// Request texts are kept in a Secret.
const LONGEST: usize = 128;
/// What no event tells is looked at again within this.
const SOON: Wait = Wait::from_secs(2);

/// One of a platform's two authorities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of everything that speaks with Kafka.
    Kafka,
    /// Of device listeners.
    Devices,
}

/// What may be written before the slash.
const WORDS: [(&str, &[(Which, Ask)]); 5] = [
    ("kafka-authority", &[(Which::Kafka, Ask::Successor)]),
    ("devices-authority", &[(Which::Devices, Ask::Successor)]),
    ("certificates", &[(Which::Kafka, Ask::Leaves), (Which::Devices, Ask::Leaves)]),
    ("kafka-authority-next", &[(Which::Kafka, Ask::GoOn)]),
    ("devices-authority-next", &[(Which::Devices, Ask::GoOn)]),
];

/// What the annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    text: &'a str,
    asks: &'static [(Which, Ask)],
}

impl<'a> Request<'a> {
    /// Reads `word` or `word/mark`.
    pub fn parse(text: &'a str) -> Result<Self, String> {
        let text = text.trim();
        let word = text.split_once('/').map_or(text, |(word, _)| word);
        let known = WORDS.iter().find(|(known, _)| *known == word).filter(|_| text.len() <= LONGEST);
        known.map(|(_, asks)| Request { text, asks }).ok_or_else(|| {
            let words: Vec<_> = WORDS.iter().map(|(word, _)| *word).collect();
            format!(
                "{ROTATE}: {:?} asks for nothing that there is: write {}, and behind a slash a mark that tells this request from earlier ones, for example kafka-authority/2026-11",
                text.chars().take(LONGEST).collect::<String>(),
                words.join(", ")
            )
        })
    }

    fn of(&self, which: Which) -> Option<Ask> {
        self.asks.iter().find(|(about, _)| *about == which).map(|(_, ask)| *ask)
    }
}

/// How fast the rotation of an authority goes.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// How long pods of ours need at most until they use a changed Secret.
    pub spread: Wait,
    /// How long applications have after each step, where there are any.
    pub applications: Option<Wait>,
}

impl Speed {
    fn pace(self, which: Which) -> Pace {
        let time = |wait: Wait| Duration::try_from(wait).unwrap_or(Duration::MAX);
        let outside = match (which, self.applications) {
            (Which::Devices, _) => Outside::Lifetime(DEVICES_LEFT),
            (Which::Kafka, Some(wait)) => Outside::For(time(wait)),
            (Which::Kafka, None) => Outside::Nobody,
        };
        Pace { renew_before: RENEW_BEFORE, inside: time(self.spread), outside }
    }
}

/// What was seen of the platform.
#[derive(Clone, Copy, Debug)]
pub struct Look<'a> {
    /// The platform's names.
    pub names: &'a Names,
    /// The Secrets as they should be before this turn.
    pub wanted: &'a Existing,
    /// The Secrets as they are stored.
    pub stored: &'a Existing,
    /// Whether every broker runs with what is wanted.
    pub rolled: bool,
    /// How fast it goes.
    pub speed: Speed,
}

/// What is to be told once what was decided is written.
#[derive(Debug, Default)]
pub struct Told(Vec<(bool, &'static str, String)>);

impl Told {
    /// Tells it.
    pub fn publish(self, cycle: &mut Cycle<IoTPlatform>) {
        for (warning, reason, text) in self.0 {
            tracing::info!(reason, "{text}");
            cycle.note(warning, reason, text);
        }
    }
}

/// Both authorities, or the one that there is, go at most one step on. What comes out are the authorities' Secrets that
/// changed, to be written before anything that follows from them.
pub fn advance(
    cycle: &mut Cycle<IoTPlatform>,
    look: &Look<'_>,
    which: &[Which],
) -> Result<(Existing, Told), SecretError> {
    let subject = Arc::clone(&cycle.subject);
    cycle.status.certificates.clear();
    let asked = subject.annotations().get(ROTATE).map(|text| Request::parse(text));
    let (mut changed, mut told) = (Existing::new(), Told::default());
    let request = asked.as_ref().and_then(|asked| asked.as_ref().ok());
    let mut refusal = asked.as_ref().and_then(|asked| asked.as_ref().err()).cloned();
    if let Some(request) = request
        && !request.asks.iter().any(|(about, _)| which.contains(about))
    {
        refusal = Some(format!(
            "{ROTATE}: {:?}: the certificates of spec.kafka.external belong to its administrator: have them changed there, and take the annotation off",
            request.text
        ));
    }
    let mut doing = Vec::new();
    for which in which {
        let name = secret_of(*which, look.names);
        let Some(held) = look.wanted.get(&name) else { continue };
        let failed = |source| SecretError::new(look.names, &name, source);
        let mut authority = Authority::read(held).map_err(failed)?;
        // What cannot be read takes nothing back.
        let asked = match (&asked, request) {
            (None, _) => None,
            (Some(_), None) => Some(("", None)),
            (Some(_), Some(request)) => Some((request.text, request.of(*which))),
        };
        let seen =
            Seen { asked, delivered: delivered(look), rolled: look.rolled || *which == Which::Devices };
        let turn = turn(cycle, &mut authority, *which, look, &seen, &mut doing).map_err(failed)?;
        cycle.status.certificates.push(status(*which, &authority, turn.waits));
        if let Some(news) = turn.news {
            told.0.push(told_of(*which, news));
        }
        let data = authority.data();
        if data != *held {
            changed.insert(name, data);
        }
    }
    match refusal {
        // It takes a person.
        Some(refusal) => cycle.progressing(reasons::ROTATION_REFUSED, refusal),
        None if !doing.is_empty() => cycle.progressing(reasons::ROTATING, doing.join("; ")),
        None => {}
    }
    Ok((changed, told))
}

fn turn(
    cycle: &mut Cycle<IoTPlatform>,
    authority: &mut Authority,
    which: Which,
    look: &Look<'_>,
    seen: &Seen<'_>,
    says: &mut Vec<String>,
) -> Result<Turn, PkiError> {
    let now = moment(cycle.now());
    let pace = look.speed.pace(which);
    let title = title(which, look.names);
    let life = authority.life().clone();
    if cycle.paused() {
        let pending =
            seen.asked.is_some_and(|(text, ask)| ask.is_some() && life.answered.as_deref() != Some(text));
        if pending || life.step != Step::Steady {
            says.push(format!("{}: the rotation waits", name_of(which)));
        }
        return Ok(Turn { news: None, waits: Waits::Nothing, deferred: false });
    }
    if !look.stored.contains_key(&secret_of(which, look.names)) {
        // Made just now: of that, nothing newer can have been asked for.
        if let Some((text, Some(_))) = seen.asked {
            authority.answer(text);
        }
        return Ok(Turn { news: None, waits: Waits::Nothing, deferred: false });
    }
    let turn = authority.turn(&title, seen, &pace, now)?;
    let step = authority.life().step;
    let wait = match turn.waits {
        Waits::Inside(until) | Waits::Outside(until) => Wait::try_from(until - now).unwrap_or_default(),
        Waits::Nothing | Waits::Secrets | Waits::Brokers => SOON,
    };
    if step != Step::Steady || turn.news.is_some() {
        // What takes longer is come back to anyway.
        cycle.requeue_after(wait.min(cycle.context.options.resync).max(SOON));
    }
    if step != Step::Steady && !matches!(turn.waits, Waits::Outside(_)) {
        let mut message = format!("{}: {}; {}", name_of(which), doing(step), waiting(which, turn.waits));
        if let Some((text, _)) = seen.asked.filter(|_| turn.deferred) {
            message = format!("{message}; {ROTATE}: {text:?} comes after that");
        }
        says.push(message);
    }
    Ok(turn)
}

/// Whether all Secrets are stored as they should be, whatever others put in beside.
fn delivered(look: &Look<'_>) -> bool {
    look.wanted.iter().all(|(name, data)| {
        let stored = look.stored.get(name);
        stored.is_some_and(|stored| data.iter().all(|(key, text)| stored.get(key) == Some(text)))
    })
}

/// Whether each broker runs with the certificates of this fingerprint. Its start script waits until it sees them.
pub fn rolled(cluster: &Cluster, fingerprint: &str, pods: &[Pod]) -> bool {
    (0..cluster.brokers).all(|node| {
        let name = cluster.names.pod(node);
        pods.iter().any(|pod| {
            let conditions = pod.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
            let mut ready = conditions.filter(|one| one.type_ == "Ready" && one.status == "True");
            pod.name_any() == name
                && pod.metadata.deletion_timestamp.is_none()
                && pod.annotations().get(CERTIFICATES).is_some_and(|held| held == fingerprint)
                && ready.next().is_some()
        })
    })
}

fn secret_of(which: Which, names: &Names) -> String {
    match which {
        Which::Kafka => names.kafka_ca(),
        Which::Devices => names.device_ca(),
    }
}

fn title(which: Which, names: &Names) -> String {
    match which {
        Which::Kafka => format!("{} Kafka", names.platform),
        Which::Devices => format!("{} devices", names.platform),
    }
}

const fn name_of(which: Which) -> &'static str {
    match which {
        Which::Kafka => "Kafka's authority",
        Which::Devices => "the devices' authority",
    }
}

const fn doing(step: Step) -> &'static str {
    match step {
        Step::Steady => "nothing changes",
        Step::TrustBoth => "step 1 of 3: everybody learns to trust its successor too",
        Step::Replace => {
            "step 1 of 3: its key is lost, and everybody learns to trust the one in its place too"
        }
        Step::NewLeaves => "step 2 of 3: the successor signs, and everybody gets a new certificate",
        Step::DropOld => "step 3 of 3: everybody stops trusting the old one",
        Step::Renew => "everybody gets a new certificate",
    }
}

fn waiting(which: Which, waits: Waits) -> String {
    match (waits, which) {
        (Waits::Nothing, _) => "it begins".to_owned(),
        (Waits::Secrets, _) => "Secrets are being written".to_owned(),
        (Waits::Brokers, _) => "brokers restart one at a time".to_owned(),
        (Waits::Inside(until), _) => format!("pods have until {} to use their new files", text(until)),
        (Waits::Outside(until), Which::Kafka) => format!(
            "applications have until {} to use their new files; {ROTATE}: kafka-authority-next goes on at once",
            text(until)
        ),
        (Waits::Outside(until), Which::Devices) => format!(
            "devices have until {} to learn of it; {ROTATE}: devices-authority-next goes on at once",
            text(until)
        ),
    }
}

fn told_of(which: Which, news: News) -> (bool, &'static str, String) {
    let who = name_of(which);
    match news {
        News::Began(step) => (false, reasons::ROTATING, format!("{who}: {}", doing(step))),
        News::Ended(Step::Renew) => {
            (false, reasons::ROTATED, format!("{who}: everybody has a new certificate"))
        }
        News::Ended(_) => (false, reasons::ROTATED, format!("{who}: its successor has taken its place")),
        News::Nothing => (
            true,
            reasons::ROTATION_REFUSED,
            format!("{ROTATE}: {who} is not being rotated: there is no next step"),
        ),
    }
}

fn status(which: Which, authority: &Authority, waits: Waits) -> CertificateStatus {
    let life = authority.life();
    let step = life.step != Step::Steady;
    CertificateStatus {
        name: match which {
            Which::Kafka => CertificateName::KafkaAuthority,
            Which::Devices => CertificateName::DevicesAuthority,
        },
        expires: time(authority.expires()),
        step: if step { life.step.as_str().to_owned() } else { String::new() },
        since: life.since.map(time),
        waits_for: if step { waiting(which, waits) } else { String::new() },
    }
}

/// When the leaves that these Secrets hold expire.
pub fn leaves(names: &Names, secrets: &Existing) -> Vec<CertificateStatus> {
    let application = format!("{}-app-", names.platform);
    let mut first = BTreeMap::new();
    for (secret, data) in secrets {
        let name = match secret {
            name if *name == names.broker_tls() => CertificateName::Brokers,
            name if *name == names.operator_tls() => CertificateName::Operator,
            name if *name == names.gateway_tls() => CertificateName::Gateways,
            name if name.starts_with(&application) => CertificateName::Applications,
            _ => continue,
        };
        let held = data.iter().filter(|(key, _)| *key != CA_CRT).filter_map(|(_, pem)| expires(pem));
        for expires in held {
            let soonest = first.entry(name).or_insert(expires);
            *soonest = expires.min(*soonest);
        }
    }
    let status = |(name, expires)| CertificateStatus {
        name,
        expires: time(expires),
        step: String::new(),
        since: None,
        waits_for: String::new(),
    };
    first.into_iter().map(status).collect()
}

/// A time as Kubernetes writes it.
pub fn time(time: OffsetDateTime) -> Time {
    Time(Timestamp::from_second(time.unix_timestamp()).unwrap_or(Timestamp::MAX))
}

/// The time of a pass as certificates count it.
pub fn moment(now: Timestamp) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(now.as_nanosecond()).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_a_word_and_a_mark() {
        let asks = |text: &str, which| Request::parse(text).unwrap().of(which);
        assert_eq!(asks("kafka-authority/2026", Which::Kafka), Some(Ask::Successor));
        assert_eq!(asks("kafka-authority", Which::Devices), None);
        assert_eq!(asks(" certificates/a/b\n", Which::Devices), Some(Ask::Leaves));
        assert_eq!(asks("devices-authority-next/1", Which::Devices), Some(Ask::GoOn));
        assert_eq!(Request::parse(" certificates/1 ").unwrap().text, "certificates/1");
        let long = format!("certificates/{}", "x".repeat(200));
        for text in ["", "true", "kafka", "/1", "Certificates/1", &long] {
            let refusal = Request::parse(text).unwrap_err();
            assert!(refusal.contains("write kafka-authority, devices-authority, certificates"), "{refusal}");
            assert!(refusal.len() < 700, "{refusal}");
        }
    }
}

//! The certificates that a gateway's listeners show: looks at those that Secrets hold, keeps the one that the platform's
//! authority issues, and says how they are. IO: reads Secrets, and where the gateway can be met.

use super::issued::{self, Data, MAX_NODES, Seen};
use super::mover::own_pods;
use super::names;
use super::shown::{Age, Validity, judge};
use super::validate::{Gateway, Listener};
use crate::frame::driver::read;
use crate::frame::failure::{ReadError, api_status};
use crate::frame::{Applied, Class, Cycle, Failure};
use crate::kafka::hub::Key;
use crate::kafka::names::Names;
use crate::pki::parsed::validity;
use crate::pki::{Authority, PkiError, TLS_CRT};
use crate::platform::memory::Memory;
use crate::platform::secrets::data;
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use kube::ResourceExt as _;
use kube::api::ListParams;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::time::Duration;
use tidegate_crds::conditions::{ACCEPTED, CERTIFICATE_EXPIRING, READY, RECONCILING, RESOLVED_REFS, STALLED};
use tidegate_crds::gateway::{ExposeType, MAX_ENDPOINTS};
use tidegate_crds::{ProtocolGateway, State, reasons};
use time::OffsetDateTime;

/// How long the first certificate waits for the load balancer's address: pods are given a changed one only after a
/// minute, and devices that are told the address at once would not believe it until then.
const ADDRESS_WAIT: Duration = Duration::from_secs(10);

/// The names of all Secrets that a gateway's listeners depend on.
pub fn secrets(gateway: &Gateway) -> BTreeSet<String> {
    let own = gateway.listeners.iter().filter_map(|each| each.tls.as_ref()?.secret.clone());
    let mut all: BTreeSet<_> = own.collect();
    if gateway.issued().next().is_some() {
        all.extend([names::issued(gateway), authority_name(gateway)]);
    }
    all
}

fn authority_name(gateway: &Gateway) -> String {
    Names::new(&gateway.namespace, &gateway.platform, "").device_ca()
}

/// Why pods stay as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It will pass.
    Waits(&'static str, String),
    /// Somebody has to act.
    Stuck(&'static str, String),
}

/// The certificates of a gateway's listeners.
#[derive(Debug, Default)]
pub struct Certificates {
    /// The Secret with the issued one, where a listener shows it.
    pub issued: Option<Secret>,
    /// Why pods stay as they are: without a certificate a new one could not serve.
    pub hold: Option<Hold>,
    /// Whose certificate is how old: listeners, what is to be done when it expires, and when it does.
    dated: Vec<(String, String, Validity)>,
}

/// Looks at all of them. `applied`: the Services, as they are now.
pub async fn settle(
    cycle: &mut Cycle<ProtocolGateway>,
    gateway: &Gateway,
    known: &Memory<Data>,
    applied: &Applied,
) -> Result<Certificates, Failure> {
    let mut found = Certificates::default();
    let mut stuck = Vec::new();
    for (name, listeners) in by_secret(gateway) {
        let secret = read::<Secret>(&cycle.context, &gateway.namespace, name).await?;
        let field = fields(gateway, &listeners);
        match judge(secret.as_ref(), name) {
            Ok(validity) => {
                let advice = format!(
                    "{field}: put a newer certificate into Secret {name:?}; gateways take it up without a restart"
                );
                found.dated.push((listed(&listeners), advice, validity));
            }
            Err(error) => stuck.push((error.reason(), format!("{field}: {error}"))),
        }
    }
    if gateway.issued().next().is_some() {
        issue(cycle, gateway, known, applied, &mut found).await?;
    }
    if !stuck.is_empty() {
        let missing = stuck.iter().any(|(reason, _)| *reason == reasons::SECRET_NOT_FOUND);
        let reason = if missing { reasons::SECRET_NOT_FOUND } else { reasons::SECRET_UNUSABLE };
        let texts: Vec<_> = stuck.into_iter().map(|(_, text)| text).collect();
        let text = format!("{}. Pods stay as they are until then", texts.join("; "));
        found.hold = Some(Hold::Stuck(reason, text));
    }
    Ok(found)
}

/// The Secrets that people made, each with its listeners.
fn by_secret(gateway: &Gateway) -> BTreeMap<&str, Vec<&Listener>> {
    let mut all: BTreeMap<&str, Vec<&Listener>> = BTreeMap::new();
    for listener in &gateway.listeners {
        if let Some(name) = listener.tls.as_ref().and_then(|tls| tls.secret.as_deref()) {
            all.entry(name).or_default().push(listener);
        }
    }
    all
}

fn listed(listeners: &[&Listener]) -> String {
    listeners.iter().map(|each| each.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn fields(gateway: &Gateway, listeners: &[&Listener]) -> String {
    format!("spec.{}.listeners[{}].tls.secretRef", gateway.protocol.field(), listed(listeners))
}

/// Keeps the certificate that the platform's authority issues.
async fn issue(
    cycle: &mut Cycle<ProtocolGateway>,
    gateway: &Gateway,
    known: &Memory<Data>,
    applied: &Applied,
    found: &mut Certificates,
) -> Result<(), Failure> {
    let context = cycle.context.clone();
    let name = names::issued(gateway);
    let stored = read::<Secret>(&context, &gateway.namespace, &name).await?;
    let (key, uid) = place(cycle);
    // What was written last wins over what somebody made of it since; deleting it is how people ask for a new one.
    let held = stored.as_ref().map(|stored| known.recall(&key, &uid).unwrap_or_else(|| data(stored)));
    if stored.is_none()
        && let Some((text, wait)) = unaddressed(cycle, gateway, applied)
    {
        cycle.requeue_after(wait);
        found.hold = Some(Hold::Waits(reasons::LOAD_BALANCER_PENDING, text));
        return Ok(());
    }
    let now = now(cycle);
    let authority = read::<Secret>(&context, &gateway.namespace, &authority_name(gateway)).await?;
    let authority = authority.as_ref().map(|secret| Authority::read(&data(secret)));
    let renewed = match authority {
        Some(Ok(authority)) => {
            let seen = look(cycle, gateway, applied).await?;
            let names = issued::names(gateway, &seen, &context.options.cluster_domain);
            Some(
                issued::settle(gateway, held.as_ref(), names, &authority, now)
                    .map_err(|error| unmade(&error))?,
            )
        }
        // Its platform says what is wrong with it. What is there is good until then.
        None | Some(Err(_)) => held.map(|held| (held, None)),
    };
    let Some((data, why)) = renewed else {
        let text =
            format!("waiting for the platform's certificate authority in Secret {}", authority_name(gateway));
        found.hold = Some(Hold::Waits(reasons::PROGRESSING, text));
        return Ok(());
    };
    if let Some(why) = why.filter(|_| !cycle.paused()) {
        tracing::info!(secret = name, "made a certificate: {why}");
    }
    if let Some((from, until)) = data.get(TLS_CRT).and_then(|pem| validity(pem)) {
        let listeners: Vec<_> = gateway.issued().collect();
        let advice = format!(
            "delete Secret {name:?} to have a new one made, and see the operator's log for what keeps it from renewing the certificate by itself"
        );
        found.dated.push((listed(&listeners), advice, Validity { from, until }));
    }
    found.issued = Some(issued::secret(gateway, &data));
    Ok(())
}

/// Remembers the issued certificate after it was written.
pub fn remember(cycle: &Cycle<ProtocolGateway>, known: &Memory<Data>, certificates: &Certificates) {
    if let Some(secret) = certificates.issued.as_ref().filter(|_| !cycle.paused()) {
        let (key, uid) = place(cycle);
        known.keep(&key, &uid, data(secret), |_| true);
    }
}

fn place(cycle: &Cycle<ProtocolGateway>) -> (Key, String) {
    (Key::new(cycle.namespace(), cycle.name()), cycle.subject.uid().unwrap_or_default())
}

fn now(cycle: &Cycle<ProtocolGateway>) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(cycle.now().as_second()).unwrap_or_else(|_| OffsetDateTime::now_utc())
}

fn unmade(error: &PkiError) -> Failure {
    let message = match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    };
    Failure { class: Class::Blocked, reason: reasons::SECRET_BROKEN, condition: None, message }
}

/// What a new gateway's first certificate waits for, and for how long at most.
fn unaddressed(
    cycle: &Cycle<ProtocolGateway>,
    gateway: &Gateway,
    applied: &Applied,
) -> Option<(String, Duration)> {
    if gateway.expose.type_ != ExposeType::LoadBalancer || !gateway.expose.address.is_empty() {
        return None;
    }
    let made = cycle.subject.metadata.creation_timestamp.as_ref()?.0;
    let age = Duration::try_from(cycle.now().duration_since(made)).ok()?;
    let left = ADDRESS_WAIT.checked_sub(age).filter(|left| !left.is_zero())?;
    let bare = |service: &Service| {
        let status = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        status.and_then(|status| status.ingress.as_ref()).is_none_or(Vec::is_empty)
    };
    let name = applied.all::<Service>().find(bare)?.name_any();
    let seconds = ADDRESS_WAIT.as_secs();
    Some((
        format!(
            "waiting up to {seconds} s for the address of Service {name}, which its certificate shall name"
        ),
        left,
    ))
}

/// Looks where the gateway can be met.
async fn look(
    cycle: &mut Cycle<ProtocolGateway>,
    gateway: &Gateway,
    applied: &Applied,
) -> Result<Seen, ReadError> {
    let context = cycle.context.clone();
    let mut seen = Seen { services: applied.all().collect(), ..Seen::default() };
    if cycle.paused() {
        for name in names::services(gateway) {
            seen.services.extend(read::<Service>(&context, &gateway.namespace, &name).await?);
        }
    }
    if !gateway.attachments.is_empty() {
        let most = u32::try_from(MAX_ENDPOINTS).ok();
        seen.pods = own_pods(&context, gateway, most).await?;
        seen.pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    }
    if gateway.expose.type_ == ExposeType::NodePort {
        match context.cluster_api::<Node>().list(&ListParams::default().limit(MAX_NODES)).await {
            Ok(nodes) => seen.nodes = nodes.items,
            Err(error) if matches!(api_status(&error).map(|status| status.code), Some(401 | 403)) => {
                let text = "spec.expose.type: the operator may not see nodes (manifests/rbac/nodes.yaml), so the certificate that it issues names none: write tls.secretRef with one that does";
                cycle.set(ACCEPTED, State::True, reasons::ACCEPTED, text);
            }
            Err(source) => return Err(ReadError { what: "nodes".to_owned(), source }),
        }
    }
    Ok(seen)
}

impl Certificates {
    /// Says how they are, after everything else was said.
    pub fn say(&self, cycle: &mut Cycle<ProtocolGateway>) {
        self.say_dates(cycle);
        match &self.hold {
            Some(Hold::Waits(reason, text)) => {
                if !cycle.status.conditions.is_true(READY) {
                    cycle.ready(State::False, reason, text.as_str());
                }
                cycle.progressing(reason, text.as_str());
            }
            Some(Hold::Stuck(reason, text)) => stuck(cycle, reason, text),
            None => {
                let now = now(cycle);
                let bad = |age: Age| self.dated.iter().filter(move |(.., dates)| dates.age(now) == age);
                if let Some((_, advice, dates)) = bad(Age::Expired).next() {
                    let text = format!("{advice}: the one there was valid until {}", dates.end());
                    stuck(cycle, reasons::CERTIFICATE_EXPIRED, &text);
                } else if let Some((_, advice, dates)) = bad(Age::NotYet).next() {
                    let text = format!("{advice}: the one there is not valid before {}", dates.beginning());
                    stuck(cycle, reasons::CERTIFICATE_NOT_YET_VALID, &text);
                }
            }
        }
    }

    fn say_dates(&self, cycle: &mut Cycle<ProtocolGateway>) {
        let now = now(cycle);
        let next = self.dated.iter().filter_map(|(.., dates)| dates.next(now)).min();
        if let Some(wait) = next.and_then(|next| Duration::try_from(next - now).ok()) {
            // What is further away is seen by the resync.
            if wait < cycle.context.options.resync {
                cycle.requeue_after(wait);
            }
        }
        let Some(worst) = self.dated.iter().map(|(.., dates)| dates.age(now)).max() else {
            cycle.status.conditions.remove(CERTIFICATE_EXPIRING);
            return;
        };
        let (state, reason) = match worst {
            Age::Good | Age::NotYet => (State::False, reasons::CERTIFICATE_VALID),
            Age::Soon => (State::True, reasons::CERTIFICATE_EXPIRES_SOON),
            Age::Expired => (State::True, reasons::CERTIFICATE_EXPIRED),
        };
        let text = |(listeners, advice, dates): &(String, String, Validity)| match dates.age(now) {
            Age::Good | Age::NotYet => format!("{listeners}: until {}", dates.end()),
            Age::Soon | Age::Expired => format!("{listeners}: until {} ({advice})", dates.end()),
        };
        let message = self.dated.iter().map(text).collect::<Vec<_>>().join("; ");
        let before =
            cycle.subject.status.as_ref().and_then(|status| status.conditions.get(CERTIFICATE_EXPIRING));
        if worst == Age::Soon && before.is_none_or(|before| before.reason != reason) {
            cycle.note(true, reason, message.as_str());
        }
        cycle.set(CERTIFICATE_EXPIRING, state, reason, message);
    }
}

/// Somebody has to act; whether it serves meanwhile was said.
fn stuck(cycle: &mut Cycle<ProtocolGateway>, reason: &'static str, text: &str) {
    if !cycle.status.conditions.is_true(READY) {
        cycle.ready(State::False, reason, text);
    }
    let before = cycle.subject.status.as_ref().and_then(|status| status.conditions.get(RESOLVED_REFS));
    if before.is_none_or(|before| before.reason != reason) {
        cycle.note(true, reason, text);
    }
    cycle.set(RESOLVED_REFS, State::False, reason, text);
    cycle.set(RECONCILING, State::False, reason, "");
    cycle.set(STALLED, State::True, reason, text);
}

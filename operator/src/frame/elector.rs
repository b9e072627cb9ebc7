//! The Lease elector's IO: reads and writes one Lease, with every request bounded in time.

use super::failure::chain;
use super::lease::{Candidate, LEASE_DURATION, RENEW_DEADLINE, RETRY, Record, Step};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::time::{Duration, Instant};

/// No request of the elector takes longer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a try to lead failed.
#[derive(Debug, thiserror::Error)]
pub enum ElectionError {
    /// The API server did not do it.
    #[error("failed to {0} the Lease")]
    Request(&'static str, #[source] kube::Error),
    /// The API server did not answer in time.
    #[error("failed to {0} the Lease: no answer in 3 s")]
    Timeout(&'static str),
    /// Nobody may lead longer without renewing.
    #[error("failed to renew the Lease for {0:?}: another replica may lead now")]
    Expired(Duration),
    /// Somebody else has the Lease.
    #[error("failed to keep the Lease: {0} holds it")]
    Taken(String),
}

/// A candidate for the Lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    candidate: Candidate,
    current: Option<Lease>,
}

impl Elector {
    /// A candidate for the Lease `name` in `namespace`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            candidate: Candidate::new(identity),
            current: None,
        }
    }

    /// Waits until this replica leads. Calls `tick` after every try, with whether the API server answered.
    pub async fn campaign(&mut self, mut tick: impl FnMut(bool)) {
        loop {
            match self.attempt().await {
                Ok(true) => return tick(true),
                Ok(false) => tick(true),
                Err(error) => {
                    tracing::warn!(error = chain(&error), "cannot take part in the election");
                    tick(false);
                }
            }
            tokio::time::sleep(super::backoff::jitter(RETRY)).await;
        }
    }

    /// Keeps the Lease; returns only when it is lost, and then this replica must stop acting at once.
    pub async fn keep(&mut self, mut tick: impl FnMut(bool)) -> ElectionError {
        loop {
            let deadline = self.candidate.deadline().unwrap_or_else(now);
            let next = tokio::time::timeout_at(deadline.into(), async {
                tokio::time::sleep(RETRY).await;
                self.attempt().await
            });
            match next.await {
                Ok(Ok(true)) => tick(true),
                Ok(Ok(false)) => {
                    let holder = self.current.as_ref().and_then(holder).unwrap_or_default();
                    return ElectionError::Taken(holder);
                }
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "cannot renew leadership");
                    tick(false);
                }
                Err(_) => return ElectionError::Expired(RENEW_DEADLINE),
            }
            if !self.candidate.leads(now()) {
                return ElectionError::Expired(RENEW_DEADLINE);
            }
        }
    }

    /// Gives the Lease back, so that another replica leads at once. Best effort.
    pub async fn release(&mut self) {
        let Some(mut lease) = self.current.take() else { return };
        if holder(&lease).as_deref() != Some(self.candidate.identity()) {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        self.candidate.lost();
        match bounded("release", self.api.replace(&self.name, &PostParams::default(), &lease)).await {
            Ok(_) => tracing::info!("leadership given back"),
            Err(error) => {
                tracing::warn!(error = chain(&error), "leadership is not given back, it will expire");
            }
        }
    }

    /// One try to take or renew the Lease. Says whether this replica leads.
    pub async fn attempt(&mut self) -> Result<bool, ElectionError> {
        let lease = bounded("read", self.api.get_opt(&self.name)).await?;
        let step = self.candidate.decide(now(), lease.as_ref().map(record));
        self.current.clone_from(&lease);
        let began = now();
        let written = match (step, lease) {
            (Step::Wait, _) => {
                self.candidate.lost();
                return Ok(false);
            }
            (Step::Create, _) | (_, None) => {
                let lease = self.claim(None);
                bounded("create", self.api.create(&PostParams::default(), &lease)).await
            }
            (Step::Take | Step::Renew, Some(old)) => {
                // The resource version in it makes sure that nobody else wrote since.
                let lease = self.claim(Some(old));
                bounded("write", self.api.replace(&self.name, &PostParams::default(), &lease)).await
            }
        };
        match written {
            Ok(lease) => {
                self.candidate.renewed(began);
                self.current = Some(lease);
                Ok(true)
            }
            // Somebody wrote in between: the next try sees who.
            Err(ElectionError::Request(_, kube::Error::Api(status)))
                if status.code == 409 && step != Step::Renew =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn claim(&self, old: Option<Lease>) -> Lease {
        let written_at = MicroTime(Timestamp::now());
        let mut lease = old.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let before = lease.spec.take().unwrap_or_default();
        let same = before.holder_identity.as_deref() == Some(self.candidate.identity());
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.candidate.identity().to_owned()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: if same { before.acquire_time } else { Some(written_at.clone()) },
            renew_time: Some(written_at),
            lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!same)),
            ..LeaseSpec::default()
        });
        lease
    }
}

/// The clock that tests can move.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

fn holder(lease: &Lease) -> Option<String> {
    lease.spec.as_ref()?.holder_identity.clone()
}

fn record(lease: &Lease) -> Record {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    Record {
        holder: holder(lease).unwrap_or_default(),
        duration: seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(LEASE_DURATION, Duration::from_secs),
        version: lease.metadata.resource_version.clone().unwrap_or_default(),
    }
}

async fn bounded<T>(
    action: &'static str,
    request: impl Future<Output = kube::Result<T>>,
) -> Result<T, ElectionError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result.map_err(|source| ElectionError::Request(action, source)),
        Err(_) => Err(ElectionError::Timeout(action)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::testing::FakeServer;
    use http::Method;
    use serde_json::json;

    const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/tidegate-system/leases/tidegate-operator";

    fn elector(server: &FakeServer, identity: &str) -> Elector {
        Elector::new(server.client(), "tidegate-system", "tidegate-operator", identity)
    }

    fn holder_in(server: &FakeServer) -> String {
        server.get(LEASE).unwrap()["spec"]["holderIdentity"].as_str().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_replica_leads_and_the_second_takes_over_15_s_after_its_last_sign() {
        let server = FakeServer::default();
        let (mut a, mut b) = (elector(&server, "a"), elector(&server, "b"));
        a.campaign(|_| {}).await;
        assert_eq!(holder_in(&server), "a");
        let silent_since = now();
        b.campaign(|_| {}).await;
        assert_eq!(holder_in(&server), "b");
        let waited = now() - silent_since;
        assert!(waited >= LEASE_DURATION && waited < LEASE_DURATION + 2 * RETRY, "{waited:?}");
        assert_eq!(server.get(LEASE).unwrap()["spec"]["leaseTransitions"], 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_gives_the_lease_back_is_followed_at_once() {
        let server = FakeServer::default();
        let (mut a, mut b) = (elector(&server, "a"), elector(&server, "b"));
        a.campaign(|_| {}).await;
        assert!(!b.attempt().await.unwrap());
        a.release().await;
        assert!(b.attempt().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_for_10_s_must_stop() {
        let server = FakeServer::default();
        let mut a = elector(&server, "a");
        a.campaign(|_| {}).await;
        server.fail(Method::GET, LEASE, 500);
        let failing_since = now();
        assert!(matches!(a.keep(|_| {}).await, ElectionError::Expired(_)));
        let kept = now() - failing_since;
        assert!(kept <= RENEW_DEADLINE && kept + 2 * RETRY > RENEW_DEADLINE, "{kept:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_sees_another_holder_must_stop() {
        let server = FakeServer::default();
        let mut a = elector(&server, "a");
        a.campaign(|_| {}).await;
        let mut lease = server.get(LEASE).unwrap();
        lease["spec"]["holderIdentity"] = "b".into();
        server.put(LEASE, lease);
        assert!(matches!(a.keep(|_| {}).await, ElectionError::Taken(holder) if holder == "b"));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_that_take_the_lease_together_one_leads() {
        let server = FakeServer::default();
        let mut a = elector(&server, "a");
        server.put(
            LEASE,
            json!({"metadata": {"name": "tidegate-operator", "resourceVersion": "1"}, "spec": {}}),
        );
        server.fail(Method::PUT, LEASE, 409);
        assert!(!a.attempt().await.unwrap());
        server.heal();
        assert!(a.attempt().await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn the_loop_says_whether_the_api_server_answers() {
        let server = FakeServer::default();
        server.fail(Method::GET, LEASE, 503);
        let mut a = elector(&server, "a");
        let mut heard = Vec::new();
        let tries = a.campaign(|answered| {
            heard.push(answered);
            if heard.len() == 2 {
                server.heal();
            }
        });
        tries.await;
        assert_eq!(heard, [false, false, true]);
    }
}

//! One request: routed by warp filters, written to or read from Kafka through core. IO: through core and the body.

use crate::body::{self, Budget};
use crate::credentials::{Credentials, problem};
use crate::metrics::Metrics;
use crate::problem::Problem;
use crate::reply;
use crate::request::{self, Publish, Request};
use bytes::{Buf, Bytes};
use futures::Stream;
use http::{HeaderMap, Method, Response};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tidegate_contract::{Address, Route};
use tidegate_core::{
    Action, Admission, DeviceCertificate, HistoryError, HistoryRead, Metadata, PublishError, PublishHandle,
    Record, Services,
};
use tokio::time::{Instant, timeout_at};
use warp::Filter;
use warp::filters::BoxedFilter;

/// How long a write waits for room in the budgets before it is answered 503.
const ROOM: Duration = Duration::from_secs(2);
/// Bodies of all connections in memory, in bytes; never less than one of the largest.
const BODIES: usize = 64 << 20;

/// Who is at the other end of a connection, as far as that is known before a request.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub source: IpAddr,
    pub certificate: Option<DeviceCertificate>,
}

/// What every request needs.
#[derive(Clone)]
pub(crate) struct Context {
    services: Services,
    metrics: Metrics,
    budget: Budget,
}

impl Context {
    pub fn new(services: Services, metrics: Metrics) -> Self {
        let budget = Budget::new(BODIES.max(packet_bytes(&services)));
        Self { services, metrics, budget }
    }
}

fn packet_bytes(services: &Services) -> usize {
    usize::try_from(services.limits.limits().packet_bytes).unwrap_or(usize::MAX)
}

/// The routes: every path is an address.
pub(crate) fn routes(context: Context) -> BoxedFilter<(Response<Bytes>,)> {
    let query = warp::query::raw().map(Some).or(warp::any().map(|| None)).unify();
    warp::any()
        .map(move || context.clone())
        .and(warp::ext::get::<Peer>())
        .and(warp::method())
        .and(warp::path::full())
        .and(query)
        .and(warp::header::headers_cloned())
        .and(warp::body::stream())
        .then(answer)
        .boxed()
}

async fn answer(
    context: Context,
    peer: Peer,
    method: Method,
    path: warp::path::FullPath,
    query: Option<String>,
    headers: HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Response<Bytes> {
    let device = || context.admit(&peer, &headers);
    let result = async {
        match request::parse(&method, path.as_str(), query.as_deref(), &headers) {
            Ok(Request::Publish(publish)) => context.publish(&device().await?, publish, body).await,
            Ok(Request::Newest(address)) => context.newest(&device().await?, &address, &headers).await,
            Ok(Request::Desired(owner)) => desired(&device().await?, &owner, &headers),
            Ok(Request::Last(address, count)) => context.last(&device().await?, &address, count).await,
            // it says what every gateway can do, and nothing else
            Ok(Request::Options) => Ok(reply::options()),
            // who is not known does not learn what is wrong with the request either
            Err(problem) => device().await.and(Err(problem)),
        }
    };
    let result = result.await;
    result.unwrap_or_else(|problem| {
        context.metrics.problem(&problem);
        problem.response(matches!(method, Method::PUT | Method::POST))
    })
}

impl Context {
    /// Who sends the request. The device has its place while it is served: nothing is known of it in between.
    async fn admit(&self, peer: &Peer, headers: &HeaderMap) -> Result<Admission, Problem> {
        let credentials = Credentials::read(headers)?;
        let proof = Credentials::proof(credentials.as_ref(), peer.certificate.as_ref());
        self.services.access.admit(peer.source, proof, None).await.map_err(problem)
    }

    async fn publish(
        &self,
        device: &Admission,
        publish: Publish,
        body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    ) -> Result<Response<Bytes>, Problem> {
        let Publish { address, headers, content_length } = publish;
        let services = &self.services;
        device.check(Action::Publish, &address).map_err(|_| Problem::Denied)?;
        if let Some(wait) = device.wait() {
            return Err(Problem::TooFast { after_s: wait.as_secs() + 1 });
        }
        let routes = services.directory.routes();
        let route = routes.route(&address).ok_or(Problem::NoTopic)?;
        let limit = packet_bytes(services).min(route.max_message_bytes);
        if content_length.is_some_and(|length| length > limit as u64) {
            return Err(Problem::TooLarge { limit });
        }
        let body = body::collect(body, limit, &self.budget).await?;
        device.spend(body.bytes.len());
        let metadata = Metadata {
            device: device.principal().as_str().to_owned(),
            protocol: "http".into(),
            content_type: headers.content_type,
            time_ms: Some(headers.time_ms.unwrap_or_else(now_ms)),
            expiry_ms: headers.expiry_ms,
            response_address: headers.response_address.map(|address| address.to_string()),
            user: headers.user,
            ..Metadata::default()
        };
        let record = Record { address, payload: body.bytes.clone(), metadata };
        let mut handle = services.publisher.connection();
        hand_over(&mut handle, route, &record).await?;
        let mut completions = Vec::with_capacity(1);
        // Bounded by the publisher: a delivery report comes for every record that it took.
        handle.completed(&mut completions).await;
        match completions.pop().map(|completion| completion.result) {
            Some(Ok(place)) => Ok(reply::written(&place)),
            Some(Err(_)) | None => Err(Problem::Unknown),
        }
    }

    async fn newest(
        &self,
        device: &Admission,
        address: &Address,
        headers: &HeaderMap,
    ) -> Result<Response<Bytes>, Problem> {
        let read = self.read(device, address, 1).await?;
        match read.records.last() {
            Some(stored) if !reply::is_expired(stored, now_ms()) => Ok(reply::newest(stored, headers)),
            None if read.truncated => Err(Problem::NoRecordInBounds),
            _ => Err(Problem::NoRecord),
        }
    }

    async fn last(
        &self,
        device: &Admission,
        address: &Address,
        count: usize,
    ) -> Result<Response<Bytes>, Problem> {
        let read = self.read(device, address, count).await?;
        match (read.records.is_empty(), read.truncated) {
            (true, true) => Err(Problem::NoRecordInBounds),
            (true, false) => Err(Problem::NoRecord),
            _ => Ok(reply::lines(&read, now_ms())),
        }
    }

    async fn read(
        &self,
        device: &Admission,
        address: &Address,
        count: usize,
    ) -> Result<HistoryRead, Problem> {
        device.check(Action::Subscribe, address).map_err(|_| Problem::Denied)?;
        let services = &self.services;
        services.history.last(address, count).await.map_err(|error| match error {
            HistoryError::NoTopic => Problem::NoTopic,
            HistoryError::Busy => Problem::Busy,
            HistoryError::Unavailable => Problem::Unavailable,
        })
    }
}

/// Waits for nothing: the directory is in memory.
fn desired(device: &Admission, owner: &str, headers: &HeaderMap) -> Result<Response<Bytes>, Problem> {
    device.owns(owner).map_err(|_| Problem::Denied)?;
    let document = device.configuration().ok_or(Problem::NoConfiguration)?;
    Ok(reply::desired(&document, headers))
}

/// Hands the record to Kafka's client, waiting a little for room.
async fn hand_over(handle: &mut PublishHandle, route: &Arc<Route>, record: &Record) -> Result<(), Problem> {
    let end = Instant::now() + ROOM;
    loop {
        match handle.publish(route, record, 0) {
            Ok(()) => return Ok(()),
            Err(PublishError::TooLarge { bytes, limit }) => {
                let metadata = bytes.saturating_sub(record.payload.len());
                return Err(Problem::TooLarge { limit: limit.saturating_sub(metadata) });
            }
            Err(PublishError::Budget) => {
                let room = handle.room();
                timeout_at(end, room).await.map_err(|_| Problem::Busy)?;
                if Instant::now() >= end {
                    return Err(Problem::Busy);
                }
            }
            Err(PublishError::Failed | PublishError::Unavailable) => return Err(Problem::Unavailable),
        }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

//! What this protocol counts. Labels come from closed sets: methods, statuses and reasons of ours, never a path. No IO.

use crate::problem::Problem;
use http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MethodLabel {
    method: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The metrics of the HTTP server. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    seconds: Family<MethodLabel, Histogram>,
    problems: Family<ReasonLabel, Counter>,
    connections: Gauge,
    closed: Family<ReasonLabel, Counter>,
}

impl Metrics {
    /// Registers them; names get the registry's prefix.
    pub fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| {
                Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
            }),
            problems: Family::default(),
            connections: Gauge::default(),
            closed: Family::default(),
        };
        registry.register("http_requests", "Requests that were answered", metrics.requests.clone());
        registry.register(
            "http_request_seconds",
            "From a request's head to its answer",
            metrics.seconds.clone(),
        );
        registry.register(
            "http_problems",
            "Requests that were not served, by reason",
            metrics.problems.clone(),
        );
        registry.register("http_connections", "Open connections", metrics.connections.clone());
        registry.register(
            "http_connections_closed",
            "Connections that ended, by reason",
            metrics.closed.clone(),
        );
        metrics
    }

    /// A request was answered.
    pub fn answered(&self, method: &Method, status: StatusCode, took: Duration) {
        let method = name(method);
        self.requests.get_or_create(&RequestLabels { method, code: status.as_u16() }).inc();
        self.seconds.get_or_create(&MethodLabel { method }).observe(took.as_secs_f64());
    }

    /// A request was not served; a warning where the platform is to blame, not the device.
    pub fn problem(&self, problem: &Problem) {
        let reason = problem.reason();
        self.problems.get_or_create(&ReasonLabel { reason }).inc();
        if problem.status().is_server_error() {
            tracing::warn!(reason, "a request was not served");
        } else {
            tracing::debug!(reason, "a request was refused");
        }
    }

    /// A connection was accepted or refused.
    pub fn opened(&self) {
        self.connections.inc();
    }

    /// An accepted connection ended.
    pub fn closed(&self, reason: &'static str) {
        self.connections.dec();
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
        tracing::debug!(reason, "a connection ended");
    }

    /// A connection was refused before it was one.
    pub fn refused(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabel { reason }).inc();
        tracing::debug!(reason, "a connection was refused");
    }
}

fn name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::POST => "post",
        Method::OPTIONS => "options",
        _ => "other",
    }
}

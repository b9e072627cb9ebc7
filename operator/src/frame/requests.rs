//! Counts what the operator asks of the API server: a layer around the client's connection. Does no IO itself.

use super::metrics::Metrics;
use http::{Method, Request, Response};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower::{Layer, Service};

/// The layer.
#[derive(Clone, Debug)]
pub struct CountRequests(pub Arc<Metrics>);

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: Arc::clone(&self.0) }
    }
}

/// A connection whose requests are counted when they are answered.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B, R> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (verb, metrics) = (verb(&request), Arc::clone(&self.metrics));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.request(verb, answer.as_ref().map_or(0, |answer| answer.status().as_u16()));
            answer
        })
    }
}

/// The verb as `kubectl auth can-i` names it, as far as method and query tell; `get` is `list` as well.
fn verb<B>(request: &Request<B>) -> &'static str {
    let watch =
        || request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
    match *request.method() {
        Method::GET if watch() => "watch",
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_verb_and_answer() {
        let metrics = Arc::new(Metrics::default());
        let (service, mut server) = tower_test::mock::pair::<Request<()>, Response<()>>();
        let mut client = CountRequests(Arc::clone(&metrics)).layer(service);
        for (method, uri, code) in
            [("GET", "/api?watch=true&x=1", 200), ("PATCH", "/api", 409), ("PATCH", "/api", 409)]
        {
            std::future::poll_fn(|context| client.poll_ready(context)).await.unwrap();
            let request = Request::builder().method(method).uri(uri).body(()).unwrap();
            let answer = tokio::spawn(client.call(request));
            let (_, respond) = server.next_request().await.unwrap();
            respond.send_response(Response::builder().status(code).body(()).unwrap());
            answer.await.unwrap().unwrap();
        }
        let text = metrics.render();
        for line in [
            "tidegate_kubernetes_requests_total{verb=\"watch\",code=\"200\"} 1",
            "tidegate_kubernetes_requests_total{verb=\"patch\",code=\"409\"} 2",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}

//! The checks themselves: a device of an honest gateway passes, planted mistakes are found.
#![allow(clippy::unwrap_used)] // helpers of tests, too, end the test

use anyhow::Result;
use std::collections::VecDeque;
use std::sync::Arc;
use tidegate_contract::{Address, Route};
use tidegate_core::{Metadata, PublishHandle, Record, Services};
use tidegate_testkit::MemoryKafka;
use tidegate_testkit::compliance::{
    Answer, Device, acks_only_after_delivery, nothing_is_acknowledged_after_a_failure,
};

/// How a gateway answers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    /// After Kafka, and no more after a failure.
    Honest,
    /// At once.
    Hasty,
    /// After Kafka, each publish for itself.
    Forgetful,
}

struct Fake {
    services: Services,
    manners: Manners,
    handle: PublishHandle,
    /// One handle for each publish: what a forgetful gateway does.
    alone: VecDeque<PublishHandle>,
    hasty: VecDeque<Answer>,
}

impl Fake {
    fn new(kafka: &MemoryKafka, manners: Manners) -> Self {
        let services = kafka.services().unwrap();
        let handle = services.publisher.connection();
        Self { services, manners, handle, alone: VecDeque::new(), hasty: VecDeque::new() }
    }

    fn route(&self, address: &Address) -> Arc<Route> {
        Arc::clone(self.services.directory.routes().route(address).unwrap())
    }
}

impl Device for Fake {
    async fn publish(&mut self, address: &str, payload: &[u8]) -> Result<()> {
        let address = Address::parse(address)?;
        let route = self.route(&address);
        let record = Record { address, payload: payload.to_vec().into(), metadata: Metadata::default() };
        match self.manners {
            Manners::Forgetful => {
                let mut handle = self.services.publisher.connection();
                handle.publish(&route, &record, 0)?;
                self.alone.push_back(handle);
            }
            Manners::Honest | Manners::Hasty => self.handle.publish(&route, &record, 0)?,
        }
        if self.manners == Manners::Hasty {
            self.hasty.push_back(Answer::Acknowledged);
        }
        Ok(())
    }

    async fn answer(&mut self) -> Answer {
        if let Some(answer) = self.hasty.pop_front() {
            return answer;
        }
        let mut out = Vec::new();
        match self.alone.front_mut() {
            Some(handle) => handle.completed(&mut out).await,
            None => self.handle.completed(&mut out).await,
        }
        self.alone.pop_front();
        if out[0].result.is_ok() { Answer::Acknowledged } else { Answer::Unavailable }
    }
}

fn kafka() -> MemoryKafka {
    let kafka = MemoryKafka::new();
    kafka.topic("t", &["t/#"], 1);
    kafka
}

#[tokio::test(flavor = "multi_thread")]
async fn an_honest_gateway_passes() {
    let kafka = kafka();
    acks_only_after_delivery(&kafka, &mut Fake::new(&kafka, Manners::Honest), "t/a").await.unwrap();
    nothing_is_acknowledged_after_a_failure(&kafka, &mut Fake::new(&kafka, Manners::Honest), "t/a", 3)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_acknowledgement_is_found() {
    let kafka = kafka();
    let error =
        acks_only_after_delivery(&kafka, &mut Fake::new(&kafka, Manners::Hasty), "t/a").await.unwrap_err();
    assert_eq!(error.to_string(), "Acknowledged before Kafka confirmed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_after_a_failure_is_found() {
    let kafka = kafka();
    let mut device = Fake::new(&kafka, Manners::Forgetful);
    let error = nothing_is_acknowledged_after_a_failure(&kafka, &mut device, "t/a", 3).await.unwrap_err();
    assert_eq!(error.to_string(), "acknowledged after a failure");
}

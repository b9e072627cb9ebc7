//! The platform controller: what a pass over a platform does, whatever its Kafka is. IO against the API server; Kafka
//! is the sweep's.

use super::attached::Attached;
use super::memory::{Authority, Known, Memory};
use super::pool::{self, FINALIZER};
use super::validate::{Addresses, Kafka, validate};
use super::{external, managed, watch};
use crate::failover::Board;
use crate::finalizer;
use crate::frame::driver::Watches;
use crate::frame::{Cycle, Failure, Reconciler, Scope};
use crate::kafka::hub::{Hub, Key};
use crate::network::make;
use kube::ResourceExt as _;
use std::sync::Arc;
use tidegate_crds::conditions::ACCEPTED;
use tidegate_crds::{IoTPlatform, ProtocolGateway, State, Topic, reasons};

/// The platform controller.
pub struct PlatformController {
    hub: Arc<Hub>,
    managed: Memory<Known>,
    external: Memory<Authority>,
    failover: Arc<Board>,
    gateways: Attached,
    topics: Attached,
}

impl PlatformController {
    /// A controller that starts and stops sweeps in `hub`.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self {
            hub,
            managed: Memory::default(),
            external: Memory::default(),
            failover: Arc::default(),
            gateways: Attached::default(),
            topics: Attached::default(),
        }
    }

    /// A controller that says about failover what `board` does.
    #[must_use]
    pub fn with(mut self, board: &Arc<Board>) -> Self {
        self.failover = Arc::clone(board);
        self
    }
}

impl Reconciler for PlatformController {
    type Subject = IoTPlatform;

    const NAME: &'static str = "platform";

    fn watch(&self, controller: Watches<IoTPlatform>, scope: &Scope) -> Watches<IoTPlatform> {
        let platforms = controller.store();
        self.hub.add_platforms(platforms.clone());
        watch::watch(external::watch(controller, scope), scope)
            .reconcile_on(self.gateways.watch::<ProtocolGateway>(scope, platforms.clone()))
            .reconcile_on(self.topics.watch::<Topic>(scope, platforms))
            .reconcile_on(self.hub.platform_bell().listen())
            .reconcile_on(self.failover.bell().listen())
    }

    async fn reconcile(&self, cycle: &mut Cycle<IoTPlatform>) -> Result<(), Failure> {
        let (context, platform) = (Arc::clone(&cycle.context), Arc::clone(&cycle.subject));
        self.failover.say(cycle);
        let valid = validate(&platform, &context.options)?;
        cycle.status.effective = match &valid.kafka {
            Kafka::Managed(managed) => Some(managed::effective(managed, &platform)),
            Kafka::External(_) => None,
        };
        if !valid.unserved.is_empty() {
            let text =
                format!("this version of Tidegate does nothing yet about {}", valid.unserved.join(" and "));
            cycle.set(ACCEPTED, State::True, reasons::NOT_IMPLEMENTED, text);
        }
        let (namespace, name) = (cycle.namespace(), cycle.name());
        for notice in self.hub.take_own_notices(&Key::new(namespace.as_str(), name.as_str())) {
            cycle.note(notice.warning, notice.reason, notice.text);
        }
        match (self.gateways.count(&namespace, &name), self.topics.count(&namespace, &name)) {
            (Some(gateways), Some(topics)) => {
                cycle.status.gateways = Some(gateways);
                cycle.status.topics = Some(topics);
            }
            // The operator has only just started; where there is none, no event will tell.
            _ => cycle.look_again(),
        }

        // Kafka must not wait for addresses and networks.
        let pool = addresses(cycle, &valid.addresses).await;
        let networks = make::settle(cycle).await;
        match &valid.kafka {
            Kafka::Managed(managed) => managed::bring_up(&self.hub, &self.managed, cycle, managed).await?,
            Kafka::External(external) => {
                external::bring_up(&self.hub, &self.external, cycle, external).await?;
            }
        }
        pool.and(networks)
    }

    async fn finalize(&self, cycle: &mut Cycle<IoTPlatform>) -> Result<(), Failure> {
        let (context, platform) = (Arc::clone(&cycle.context), Arc::clone(&cycle.subject));
        if platform.finalizers().iter().any(|each| each == FINALIZER) {
            pool::remove(&context, &platform).await?;
            finalizer::set(&context, &*platform, FINALIZER, false).await?;
        }
        Ok(())
    }
}

async fn addresses(cycle: &Cycle<IoTPlatform>, addresses: &Addresses) -> Result<(), Failure> {
    let (context, platform) = (&cycle.context, &*cycle.subject);
    if cycle.paused() {
        return Ok(());
    }
    let makes = matches!(addresses, Addresses::Ranges(_));
    if !makes && platform.finalizers().iter().any(|each| each == FINALIZER) {
        pool::remove(context, platform).await?;
    }
    // The finalizer first: what is made outside the namespace must never be left behind.
    finalizer::set(context, platform, FINALIZER, makes).await?;
    Ok(pool::settle(context, platform, addresses).await?)
}

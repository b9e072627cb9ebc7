//! Starts every controller. One line each.

use crate::fleet::FleetController;
use crate::frame::{Context, driver};
use crate::gateway::GatewayController;
use crate::kafka::hub::Hub;
use crate::platform::PlatformController;
use crate::topic::TopicController;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Starts all controllers; they end after `shutdown`, each with the passes under way done.
pub fn start(context: &Arc<Context>, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut all = JoinSet::new();
    let hub = Hub::new(&context.metrics);
    let (platforms, topics) = (PlatformController::new(Arc::clone(&hub)), TopicController::new(hub));
    all.spawn(driver::run(Arc::new(platforms), Arc::clone(context), shutdown.clone()));
    all.spawn(driver::run(Arc::new(topics), Arc::clone(context), shutdown.clone()));
    all.spawn(driver::run(Arc::new(GatewayController), Arc::clone(context), shutdown.clone()));
    all.spawn(driver::run(Arc::new(FleetController), Arc::clone(context), shutdown.clone()));
    all
}

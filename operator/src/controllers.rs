//! Starts every controller. One line each.

use crate::failover::Board;
use crate::fleet::FleetController;
use crate::frame::secrets::Secrets;
use crate::frame::{Context, driver};
use crate::gateway::GatewayController;
use crate::kafka::hub::Hub;
use crate::platform::{PlatformController, expiry};
use crate::topic::TopicController;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Starts all controllers, which say about failover what `board` does; they end after `shutdown`, each with the passes under way done.
pub fn start(context: &Arc<Context>, board: &Arc<Board>, shutdown: &CancellationToken) -> JoinSet<()> {
    let mut all = JoinSet::new();
    let hub = Hub::new(&context.metrics);
    expiry::register(&hub, &context.metrics);
    // Before any sweep begins: it waits for the watches of fleets.
    let secrets = Arc::<Secrets>::default();
    let gateways = GatewayController::new(Arc::clone(&secrets));
    let fleets = FleetController::new(Arc::clone(&hub), secrets, context.scopes().len());
    let (platforms, topics) =
        (PlatformController::new(Arc::clone(&hub)).with(board), TopicController::new(hub));
    all.spawn(driver::run(Arc::new(platforms), Arc::clone(context), shutdown.clone()));
    all.spawn(driver::run(Arc::new(topics), Arc::clone(context), shutdown.clone()));
    all.spawn(driver::run(Arc::new(gateways), Arc::clone(context), shutdown.clone()));
    all.spawn(driver::run(Arc::new(fleets), Arc::clone(context), shutdown.clone()));
    all
}

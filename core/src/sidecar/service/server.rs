//! Serves everything on the socket, with health and reflection.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use super::super::node::Node;
use super::super::peer::connections;
use super::Services;
use crate::error::{Error, Result};
use crate::proto::{DESCRIPTORS, v1};

/// Listings and dataset specs.
const MESSAGE_LIMIT: usize = 64 << 20;
/// After a stop, how long answers under way may take; session streams would stay open for ever.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// What `--wait-ready` asks about: serving once the coordinator is reached too.
pub(in super::super) const READY: &str = "strata.v1.Sidecar";

/// Returns after the stop.
pub(in super::super) async fn serve(node: Arc<Node>, listener: UnixListener) -> Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    node.spawn(tell_health(node.clone(), health));
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let bad = |error| Error::internal(format!("serving reflection: {error}"));
    let services = Services { node: node.clone() };
    let (stop, cut) = (node.stop.clone(), CancellationToken::new());
    let _cut = cut.clone().drop_guard();
    let dataset = v1::dataset_server::DatasetServer::new(services.clone());
    let sidecar = v1::sidecar_server::SidecarServer::new(services.clone());
    let serving = Server::builder()
        .add_service(health_service)
        .add_service(reflect().build_v1().map_err(bad)?)
        .add_service(reflect().build_v1alpha().map_err(bad)?)
        .add_service(sidecar.max_decoding_message_size(MESSAGE_LIMIT))
        .add_service(v1::checkpoint_server::CheckpointServer::new(services.clone()))
        .add_service(dataset.max_decoding_message_size(MESSAGE_LIMIT))
        .add_service(v1::admin_server::AdminServer::new(services))
        .serve_with_incoming_shutdown(
            connections(listener, node.settings.death_proof, cut.clone()),
            stop.clone().cancelled_owned(),
        );
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    let done = tokio::select! {
        done = serving => done,
        () = patience => Ok(()),
    };
    done.map_err(|error| Error::unavailable(format!("serving the socket: {error}")))
}

async fn tell_health(node: Arc<Node>, health: HealthReporter) {
    let mut known = None;
    loop {
        let ready = node
            .wait(|state| {
                let ready = state.line.attached && !state.draining;
                (known != Some(ready)).then_some(ready)
            })
            .await;
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(READY, status).await;
        known = Some(ready);
    }
}

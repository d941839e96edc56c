//! Binds the address and serves everything on it: the services, health, reflection, with TLS where it is set.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};

use super::Services;
use crate::coordinator::set::Doors;
use crate::coordinator::settings::{CoordinatorSettings, TlsFiles};
use crate::error::{Doing, Error, Result};
use crate::proto::{DESCRIPTORS, v1};
use crate::transport::{authorities, identity};

/// Registrations carry what the store holds: thousands of steps with their metrics.
const MESSAGE_LIMIT: usize = 64 << 20;

/// After a stop, how long answers under way may take; lines of sidecars and idle clients would stay open for ever.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Calls of one connection that are under way. Each waits for its answer, so this bounds what callers that ask faster than the disk
/// writes can fill; more than these wait at the caller.
const OPEN_CALLS: u32 = 1024;

/// Connections that wait to be accepted: all sidecars of a cluster may come at once, and who finds no room tries again after
/// whole seconds, or is reset. The kernel makes it `net.core.somaxconn` where that is less.
const BACKLOG: u32 = 16 << 10;

/// Fails with Conflict naming a taken port, with Denied for an open door (P11).
pub async fn listen(settings: &CoordinatorSettings) -> Result<(TcpListener, SocketAddr)> {
    settings.check()?;
    let listener = bind(settings.listen).map_err(|error| {
        let doing = format!("listening on {}", settings.listen);
        match error.kind() {
            std::io::ErrorKind::AddrInUse => Error::conflict(format!("{doing}: the port is taken"))
                .hint("stop what listens there, or give --port 0 to take a free one"),
            _ => Error::io(doing, &error),
        }
    })?;
    let address = listener.local_addr().doing(|| "reading the address that was bound")?;
    Ok((listener, address))
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // So that a restart finds its port free.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn tls(files: &TlsFiles) -> Result<ServerTlsConfig> {
    let config = ServerTlsConfig::new().identity(identity(&files.cert, &files.key)?);
    Ok(match &files.client_ca {
        Some(authority) => config.client_ca_root(authorities(authority)?),
        None => config,
    })
}

/// Serves until `stop`; open streams are cut then.
pub async fn serve(
    services: Services,
    doors: Option<Doors>,
    settings: &CoordinatorSettings,
    listener: TcpListener,
    stop: CancellationToken,
) -> Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<v1::coordinator_server::CoordinatorServer<Services>>().await;
    health.set_serving::<v1::checkpoint_server::CheckpointServer<Services>>().await;
    health.set_serving::<v1::dataset_server::DatasetServer<Services>>().await;
    health.set_serving::<v1::admin_server::AdminServer<Services>>().await;
    health.set_serving::<v1::rendezvous_server::RendezvousServer<Services>>().await;
    let reflect = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let bad = |error| Error::internal(format!("serving reflection: {error}"));
    let mut server = Server::builder().max_concurrent_streams(OPEN_CALLS);
    if let Some(files) = &settings.tls {
        server = server.tls_config(tls(files)?).map_err(|error| {
            Error::invalid(format!("setting up TLS with {}: {error}", files.cert.display()))
                .hint("certificate and key must be PEM files that belong together")
        })?;
    }
    // Without it a reply waits for the peer's delayed acknowledgement, up to 40 ms. The builder's own setting does not
    // reach connections of a listener that is given to it.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let coordinator = v1::coordinator_server::CoordinatorServer::new(services.clone());
    let serving = server
        .add_service(health_service)
        .add_service(reflect().build_v1().map_err(bad)?)
        .add_service(reflect().build_v1alpha().map_err(bad)?)
        .add_service(coordinator.max_decoding_message_size(MESSAGE_LIMIT))
        .add_service(v1::checkpoint_server::CheckpointServer::new(services.clone()))
        .add_service(
            v1::dataset_server::DatasetServer::new(services.clone()).max_decoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(v1::rendezvous_server::RendezvousServer::new(services.clone()))
        .add_service(v1::admin_server::AdminServer::new(services))
        .add_optional_service(doors.map(Doors::service))
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_ANSWERS).await;
    };
    let done = tokio::select! {
        done = serving => done,
        () = patience => Ok(()),
    };
    done.map_err(|error| Error::unavailable(format!("serving gRPC: {error}")))
}

//! `strata coordinator`: the cluster's coordinator with its HTTP face, as one process.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::reload::{self, Parts};
use super::{RoleOptions, announce, runtime, settings, stop, warn_of_open_doors};
use crate::admin::{self, AdminSource, Check};
use crate::clock::MachineClock;
use crate::config::{Endpoint, Loaded, locate};
use crate::coordinator::{Coordinator, Standing};
use crate::error::{Doing, Result};
use crate::proto::v1;
use crate::telemetry::{Metrics, log};

/// Runs until SIGTERM or SIGINT; returns the exit code 0 once the log is closed. Prints at most six lines once it serves.
///
/// Fails with Invalid for a configuration that can't work, with Conflict for a taken port or state directory, with
/// Denied for an address beyond loopback without TLS or `insecure` (P11).
pub fn coordinator(options: &RoleOptions) -> Result<u8> {
    let loaded = Loaded::load(&options.env, options.config.as_deref(), &options.flags)?;
    log::start(&loaded.log())?;
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        stop::on_signal(stop.clone())?;
        let running = Running::start(&loaded, options, stop).await?;
        let peers = loaded.config.coordinator.peers.clone();
        reload::on_hangup(loaded, options.clone(), running.coordinator.clone(), Parts::Coordinator)?;
        announce(&[
            ("gRPC", running.endpoint.grpc.clone()),
            ("HTTP", running.endpoint.http.clone()),
            ("state", running.home.display().to_string()),
            (
                "next:",
                format!(
                    "STRATA_COORDINATOR={} strata sidecar",
                    peers.unwrap_or_else(|| running.seen_by_others())
                ),
            ),
        ]);
        running.ended().await?;
        Ok(0)
    })
}

/// The coordinator and its HTTP face, announced in endpoint.json.
struct Running {
    coordinator: Arc<Coordinator>,
    endpoint: Endpoint,
    home: std::path::PathBuf,
}

impl Running {
    async fn start(loaded: &Loaded, options: &RoleOptions, stop: CancellationToken) -> Result<Running> {
        let home = locate::home(&options.env)?;
        std::fs::create_dir_all(&home).doing(|| format!("making the state directory {}", home.display()))?;
        let metrics = Metrics::new();
        let wanted = settings::coordinator(&loaded.config, options, home.clone())?;
        warn_of_open_doors(&settings::open_doors(&loaded.config));
        let grpc_scheme = if wanted.tls.is_some() { "https" } else { "http" };
        let started =
            Coordinator::start(wanted, MachineClock::shared(), metrics.clone(), stop.clone()).await?;
        let coordinator = Arc::new(started);
        let source = Arc::new(Source(coordinator.clone()));
        let http = match admin::serve(&settings::admin(&loaded.config), source, metrics, stop.clone()).await {
            Ok(http) => http,
            Err(error) => {
                stop.cancel();
                coordinator.stopped().await?;
                return Err(error);
            }
        };
        let grpc = format!("{grpc_scheme}://{}", coordinator.grpc_addr());
        let endpoint = Endpoint::of("coordinator", grpc, format!("http://{}", http.addr), None);
        endpoint.write(&home)?;
        Ok(Running { coordinator, endpoint, home })
    }

    /// Where a sidecar reaches it: an address that stands for all of this machine's means each machine itself.
    fn seen_by_others(&self) -> String {
        let addr = self.coordinator.grpc_addr();
        match addr.ip().is_unspecified() {
            true => self
                .endpoint
                .grpc
                .replace(&addr.to_string(), &format!("{}:{}", locate::host_name(), addr.port())),
            false => self.endpoint.grpc.clone(),
        }
    }

    async fn ended(self) -> Result<()> {
        let ended = self.coordinator.stopped().await;
        self.endpoint.remove(&self.home)?;
        ended
    }
}

struct Source(Arc<Coordinator>);

impl AdminSource for Source {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let standing = self.0.standing();
            let note = match &standing {
                Some(Standing::Leads) => Some("it leads its set".to_owned()),
                // It does its part: a balancer that asks for the leader asks its status.
                Some(Standing::Follows(leader)) => Some(format!("it follows {leader}")),
                _ => None,
            };
            let problem = match standing {
                Some(Standing::Follows(_)) => None,
                _ => self.0.serves().await.err().map(|error| error.message),
            };
            vec![Check { name: "coordinator serves", problem, note }]
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<v1::Status>> {
        Box::pin(self.0.status())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, Flag};
    use crate::error::Kind;

    fn options(home: &std::path::Path, flags: &[Flag]) -> (RoleOptions, Loaded) {
        let place = home.display().to_string();
        let env = Environment::of([("STRATA_HOME", place.as_str()), ("XDG_CONFIG_HOME", place.as_str())]);
        let mut all = vec![
            Flag::new("--port", "coordinator.listen", ":0"),
            Flag::new("--http-port", "coordinator.http", ":0"),
        ];
        all.extend(flags.iter().cloned());
        let loaded = Loaded::load(&env, None, &all).unwrap();
        (RoleOptions { env, config: None, flags: all, hooks_runner: vec![] }, loaded)
    }

    #[tokio::test]
    async fn coordinator_announces_the_addresses_it_serves_and_takes_them_back_at_the_end() {
        let home = tempfile::tempdir().unwrap();
        let (options, loaded) = options(home.path(), &[]);
        let stop = CancellationToken::new();
        let running = Running::start(&loaded, &options, stop.clone()).await.unwrap();
        let found = Endpoint::read(home.path()).unwrap().unwrap();
        assert_eq!(found.pid, std::process::id());
        let mut client =
            v1::admin_client::AdminClient::connect(locate::coordinator(&options.env, None).unwrap())
                .await
                .unwrap();
        let status = client.get_status(v1::GetStatusRequest::default()).await.unwrap().into_inner();
        assert_eq!(status.role, "coordinator");
        let ready = ask_ready(&found.http).await;
        assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
        drop(client);
        stop.cancel();
        running.ended().await.unwrap();
        assert_eq!(Endpoint::read(home.path()).unwrap(), None);
    }

    #[tokio::test]
    async fn sidecar_elsewhere_is_told_this_machines_name_where_all_addresses_are_served() {
        let home = tempfile::tempdir().unwrap();
        let all = Flag::new("--listen", "coordinator.listen", "0.0.0.0:0");
        let (options, loaded) =
            options(home.path(), &[all, Flag::new("--insecure", "coordinator.insecure", "true")]);
        let stop = CancellationToken::new();
        let running = Running::start(&loaded, &options, stop.clone()).await.unwrap();
        let port = running.coordinator.grpc_addr().port();
        assert_eq!(running.seen_by_others(), format!("http://{}:{port}", locate::host_name()));
        stop.cancel();
        running.ended().await.unwrap();
    }

    async fn ask_ready(http: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let address = http.trim_start_matches("http://");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn open_door_and_half_a_tls_pair_are_refused_before_anything_listens() {
        let home = tempfile::tempdir().unwrap();
        let open = Flag::new("--listen", "coordinator.listen", "0.0.0.0:0");
        let half = Flag::new("--tls-cert", "coordinator.tls_cert", "/nowhere.pem");
        for (flag, kind) in [(open, Kind::Denied), (half, Kind::Invalid)] {
            let (options, loaded) = options(home.path(), &[flag]);
            let error = Running::start(&loaded, &options, CancellationToken::new()).await.err().unwrap();
            assert_eq!(error.kind, kind, "{}", error.message);
            assert_eq!(Endpoint::read(home.path()).unwrap(), None);
        }
    }

    #[tokio::test]
    async fn taken_http_port_is_named_and_gives_the_state_directory_back() {
        let home = tempfile::tempdir().unwrap();
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let taken = Flag::new("--http-port", "coordinator.http", format!(":{port}"));
        let (wrong, loaded) = options(home.path(), &[taken]);
        let error = Running::start(&loaded, &wrong, CancellationToken::new()).await.err().unwrap();
        assert_eq!(error.kind, Kind::Conflict);
        assert!(error.message.contains(&port.to_string()), "{}", error.message);
        let (right, loaded) = options(home.path(), &[]);
        let stop = CancellationToken::new();
        let running = Running::start(&loaded, &right, stop.clone()).await.unwrap();
        stop.cancel();
        running.ended().await.unwrap();
    }
}

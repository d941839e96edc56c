//! `strata up`: coordinator and sidecar in one process. Also the private one of a trainer that found none
//! (`connect(local=True)`), which ends by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::reload::{self, Parts};
use super::sidecar::{FIRST_TRAINER, Source as SidecarSource, free_port};
use super::{RoleOptions, announce, cluster, runtime, settings, sidecar, stop, warn_of_open_doors};
use crate::admin::{self, AdminSource, Check};
use crate::clock::MachineClock;
use crate::config::{Endpoint, Loaded, locate};
use crate::coordinator::{Coordinator, CoordinatorSettings};
use crate::error::{Doing, Error, Result};
use crate::ids::JobName;
use crate::proto::v1;
use crate::sidecar::{Sidecar, SidecarSettings};
use crate::telemetry::{Metrics, log};

/// Runs until SIGTERM or SIGINT, then as [`super::sidecar`] and [`super::coordinator`] end; the exit code. Prints at
/// most six lines once it serves. With `private` it serves that job's trainers alone, in places of its own, on free
/// ports, and ends when its last trainer is gone and nothing is Sealed.
pub fn up(options: &RoleOptions, private: Option<&JobName>) -> Result<u8> {
    let loaded = Loaded::load(&options.env, options.config.as_deref(), &options.flags)?;
    log::start(&loaded.log())?;
    runtime()?.block_on(async {
        let asked = CancellationToken::new();
        stop::on_signal(asked.clone())?;
        let both = Both::start(&loaded, options, private).await?;
        reload::on_hangup(loaded.clone(), options.clone(), both.coordinator.clone(), Parts::Both)?;
        announce(&[
            ("gRPC", both.endpoint.grpc.clone()),
            ("HTTP", both.endpoint.http.clone()),
            ("socket", both.sidecar.socket().display().to_string()),
            ("state", both.home.display().to_string()),
            ("next:", "strata run --nproc-per-node 2 -- python train.py".to_owned()),
        ]);
        tokio::select! {
            () = asked.cancelled() => {}
            () = both.deserted(loaded.config.sidecar.commit_timeout), if private.is_some() => {}
            ended = both.sidecar.stopped() => ended?,
            ended = both.coordinator.stopped() => ended?,
        }
        both.end(loaded.config.sidecar.drain_timeout).await
    })
}

/// Whether targets still get something.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

struct Both {
    coordinator: Arc<Coordinator>,
    sidecar: Arc<Sidecar>,
    /// The sidecar ends first: what it holds needs the coordinator.
    stop_sidecar: CancellationToken,
    stop_coordinator: CancellationToken,
    endpoint: Endpoint,
    home: PathBuf,
}

impl Both {
    async fn start(loaded: &Loaded, options: &RoleOptions, private: Option<&JobName>) -> Result<Both> {
        let user_home = locate::home(&options.env)?;
        let (mut wanted, mut own) = (
            settings::coordinator(&loaded.config, options, user_home.clone())?,
            settings::sidecar(&loaded.config, options)?,
        );
        match private {
            Some(job) => withdraw(options, job, &mut wanted, &mut own)?,
            None if wanted.set.is_some() => {
                return Err(Error::invalid("starting coordinator and sidecar as one process: peers is set")
                    .hint(
                        "run `strata coordinator` for each of the set, and `strata sidecar` on each node",
                    ));
            }
            None => warn_of_open_doors(&settings::open_doors(&loaded.config)),
        }
        let home = wanted.home.clone();
        for folder in [&user_home, &home] {
            std::fs::create_dir_all(folder)
                .doing(|| format!("making the state directory {}", folder.display()))?;
        }
        wanted.cluster = Some(cluster::of(&user_home)?);
        own.store.get_or_insert_with(|| locate::default_store(&user_home).display().to_string());
        if let Some(tls) = &wanted.tls {
            // Its own coordinator's certificate needs no other authority.
            own.coordinator.ca.get_or_insert_with(|| tls.cert.clone());
        }
        let scheme = if wanted.tls.is_some() { "https" } else { "http" };
        let (metrics, clock) = (Metrics::new(), MachineClock::shared());
        let (stop_sidecar, stop_coordinator) = (CancellationToken::new(), CancellationToken::new());
        let coordinator =
            Coordinator::start(wanted, clock.clone(), metrics.clone(), stop_coordinator.clone()).await?;
        let coordinator = Arc::new(coordinator);
        let grpc = format!("{scheme}://{}", coordinator.grpc_addr());
        own.coordinator.url = format!("{scheme}://{}", reachable(coordinator.grpc_addr()));
        let rest = async {
            let sidecar = Sidecar::start(own, clock, metrics.clone(), stop_sidecar.clone()).await?;
            let sidecar = Arc::new(sidecar);
            let source = Source { coordinator: coordinator.clone(), sidecar: SidecarSource(sidecar.clone()) };
            let mut listen = settings::admin(&loaded.config);
            if private.is_some() {
                listen.listen = free_port();
            }
            let served = admin::serve(&listen, Arc::new(source), metrics, stop_sidecar.clone()).await;
            if served.is_err() {
                stop_sidecar.cancel();
                sidecar.stopped().await?;
            }
            Ok((sidecar, served?))
        };
        let (sidecar, http) = match rest.await {
            Ok(rest) => rest,
            Err(error) => {
                stop_coordinator.cancel();
                coordinator.stopped().await?;
                return Err(error);
            }
        };
        let socket = Some(sidecar.socket().to_owned());
        let endpoint = Endpoint::of("up", grpc, format!("http://{}", http.addr), socket);
        endpoint.write(&home)?;
        Ok(Both { coordinator, sidecar, stop_sidecar, stop_coordinator, endpoint, home })
    }

    /// A private one's end: its last trainer is gone, nothing is Sealed, and further targets have what they are to get,
    /// fail, or take nothing for as long as `patience`: what they lack then they get when the job runs again.
    async fn deserted(&self, patience: Duration) {
        let mut first = FIRST_TRAINER;
        let (mut seen, mut moved) = (None, Instant::now());
        loop {
            self.sidecar.deserted(first).await;
            let Ok(status) = self.coordinator.status().await else { return };
            let now = Some((self.sidecar.copied(), progress(&status)));
            if now != seen {
                (seen, moved) = (now, Instant::now());
            }
            if !is_copying(&status) || moved.elapsed() >= patience {
                return lacking(&status).iter().for_each(|left| tracing::warn!("{left}"));
            }
            first = Duration::ZERO;
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn end(self, limit: Duration) -> Result<u8> {
        let ended = sidecar::end(&self.sidecar, &self.stop_sidecar, limit).await;
        self.stop_coordinator.cancel();
        let stopped = self.coordinator.stopped().await;
        self.endpoint.remove(&self.home)?;
        stopped?;
        ended
    }
}

/// What changes when a target was listed, got something or gave something up.
fn progress(status: &v1::Status) -> Vec<(bool, u32, u32, Option<u64>)> {
    let targets = status.jobs.iter().flat_map(|job| &job.targets);
    targets.map(|target| (target.known, target.steps, target.behind, target.copying)).collect()
}

/// What is left for the job's next run, target by target.
fn lacking(status: &v1::Status) -> Vec<String> {
    let mut left = Vec::new();
    for job in &status.jobs {
        for target in job.targets.iter().filter(|target| !target.known || target.behind > 0) {
            let what = match (target.known, target.copying) {
                (false, _) => "could not be listed, and got nothing".to_owned(),
                (true, None) => format!("lacks {} steps", target.behind),
                (true, Some(step)) => format!("lacks {} steps; step {step} was being copied", target.behind),
            };
            let why = if target.problem.is_empty() { "it takes nothing" } else { &target.problem };
            left.push(format!(
                "job {}: target {} {what} ({why}): the next run of the job brings it there",
                job.job, target.name
            ));
        }
    }
    left
}

fn is_copying(status: &v1::Status) -> bool {
    let mut targets = status.jobs.iter().flat_map(|job| &job.targets);
    targets.any(|target| target.problem.is_empty() && (!target.known || target.behind > 0))
}

/// Into the private places of a job, on free ports of loopback.
fn withdraw(
    options: &RoleOptions,
    job: &JobName,
    coordinator: &mut CoordinatorSettings,
    own: &mut SidecarSettings,
) -> Result<()> {
    sidecar::withdraw(options, job, own)?;
    coordinator.home = locate::private(&options.env, job)?.home;
    coordinator.listen = free_port();
    (coordinator.tls, coordinator.insecure, coordinator.set) = (None, false, None);
    (own.coordinator.ca, own.coordinator.identity) = (None, None);
    Ok(())
}

/// Where this process reaches what it listens on itself.
fn reachable(bound: SocketAddr) -> SocketAddr {
    if bound.ip().is_unspecified() { SocketAddr::from((Ipv4Addr::LOCALHOST, bound.port())) } else { bound }
}

struct Source {
    coordinator: Arc<Coordinator>,
    sidecar: SidecarSource,
}

impl AdminSource for Source {
    fn checks(&self) -> BoxFuture<'_, Vec<Check>> {
        Box::pin(async {
            let problem = self.coordinator.serves().await.err().map(|error| error.message);
            let mut checks = vec![Check { name: "coordinator serves", problem, note: None }];
            checks.extend(self.sidecar.checks().await);
            checks
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<v1::Status>> {
        Box::pin(async {
            let status = self.coordinator.status().await?;
            Ok(v1::Status { role: "up".to_owned(), ..status })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ConnectOptions, Session, Uninterrupted};
    use crate::config::{Environment, Flag};
    use crate::ids::{Rank, WorldSize};
    use crate::roles::wait_ready;

    struct Places {
        home: tempfile::TempDir,
        memory: tempfile::TempDir,
    }

    impl Places {
        fn new() -> Places {
            Places { home: tempfile::tempdir().unwrap(), memory: tempfile::tempdir_in("/dev/shm").unwrap() }
        }

        fn options(&self) -> (RoleOptions, Loaded) {
            let (home, memory) = (self.home.path().display(), self.memory.path().display());
            let (home, arenas, run) = (format!("{home}"), format!("{memory}/arenas"), format!("{home}/run"));
            let env = Environment::of([
                ("STRATA_HOME", home.as_str()),
                ("XDG_CONFIG_HOME", home.as_str()),
                ("XDG_RUNTIME_DIR", run.as_str()),
                ("STRATA_ARENA_DIR", arenas.as_str()),
            ]);
            let flags = vec![
                Flag::new("--port", "coordinator.listen", ":0"),
                Flag::new("--http-port", "coordinator.http", ":0"),
            ];
            let loaded = Loaded::load(&env, None, &flags).unwrap();
            (RoleOptions { env, config: None, flags, hooks_runner: vec![] }, loaded)
        }
    }

    fn connect(socket: PathBuf, job: &str) -> Session {
        let options = ConnectOptions {
            job: job.parse().unwrap(),
            rank: Rank(0),
            world_size: WorldSize(1),
            store: None,
            sockets: vec![socket],
            coordinator: None,
            token: None,
            timeout: Duration::from_secs(30),
            version: None,
            stacks: None,
        };
        Session::connect(options, &Uninterrupted).unwrap()
    }

    #[test]
    fn up_announces_its_addresses_is_waited_for_and_takes_them_back_at_the_end() {
        let places = Places::new();
        let (options, loaded) = places.options();
        let runtime = runtime().unwrap();
        let both = runtime.block_on(Both::start(&loaded, &options, None)).unwrap();
        let found = Endpoint::read(places.home.path()).unwrap().unwrap();
        assert_eq!((found.role.as_str(), found.pid), ("up", std::process::id()));
        let socket = wait_ready(&options, Duration::from_secs(30)).unwrap();
        assert_eq!(found.socket.as_deref(), Some(socket.as_path()));
        let session = connect(socket, "j");
        assert_eq!(session.store().unwrap(), places.home.path().join("store").display().to_string());
        session.close(None, &Uninterrupted).unwrap();
        assert_eq!(runtime.block_on(both.end(Duration::from_secs(5))).unwrap(), 0);
        assert_eq!(Endpoint::read(places.home.path()).unwrap(), None);
    }

    #[test]
    fn private_one_shares_the_cluster_of_its_home_and_ends_with_its_last_trainer() {
        let places = Places::new();
        let (options, loaded) = places.options();
        let (runtime, job) = (runtime().unwrap(), "mine".parse::<JobName>().unwrap());
        let public = runtime.block_on(Both::start(&loaded, &options, None)).unwrap();
        let own = runtime.block_on(Both::start(&loaded, &options, Some(&job))).unwrap();
        assert_eq!(own.coordinator.cluster(), public.coordinator.cluster());
        assert_ne!(own.sidecar.socket(), public.sidecar.socket());
        let session = connect(own.sidecar.socket().to_owned(), "mine");
        let (sidecar, stays) = (own.sidecar.clone(), Duration::from_secs(30));
        let deserted = runtime.spawn(async move { sidecar.deserted(stays).await });
        session.close(None, &Uninterrupted).unwrap();
        runtime.block_on(deserted).unwrap();
        for both in [own, public] {
            assert_eq!(runtime.block_on(both.end(Duration::from_secs(5))).unwrap(), 0);
        }
    }

    /// A private sidecar's first store knows its job, and the target's OWNER never ends to be read.
    #[test]
    fn p5_private_one_does_not_wait_for_a_target_that_hangs() {
        let places = Places::new();
        let (mut options, loaded) = places.options();
        let (runtime, job) = (runtime().unwrap(), "mine".parse::<JobName>().unwrap());
        let first = runtime.block_on(Both::start(&loaded, &options, Some(&job))).unwrap();
        connect(first.sidecar.socket().to_owned(), "mine").close(None, &Uninterrupted).unwrap();
        assert_eq!(runtime.block_on(first.end(Duration::from_secs(5))).unwrap(), 0);
        let far = places.home.path().join("far");
        std::fs::create_dir_all(far.join("mine")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, far.join("mine/OWNER"), rustix::fs::Mode::RUSR).unwrap();
        let file = places.home.path().join("strata.toml");
        std::fs::write(&file, format!("[[store.target]]\nname = \"far\"\nurl = \"{}\"\n", far.display()))
            .unwrap();
        options.config = Some(file);
        let with_target = Loaded::load(&options.env, options.config.as_deref(), &options.flags).unwrap();
        let both = runtime.block_on(Both::start(&with_target, &options, Some(&job))).unwrap();
        let socket = both.sidecar.socket().to_owned();
        let status = runtime.block_on(async {
            let visit = || connect(socket, "mine").close(None, &Uninterrupted).unwrap();
            let visit = tokio::task::spawn_blocking(visit);
            let left = tokio::time::timeout(Duration::from_secs(60), both.deserted(Duration::from_secs(1)));
            left.await.expect("it ends");
            visit.await.unwrap();
            both.coordinator.status().await.unwrap()
        });
        let left = lacking(&status);
        assert!(left.len() == 1 && left[0].contains("target far could not be listed"), "{left:?}");
        assert_eq!(runtime.block_on(both.end(Duration::from_secs(5))).unwrap(), 0);
    }

    #[test]
    fn taken_port_is_named_and_everything_else_given_back() {
        let places = Places::new();
        let (mut options, _) = places.options();
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        options.flags[1] = Flag::new("--http-port", "coordinator.http", format!(":{port}"));
        let taken = Loaded::load(&options.env, None, &options.flags).unwrap();
        let runtime = runtime().unwrap();
        let error = runtime.block_on(Both::start(&taken, &options, None)).err().unwrap();
        assert_eq!(error.kind, crate::error::Kind::Conflict);
        assert!(error.message.contains(&port.to_string()), "{error}");
        let (options, loaded) = places.options();
        let both = runtime.block_on(Both::start(&loaded, &options, None)).unwrap();
        runtime.block_on(both.end(Duration::ZERO)).unwrap();
    }
}

//! The servers that are ours, in a process of their own as a user has them: the coordinator as it is shipped, one of
//! empty calls, and bare sockets. The bench starts itself with [`SERVE`] for it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use strata_core::clock::MachineClock;
use strata_core::coordinator::{Coordinator, CoordinatorSettings};
use strata_core::proto::v1::dataset_server::{Dataset, DatasetServer};
use strata_core::proto::v1::{self};
use strata_core::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::floor;

pub const SERVE: &str = "--serve";
/// Connections of the bare sockets: as many as 100 and 1,000 ranks have sidecars.
pub const FLOORS: [usize; 2] = [13, 125];
/// Workers register once and some never beat; their leases must not run out while others are measured.
const LEASE: Duration = Duration::from_secs(3600);

/// A process with servers, as its clients know it.
pub struct Servers {
    pub coordinator: String,
    pub empty: String,
    pub floors: [String; 2],
    child: Child,
}

impl Servers {
    pub fn start() -> Servers {
        let itself = std::env::current_exe().expect("the bench knows its file");
        let mut command = Command::new(itself);
        command.arg(SERVE).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the bench starts again");
        let mut line = String::new();
        let told = child.stdout.as_mut().expect("it is piped");
        BufReader::new(told).read_line(&mut line).expect("it tells its addresses");
        let mut addresses = line.split_whitespace().map(str::to_owned);
        let mut next = || addresses.next().expect("the servers could be started; they say above why not");
        let (coordinator, empty) = (next(), next());
        Servers { coordinator, empty, floors: [next(), next()], child }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let ended = self.child.wait().expect("it is our child");
        // A second panic would hide the first.
        assert!(ended.success() || std::thread::panicking(), "the servers ended with {ended}");
    }
}

/// What that process does, until the bench closes its standard input or ends.
pub fn serve() {
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let stop = CancellationToken::new();
    let mut settings = CoordinatorSettings::new(home.path());
    settings.timings.lease = LEASE;
    let coordinator = runtime.block_on(async {
        let started =
            Coordinator::start(settings, MachineClock::shared(), Metrics::new(), stop.clone()).await;
        let coordinator = started.expect("the home is new and the port free");
        let empty = serve_nothing(stop.clone()).await;
        let [few, many] = FLOORS.map(floor::serve);
        println!("http://{} {empty} {} {}", coordinator.grpc_addr(), few.await, many.await);
        coordinator
    });
    std::io::stdin().read_to_end(&mut Vec::new()).expect("standard input can be read");
    stop.cancel();
    runtime.block_on(coordinator.stopped()).expect("the coordinator closes its log");
}

/// Answers every call at once, with a description of a dataset that has as many letters as its job's name says.
struct Nothing;

#[tonic::async_trait]
impl Dataset for Nothing {
    async fn register_dataset(
        &self,
        _: Request<v1::RegisterDatasetRequest>,
    ) -> Result<Response<v1::DatasetSpec>, Status> {
        Err(Status::unimplemented("nothing"))
    }

    async fn get_dataset(
        &self,
        request: Request<v1::GetDatasetRequest>,
    ) -> Result<Response<v1::DatasetSpec>, Status> {
        let letters = request.get_ref().job.parse().map_err(|_| Status::invalid_argument("not a number"))?;
        Ok(Response::new(v1::DatasetSpec { path: "x".repeat(letters), ..Default::default() }))
    }

    async fn list_datasets(
        &self,
        _: Request<v1::ListDatasetsRequest>,
    ) -> Result<Response<v1::ListDatasetsReply>, Status> {
        Err(Status::unimplemented("nothing"))
    }

    async fn report_damage(
        &self,
        _: Request<v1::ReportDamageRequest>,
    ) -> Result<Response<v1::ReportDamageReply>, Status> {
        Err(Status::unimplemented("nothing"))
    }

    async fn get_shards(
        &self,
        _: Request<v1::GetShardsRequest>,
    ) -> Result<Response<v1::GetShardsReply>, Status> {
        Err(Status::unimplemented("nothing"))
    }
}

async fn serve_nothing(stop: CancellationToken) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let serving = Server::builder()
        .add_service(DatasetServer::new(Nothing))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
    tokio::spawn(serving);
    format!("http://{address}")
}

//! Membership, heartbeats, barriers, recovery.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::{Need, Services};
use crate::coordinator::compat;
use crate::coordinator::engine::Engine;
use crate::error::{Error, Kind};
use crate::proto::v1::{self, register_workers_reply::Outcome};

/// A rank that restarts may register before the proof of its old process's death, on another stream, has come in.
const CONFLICT_GRACE: Duration = Duration::from_millis(1500);
/// How long a registration waits for its sidecar's own line to stand and to have announced its slots.
const ANNOUNCE_GRACE: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(50);
/// Commands that wait on a heartbeat stream.
const BEATS: usize = 64;

type Pushes<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl v1::coordinator_server::Coordinator for Services {
    type StreamHeartbeatStream = Pushes<v1::HeartbeatReply>;
    type AttachStream = Pushes<v1::NodeCommand>;

    async fn register_worker(
        &self,
        request: Request<v1::RegisterWorkerRequest>,
    ) -> Result<Response<v1::RegisterWorkerReply>, Status> {
        let request = request.into_inner();
        self.admit(&request.job, Need::Vital)?;
        compat::check("worker", request.version.as_ref())?;
        let until = Instant::now() + CONFLICT_GRACE;
        loop {
            match self.registered(&request).await {
                Err(error) if error.kind == Kind::Conflict && Instant::now() < until => sleep(AGAIN).await,
                answer => return Ok(Response::new(answer?)),
            }
        }
    }

    async fn register_workers(
        &self,
        request: Request<v1::RegisterWorkersRequest>,
    ) -> Result<Response<v1::RegisterWorkersReply>, Status> {
        let registrations = request.into_inner().registrations;
        registrations.iter().try_for_each(|one| self.admit(&one.job, Need::Vital))?;
        let Some(node) = registrations.first().map(|first| first.node.clone()) else {
            return Ok(Response::new(v1::RegisterWorkersReply::default()));
        };
        self.node_announced(&node).await?;
        let register = move |engine: &mut Engine| {
            let one = |registration: v1::RegisterWorkerRequest| {
                let speaks = compat::check("worker", registration.version.as_ref()).is_ok();
                let is_of_the_node = registration.node == node;
                let registered = (speaks && is_of_the_node).then(|| engine.register(registration));
                Outcome { registered: registered.and_then(Result::ok) }
            };
            Ok(v1::RegisterWorkersReply { outcomes: registrations.into_iter().map(one).collect() })
        };
        Ok(Response::new(self.engine.call(register).await?))
    }

    async fn remove_worker(
        &self,
        request: Request<v1::RemoveWorkerRequest>,
    ) -> Result<Response<v1::RemoveWorkerReply>, Status> {
        let request = request.into_inner();
        self.admit_caller(request.caller.as_ref(), Need::Vital)?;
        self.engine.call(move |engine| engine.remove_worker(request)).await?;
        Ok(Response::new(v1::RemoveWorkerReply {}))
    }

    async fn wait_generation(
        &self,
        request: Request<v1::WaitGenerationRequest>,
    ) -> Result<Response<v1::Generation>, Status> {
        let request = request.into_inner();
        self.admit(&request.job, Need::Vital)?;
        let (job, limit) = (request.job.clone(), self.time(request.timeout_ms));
        let opened = self.engine.wait(move |engine, reply| engine.wait_generation(request, reply));
        match timeout(limit, opened).await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => Err(self.missing(job).await.into()),
        }
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatReply>, Status> {
        let request = request.into_inner();
        self.admit_caller(request.caller.as_ref(), Need::Vital)?;
        Ok(Response::new(self.engine.call(move |engine| engine.heartbeat(request)).await?))
    }

    async fn stream_heartbeat(
        &self,
        request: Request<Streaming<v1::HeartbeatRequest>>,
    ) -> Result<Response<Self::StreamHeartbeatStream>, Status> {
        let mut beats = request.into_inner();
        let (send, receive) = mpsc::channel(BEATS);
        let engine = self.engine.handle()?;
        tokio::spawn(async move {
            let mut known = false;
            while let Some(Ok(beat)) = beats.next().await {
                let who = beat.incarnation.clone();
                let answer = engine.call(move |engine| engine.heartbeat(beat)).await;
                if answer.is_ok() && !known && !who.is_empty() {
                    known = true;
                    let stream = send.clone();
                    engine.post(move |engine| engine.stream_beats(who, stream));
                }
                let last = answer.is_err();
                if send.send(answer.map_err(Status::from)).await.is_err() || last {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn get_worker_config(
        &self,
        request: Request<v1::GetWorkerConfigRequest>,
    ) -> Result<Response<v1::WorkerConfig>, Status> {
        let job = request.into_inner().job;
        self.admit(&job, Need::Ordinary)?;
        let job = job.parse()?;
        Ok(Response::new(self.engine.call(move |engine| Ok(engine.worker_config(&job))).await?))
    }

    async fn barrier(
        &self,
        request: Request<v1::BarrierRequest>,
    ) -> Result<Response<v1::BarrierReply>, Status> {
        let request = request.into_inner();
        self.admit_caller(request.caller.as_ref(), Need::Vital)?;
        let (again, limit) = (request.clone(), self.time(request.timeout_ms));
        let released = self.engine.wait(move |engine, reply| engine.barrier(request, reply));
        match timeout(limit, released).await {
            Ok(answer) => Ok(Response::new(answer?)),
            Err(_) => {
                let why = self.engine.call(move |engine| Ok(engine.barrier_missing(&again))).await?;
                Err(why.into())
            }
        }
    }

    async fn get_recovery_info(
        &self,
        request: Request<v1::GetRecoveryInfoRequest>,
    ) -> Result<Response<v1::RecoveryInfo>, Status> {
        let job = request.into_inner().job;
        self.admit(&job, Need::Ordinary)?;
        Ok(Response::new(self.engine.call(move |engine| engine.recovery(&job)).await?))
    }

    async fn get_place(&self, request: Request<v1::GetPlaceRequest>) -> Result<Response<v1::Place>, Status> {
        let request = request.into_inner();
        self.admit(&request.job, Need::Vital)?;
        Ok(Response::new(self.engine.call(move |engine| engine.place(request)).await?))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::NodeReport>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Ok(Response::new(Box::pin(self.attached(request.into_inner())?)))
    }
}

impl Services {
    async fn registered(
        &self,
        request: &v1::RegisterWorkerRequest,
    ) -> Result<v1::RegisterWorkerReply, Error> {
        self.node_announced(&request.node).await?;
        let request = request.clone();
        self.engine.call(move |engine| engine.register(request)).await
    }

    /// What a sidecar holds must be known before a registration of its ranks settles pending steps.
    async fn node_announced(&self, node: &str) -> Result<(), Error> {
        if node.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + ANNOUNCE_GRACE;
        loop {
            let name = node.to_owned();
            let (attached, announced) = self
                .engine
                .call(move |engine| Ok((engine.is_attached(&name), engine.has_announced(&name))))
                .await?;
            if announced {
                return Ok(());
            }
            if Instant::now() >= until {
                return match attached {
                    true => Ok(()),
                    false => Err(Error::unavailable(format!(
                        "registering a rank through node {node}: its sidecar is not attached"
                    ))
                    .hint("the sidecar attaches first; try again")),
                };
            }
            sleep(AGAIN).await;
        }
    }

    pub(super) async fn missing(&self, job: String) -> Error {
        match self.engine.call(move |engine| Ok(engine.generation_missing(&job))).await {
            Ok(why) | Err(why) => why,
        }
    }
}

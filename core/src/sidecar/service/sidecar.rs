//! The calls of a trainer.

use tonic::{Request, Response, Status, Streaming};

use super::super::{arena, barrier, joined, restore, save};
use super::Services;
use super::session::{self, Down};
use crate::ids::SessionId;
use crate::proto::v1;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl v1::sidecar_server::Sidecar for Services {
    type SessionStream = Down;

    async fn session(&self, request: Request<Streaming<v1::SessionRequest>>) -> Answer<Down> {
        let peer = self.peer(&request)?;
        Ok(Response::new(session::open(&self.node, peer, request.into_inner()).await?))
    }

    async fn wait_world(&self, request: Request<v1::WaitWorldRequest>) -> Answer<v1::Generation> {
        let session = self.member(&request, request.get_ref().session)?;
        let deadline = self.deadline(session, request.get_ref().timeout_ms);
        Ok(Response::new(joined::world(&self.node, session, deadline).await?))
    }

    async fn prepare(&self, request: Request<v1::PrepareRequest>) -> Answer<v1::PrepareReply> {
        let session = self.member(&request, request.get_ref().session)?;
        let v1::PrepareRequest { slot_bytes, slots, .. } = request.into_inner();
        let slots = if slots == 0 { self.node.settings.slots } else { slots };
        arena::make(&self.node, session, slot_bytes, slots).await?;
        let path = self
            .node
            .read(|state| state.own_arena(session).map(|(_, arena)| arena.path().display().to_string()));
        Ok(Response::new(v1::PrepareReply { arena: path.unwrap_or_default() }))
    }

    async fn begin_save(&self, request: Request<v1::BeginSaveRequest>) -> Answer<v1::BeginSaveReply> {
        let session = self.member(&request, request.get_ref().session)?;
        Ok(Response::new(save::begin(&self.node, session, request.into_inner()).await?))
    }

    async fn seal_save(&self, request: Request<v1::SealSaveRequest>) -> Answer<v1::SealSaveReply> {
        // Of a fenced member too: a step that all ranks have sealed may still be adopted.
        let session = self.session(&request, request.get_ref().session)?;
        self.node.change(|state| save::seal(state, session, request.get_ref()))?;
        Ok(Response::new(v1::SealSaveReply {}))
    }

    async fn abandon_save(&self, request: Request<v1::AbandonSaveRequest>) -> Answer<v1::AbandonSaveReply> {
        let session = self.session(&request, request.get_ref().session)?;
        self.node.change(|state| save::abandon(state, session, request.get_ref()));
        Ok(Response::new(v1::AbandonSaveReply {}))
    }

    async fn wait_committed(&self, request: Request<v1::WaitCommittedRequest>) -> Answer<v1::StepInfo> {
        let session = self.session(&request, request.get_ref().session)?;
        Ok(Response::new(save::wait_committed(&self.node, session, request.get_ref()).await?))
    }

    async fn restore(&self, request: Request<v1::RestoreRequest>) -> Answer<v1::RestoreReply> {
        let session = self.member(&request, request.get_ref().session)?;
        Ok(Response::new(restore::run(&self.node, session, request.into_inner()).await?))
    }

    async fn release_lease(
        &self,
        request: Request<v1::ReleaseLeaseRequest>,
    ) -> Answer<v1::ReleaseLeaseReply> {
        let session: SessionId = self.reader(&request, request.get_ref().session)?;
        self.node.change(|state| state.release(session, request.get_ref().lease));
        Ok(Response::new(v1::ReleaseLeaseReply {}))
    }

    async fn barrier(&self, request: Request<v1::SidecarBarrierRequest>) -> Answer<v1::SidecarBarrierReply> {
        let session = self.member(&request, request.get_ref().session)?;
        let v1::SidecarBarrierRequest { name, round, timeout_ms, .. } = request.into_inner();
        let deadline = self.deadline(session, timeout_ms);
        barrier::wait(&self.node, session, &name, round, deadline).await?;
        Ok(Response::new(v1::SidecarBarrierReply {}))
    }

    async fn preempt(&self, request: Request<v1::PreemptRequest>) -> Answer<v1::PreemptReply> {
        let session = self.member(&request, request.get_ref().session)?;
        self.node.change(|state| state.preempt(session));
        Ok(Response::new(v1::PreemptReply {}))
    }

    async fn vote_step(&self, request: Request<v1::VoteStepRequest>) -> Answer<v1::VoteStepReply> {
        let session = self.member(&request, request.get_ref().session)?;
        self.node.change(|state| state.vote_step(session, request.get_ref()));
        Ok(Response::new(v1::VoteStepReply {}))
    }

    async fn answer_stack(&self, request: Request<v1::AnswerStackRequest>) -> Answer<v1::AnswerStackReply> {
        // Of a fenced one too: why it hangs may still be asked.
        let session = self.session(&request, request.get_ref().session)?;
        let v1::AnswerStackRequest { request, stack, missing, .. } = request.into_inner();
        let answer = if missing.is_empty() { Ok(stack) } else { Err(missing) };
        self.node.change(|state| state.stack_answered(session, request, answer));
        Ok(Response::new(v1::AnswerStackReply {}))
    }
}

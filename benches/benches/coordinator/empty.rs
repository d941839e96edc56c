//! Calls that do nothing, through the same gRPC stack and with as many bytes each way as the calls whose limit they are.

use prost::Message;
use strata_core::proto::v1;

use crate::cluster::Worker;

/// Which of our calls an empty one is as long as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Like {
    Heartbeat,
    GetShards,
    Register,
    Barrier,
}

/// Bytes of a request and of its answer.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub request: usize,
    pub reply: usize,
}

/// Of each call, by what was sent and answered.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub heartbeat: Size,
    pub get_shards: Size,
    pub register: Size,
    pub barrier: Size,
}

impl Sizes {
    pub fn of(&self, like: Like) -> Size {
        match like {
            Like::Heartbeat => self.heartbeat,
            Like::GetShards => self.get_shards,
            Like::Register => self.register,
            Like::Barrier => self.barrier,
        }
    }
}

impl Size {
    pub fn of(request: &impl Message, reply: &impl Message) -> Size {
        Size { request: request.encoded_len(), reply: reply.encoded_len() }
    }

    pub fn mean(sizes: &[Size]) -> Size {
        let mean = |of: fn(&Size) -> usize| sizes.iter().map(of).sum::<usize>() / sizes.len();
        Size { request: mean(|size| size.request), reply: mean(|size| size.reply) }
    }

    /// A request of that size whose answer is of that size: to within the byte or two that a length takes.
    pub fn request(self) -> v1::GetDatasetRequest {
        let answer = |letters| v1::DatasetSpec { path: "x".repeat(letters), ..Default::default() };
        let letters = longest(self.reply, answer).to_string();
        let ask = |more| v1::GetDatasetRequest { job: letters.clone(), id: "x".repeat(more) };
        ask(longest(self.request, ask))
    }
}

/// How many letters make a message of at most `size` bytes.
pub fn longest<M: Message>(size: usize, make: impl Fn(usize) -> M) -> usize {
    (0..=size).rev().find(|letters| make(*letters).encoded_len() <= size).unwrap_or_default()
}

pub async fn call(worker: &Worker, request: v1::GetDatasetRequest) {
    worker.nothing.clone().get_dataset(request).await.expect("it always answers");
}

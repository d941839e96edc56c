//! A process that speaks gRPC to the coordinator itself, without a sidecar on its node.
//! Called by pylib (`dtruntime`, torchrun's rendezvous). Never touches an arena or a store: checkpoints go through a sidecar.

mod beats;
mod datasets;
mod line;
mod records;
mod standing;
mod worker;

pub use datasets::{DatasetRegistry, ShardRequest};
pub use line::Line;
pub use records::{Record, Records};
pub use worker::{DirectWorker, WorkerOptions};

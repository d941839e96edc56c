//! A trainer that saves states of a training run through a node, and what its steps cost.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use strata_core::checkpoint::JobStore;
use strata_core::client::{SaveRequest, Session, SourceTensor, Uninterrupted, slot_bytes};
use strata_core::ids::{JobName, Rank, Step, WorldSize};
use strata_core::proto::v1::SaveKind;
use strata_core::storage::{StoreOptions, StoreUrl};

use crate::node::{Node, PATIENCE, join};
use crate::states::Tensor;

/// One save, as the coordinator tells it.
pub struct Saved {
    pub stored: u64,
    pub bytes: u64,
    pub committed_after: Duration,
    pub cpu: Duration,
}

impl Saved {
    pub fn part(&self) -> f64 {
        self.stored as f64 / self.bytes as f64
    }
}

pub struct Trainer<'a> {
    node: &'a Node,
    session: Session,
    job: JobName,
}

impl Trainer<'_> {
    pub fn join<'a>(node: &'a Node, job: &str) -> Trainer<'a> {
        let job: JobName = job.parse().expect("a valid name");
        Trainer { node, session: join(&node.socket(), &job), job }
    }

    /// Saves and waits for the commit; `cpu` is the whole process's meanwhile.
    pub fn save(&self, step: u64, kind: SaveKind, state: &[Tensor]) -> Saved {
        let tensors: Vec<SourceTensor> = state
            .iter()
            .map(|tensor| SourceTensor {
                name: tensor.name.clone(),
                dtype: tensor.dtype.clone(),
                shape: tensor.shape.clone(),
                pointer: tensor.bytes.as_ptr(),
                bytes: tensor.bytes.len() as u64,
                replicated: false,
            })
            .collect();
        let tree = b"{}".to_vec();
        let needed = slot_bytes(&tree, &tensors);
        self.session.prepare(needed, None, &Uninterrupted).expect("/dev/shm has room for two slots");
        let request = SaveRequest {
            step: Step(step),
            kind,
            tree,
            tensors,
            ranks: vec![],
            data: vec![],
            metrics_json: String::new(),
            meta_json: String::new(),
        };
        let (started, busy) = (Instant::now(), cpu());
        // SAFETY: the state outlives the call and nobody writes to it.
        let handle = unsafe { self.session.save(request, &Uninterrupted) }.expect("a slot is free");
        let info = handle.wait_committed(Some(PATIENCE), &Uninterrupted).expect("the store takes it");
        let (committed_after, cpu) = (started.elapsed(), cpu().saturating_sub(busy));
        Saved { stored: info.stored_bytes, bytes: info.bytes, committed_after, cpu }
    }

    /// How long the store takes to give a step back, verified, into memory that is there already. Its files are read past
    /// the page cache wherever the file system allows that, so every time is a cold one.
    pub fn restore(&self, step: u64, state: &[Tensor], memory: &mut Vec<u8>) -> Duration {
        let url: StoreUrl = self.session.store().expect("it is joined").parse().expect("it is a store");
        let store = JobStore::open(&url, &StoreOptions::default(), &self.job).expect("it is a directory");
        let started = Instant::now();
        let open = store.open_step(Step(step), Rank(0), WorldSize(1), "");
        let open = self.node.block_on(open).expect("the step is committed");
        memory.resize(open.slot_bytes() as usize + 4096, 0);
        let aligned = memory.as_ptr().align_offset(4096);
        let slot = &mut memory[aligned..][..open.slot_bytes() as usize];
        open.read_into(slot).expect("every byte is what was saved");
        let took = started.elapsed();
        for (tensor, found) in state.iter().zip(&open.index().tensors) {
            assert!(slot[found.offset as usize..][..tensor.bytes.len()] == tensor.bytes, "{}", tensor.name);
        }
        took
    }
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

//! A trainer: a state of known bytes, saved and restored over the node's socket.

use std::time::Duration;

use strata_core::client::{
    ConnectOptions, Interrupt, RestoreOptions, RestoredSlot, SaveHandle, SaveRequest, Session, SourceTensor,
    Uninterrupted,
};
use strata_core::error::{Error, Result};
use strata_core::ids::{Rank, Step, WorldSize};
use strata_core::proto::v1::{self, SaveKind};

use super::{Cluster, PATIENCE};

/// Tensors whose bytes depend on rank, step and place alone.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    pub tree: Vec<u8>,
    /// Name, bytes, replicated.
    pub tensors: Vec<(String, Vec<u8>, bool)>,
}

impl State {
    /// A large private tensor, a large replicated one where `shared`, and a small private one.
    pub fn of(rank: u32, step: u64, shared: bool) -> State {
        let mut tensors = vec![
            ("own.weight".to_owned(), noise(u64::from(rank) << 32 | step, 300_000), false),
            ("own.bias".to_owned(), noise(u64::from(rank) << 32 | step | 1 << 20, 100), false),
        ];
        if shared {
            tensors.push(("shared.weight".to_owned(), noise(step | 1 << 40, 900_000), true));
        }
        State { tree: format!("{{\"rank\":{rank},\"step\":{step}}}").into_bytes(), tensors }
    }
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let word = std::iter::repeat_with(move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    });
    word.flatten().take(bytes).collect()
}

pub struct Trainer {
    pub session: Session,
}

impl Trainer {
    pub fn options(cluster: &Cluster, job: &str, rank: u32, world: u32) -> ConnectOptions {
        ConnectOptions {
            job: job.parse().unwrap(),
            rank: Rank(rank),
            world_size: WorldSize(world),
            store: None,
            sockets: vec![cluster.socket()],
            coordinator: None,
            token: None,
            timeout: Duration::from_secs(30),
            version: None,
            stacks: None,
        }
    }

    pub fn connect(options: ConnectOptions) -> Result<Trainer> {
        Session::connect(options, &Uninterrupted).map(|session| Trainer { session })
    }

    pub fn join(cluster: &Cluster, job: &str, rank: u32, world: u32) -> Trainer {
        Trainer::connect(Trainer::options(cluster, job, rank, world)).unwrap()
    }

    /// All ranks of a world, past its opening.
    pub fn world(cluster: &Cluster, job: &str, world: u32) -> Vec<Trainer> {
        let ranks: Vec<Trainer> = (0..world).map(|rank| Trainer::join(cluster, job, rank, world)).collect();
        for rank in &ranks {
            rank.session.wait_world(Some(PATIENCE), &Uninterrupted).unwrap();
        }
        ranks
    }

    pub fn save(&self, step: u64, state: &State) -> Result<SaveHandle> {
        self.save_as(step, state, SaveKind::Full, &[])
    }

    pub fn save_as(&self, step: u64, state: &State, kind: SaveKind, ranks: &[u32]) -> Result<SaveHandle> {
        self.try_save(step, state, kind, ranks, &Uninterrupted)
    }

    pub fn save_until(&self, step: u64, state: &State, interrupt: &dyn Interrupt) -> Result<SaveHandle> {
        self.try_save(step, state, SaveKind::Full, &[], interrupt)
    }

    pub fn save_measured(&self, step: u64, state: &State, metrics_json: &str) -> Result<SaveHandle> {
        self.try_save_with(step, state, SaveKind::Full, &[], &Uninterrupted, metrics_json)
    }

    fn try_save(
        &self,
        step: u64,
        state: &State,
        kind: SaveKind,
        ranks: &[u32],
        interrupt: &dyn Interrupt,
    ) -> Result<SaveHandle> {
        self.try_save_with(step, state, kind, ranks, interrupt, "")
    }

    fn try_save_with(
        &self,
        step: u64,
        state: &State,
        kind: SaveKind,
        ranks: &[u32],
        interrupt: &dyn Interrupt,
        metrics_json: &str,
    ) -> Result<SaveHandle> {
        let tensor = |(name, bytes, replicated): &(String, Vec<u8>, bool)| SourceTensor {
            name: name.clone(),
            dtype: "uint8".into(),
            shape: vec![bytes.len() as u64],
            pointer: bytes.as_ptr(),
            bytes: bytes.len() as u64,
            replicated: *replicated,
        };
        let request = SaveRequest {
            step: Step(step),
            kind,
            tree: state.tree.clone(),
            tensors: state.tensors.iter().map(tensor).collect(),
            ranks: ranks.to_vec(),
            data: Vec::new(),
            metrics_json: metrics_json.to_owned(),
            meta_json: String::new(),
        };
        // SAFETY: the tensors are borrowed for the call, and nothing writes to them.
        unsafe { self.session.save(request, interrupt) }
    }

    pub fn restore(&self, options: RestoreOptions) -> Result<Option<RestoredSlot>> {
        let options = RestoreOptions { timeout: Some(PATIENCE), ..options };
        self.session.restore(&options, &Uninterrupted)
    }

    pub fn close(self) {
        self.session.close(Some(PATIENCE), &Uninterrupted).unwrap();
    }
}

pub fn committed(handle: &SaveHandle) -> Result<v1::StepInfo> {
    handle.wait_committed(Some(PATIENCE), &Uninterrupted)
}

/// The error a save ends with.
pub fn lost(handle: &SaveHandle) -> Error {
    committed(handle).expect_err("the save is lost")
}

/// What a restored slot holds, as the state it was saved from.
pub fn contents(slot: &RestoredSlot) -> State {
    let tensors = slot.tensors().iter().enumerate().map(|(number, tensor)| {
        let bytes = slot.bytes(number).map(<[u8]>::to_vec).unwrap_or_default();
        (tensor.name.clone(), bytes, tensor.replicated)
    });
    State { tree: slot.tree().to_vec(), tensors: tensors.collect() }
}

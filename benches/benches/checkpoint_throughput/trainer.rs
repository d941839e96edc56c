//! A trainer of one rank that saves through a node: arena, sidecar, coordinator and store.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use strata_core::client::{
    MappedSlot, RestoreOptions, SaveRequest, Session, SourceTensor, Uninterrupted, slot_bytes,
};
use strata_core::ids::Step;
use strata_core::proto::v1::SaveKind;

use crate::node::{PATIENCE, join};
use crate::rank::TENSOR;

pub struct Trainer {
    session: Session,
    state: Vec<u8>,
    step: u64,
}

impl Trainer {
    /// A job of one rank, its world open and its arena made for a state of `bytes`.
    pub fn join(socket: &Path, bytes: usize) -> Trainer {
        let job = format!("node-{bytes}").parse().expect("a valid name");
        let session = join(socket, &job);
        let mut state = vec![0; bytes];
        StdRng::seed_from_u64(bytes as u64).fill(&mut state[..]);
        let mut trainer = Trainer { session, state, step: 0 };
        let needed = slot_bytes(&trainer.request().tree, &trainer.request().tensors);
        trainer.session.prepare(needed, None, &Uninterrupted).expect("/dev/shm has room for two slots");
        // The first save through a mapping pays for its pages.
        trainer.save();
        trainer
    }

    fn request(&self) -> SaveRequest {
        let tensor = |(number, part): (usize, &[u8])| SourceTensor {
            name: format!("model.{number}"),
            dtype: "uint8".into(),
            shape: vec![part.len() as u64],
            pointer: part.as_ptr(),
            bytes: part.len() as u64,
            replicated: false,
        };
        SaveRequest {
            step: Step(self.step),
            kind: SaveKind::Full,
            tree: b"{}".to_vec(),
            tensors: self.state.chunks(TENSOR).enumerate().map(tensor).collect(),
            ranks: vec![],
            data: vec![],
            metrics_json: String::new(),
            meta_json: String::new(),
        }
    }

    /// How long the caller was blocked, and how long until the step was committed.
    pub fn save(&mut self) -> (Duration, Duration) {
        self.step += 1;
        let request = self.request();
        let started = Instant::now();
        // SAFETY: the state outlives the call and nobody writes to it.
        let handle = unsafe { self.session.save(request, &Uninterrupted) }.expect("a slot is free");
        let blocked = started.elapsed();
        handle.wait_committed(Some(PATIENCE), &Uninterrupted).expect("the store takes it");
        (blocked, started.elapsed())
    }

    #[allow(dead_code, reason = "one bench alone asks for it")]
    pub fn state(&self) -> &[u8] {
        &self.state
    }

    #[allow(dead_code, reason = "one bench alone asks for it")]
    /// The newest step, verified, in this process's memory, mapped; what was written to is undone with the views.
    pub fn restore_mapped(&mut self) -> Duration {
        let options = RestoreOptions { timeout: Some(PATIENCE), ..Default::default() };
        let started = Instant::now();
        let slot = self.session.restore(&options, &Uninterrupted).expect("the step is whole");
        let slot = Arc::new(slot.expect("a step is committed"));
        let tensors: Vec<usize> = (0..slot.tensors().len()).collect();
        let mapped = MappedSlot::new(&slot, &tensors).expect("it has them").expect("memory for one state");
        let took = started.elapsed();
        // SAFETY: the first byte of the mapping, which lives.
        let first = unsafe { mapped.address().read_volatile() };
        assert_eq!(first, self.state[0], "what was saved comes back");
        took
    }

    #[allow(dead_code, reason = "one bench alone asks for it")]
    /// The same copied out of the arena into new memory, as it was before tensors were views.
    pub fn restore_copied(&mut self) -> Duration {
        let options = RestoreOptions { timeout: Some(PATIENCE), ..Default::default() };
        let started = Instant::now();
        let slot = self.session.restore(&options, &Uninterrupted).expect("the step is whole");
        let slot = slot.expect("a step is committed");
        let sizes = slot.tensors().iter().map(|tensor| tensor.bytes as usize);
        let mut copies: Vec<Vec<u8>> = sizes.map(Vec::with_capacity).collect();
        let targets: Vec<(usize, *mut u8)> =
            copies.iter_mut().enumerate().map(|(number, copy)| (number, copy.as_mut_ptr())).collect();
        // SAFETY: each has room for its tensor.
        unsafe { slot.copy_out(&targets, None) }.expect("it has them");
        let took = started.elapsed();
        // SAFETY: copied just now.
        copies.iter_mut().for_each(|copy| unsafe { copy.set_len(copy.capacity()) });
        assert_eq!(copies[0][0], self.state[0], "what was saved comes back");
        took
    }

    /// The newest step, verified, as views over the arena.
    pub fn restore(&mut self) -> Duration {
        let options = RestoreOptions { timeout: Some(PATIENCE), ..Default::default() };
        let started = Instant::now();
        let slot = self.session.restore(&options, &Uninterrupted).expect("the step is whole");
        let slot = slot.expect("a step is committed");
        let took = started.elapsed();
        let first = slot.bytes(0).expect("it has a tensor");
        assert!(self.state.starts_with(&first[..first.len().min(4096)]), "what was saved comes back");
        took
    }
}

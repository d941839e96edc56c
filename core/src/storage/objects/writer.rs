//! A large object as a multipart upload: pieces gather into parts, whoever fills a part begins to send it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::{MultipartUpload, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::Large;
use super::lane::SMALLEST_PART;
use super::runtime::{begin, wait};
use crate::error::{Error, Result};
use crate::storage::{Piece, Writer, crc32c};

/// S3 and GCS take so many parts of an object; Azure takes 50,000.
const MOST_PARTS: u64 = 10_000;
const ALIGNMENT: usize = 4096;
static ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// Memory: none of its own. The bytes go out from where the caller has them, and are let go when the store has them.
pub struct BucketWriter {
    large: Arc<Large>,
    part_bytes: u64,
    state: Mutex<State>,
    flight: Mutex<Vec<JoinHandle<Result<()>>>>,
}

#[derive(Default)]
struct State {
    end: u64,
    part: Vec<Piece>,
    part_filled: u64,
    /// Begun with the first full part: a small object needs none.
    upload: Option<Box<dyn MultipartUpload>>,
    finished: bool,
}

impl BucketWriter {
    pub fn begin(large: Large, at_most: u64) -> BucketWriter {
        let part_bytes = part_bytes(at_most, large.part_bytes, large.lane.width());
        BucketWriter { large: Arc::new(large), part_bytes, state: Mutex::default(), flight: Mutex::default() }
    }

    fn failed(&self, error: &object_store::Error) -> Error {
        self.large.failed("writing", error)
    }

    /// Whether the object is complete although its completion seems to have failed: an answer got lost, and the second try
    /// was told that there is no such upload. Nobody else uses the name, and a part of it is never seen.
    fn is_there(&self, bytes: u64) -> bool {
        let found = wait(async { self.large.objects.head(&self.large.location).await });
        found.is_ok_and(|found| found.is_ok_and(|found| found.size == bytes))
    }

    /// Takes a place in the lane for the part, and begins to send it.
    fn send<T: Send + 'static>(
        &self,
        part: Vec<Piece>,
        sending: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<()> {
        let large = Arc::clone(&self.large);
        let pass = wait(large.lane.enter())?;
        let sent = begin(async move {
            sending.await.map_err(|error| large.failed("writing", &error))?;
            pass.carried(part.iter().map(|piece| piece.bytes.len() as u64).sum());
            check(&part, &large)
        })?;
        self.flight.lock().push(sent);
        Ok(())
    }

    /// The parts that the store has answered for, or all of them. After an error the others are still in flight.
    fn settle(&self, all: bool) -> Result<()> {
        let next = || {
            let mut flight = self.flight.lock();
            let number = flight.iter().position(|sent| all || sent.is_finished())?;
            Some(flight.swap_remove(number))
        };
        while let Some(sent) = next() {
            let name = &self.large.name;
            wait(sent)?.map_err(|error| Error::internal(format!("writing {name}: {error}")))??;
        }
        Ok(())
    }
}

/// The store has taken these bytes: are they still those that were summed?
fn check(part: &[Piece], large: &Large) -> Result<()> {
    match part.iter().all(|piece| crc32c(&piece.bytes) == piece.crc32c) {
        true => Ok(()),
        false => Err(Error::corrupt(format!(
            "writing {}: bytes were changed in memory after they were summed",
            large.name
        ))),
    }
}

/// Small enough that every request has a part, and large enough that there are not too many of them.
fn part_bytes(at_most: u64, usual: u64, requests: usize) -> u64 {
    let shared = at_most.div_ceil(requests as u64).next_multiple_of(ALIGNMENT as u64);
    usual.min(shared).max(SMALLEST_PART).max(at_most.div_ceil(MOST_PARTS - 1))
}

fn payload(part: &[Piece]) -> PutPayload {
    let padded = part.iter().flat_map(|piece| {
        let padding = piece.bytes.len().next_multiple_of(ALIGNMENT) - piece.bytes.len();
        [piece.bytes.clone(), Bytes::from_static(&ZEROS[..padding])]
    });
    padded.filter(|bytes| !bytes.is_empty()).collect()
}

impl Writer for BucketWriter {
    fn append(&self, piece: Piece) -> Result<u64> {
        let mut state = self.state.lock();
        let offset = state.end;
        let padded = piece.bytes.len().next_multiple_of(ALIGNMENT) as u64;
        state.end += padded;
        state.part_filled += padded;
        state.part.push(piece);
        if state.part_filled < self.part_bytes {
            return Ok(offset);
        }
        let part = std::mem::take(&mut state.part);
        state.part_filled = 0;
        if state.upload.is_none() {
            let begun = wait(async { self.large.objects.put_multipart(&self.large.location).await })?;
            state.upload = Some(begun.map_err(|error| self.failed(&error))?);
        }
        let upload = state.upload.as_mut().expect("just begun");
        // Parts are numbered in the order of this call, under the lock; they are sent without it.
        let sending = upload.put_part(payload(&part));
        drop(state);
        self.send(part, sending)?;
        self.settle(false)?;
        Ok(offset)
    }

    fn finish(&self) -> Result<u64> {
        let mut state = self.state.lock();
        let part = std::mem::take(&mut state.part);
        let payload = payload(&part);
        match state.upload.as_mut() {
            None => {
                let large = Arc::clone(&self.large);
                self.send(part, async move { large.objects.put(&large.location, payload).await })?;
                self.settle(true)?;
            }
            Some(upload) => {
                if !part.is_empty() {
                    let sending = upload.put_part(payload);
                    self.send(part, sending)?;
                }
                self.settle(true)?;
                if let Err(error) = wait(upload.complete())?
                    && !self.is_there(state.end)
                {
                    return Err(self.failed(&error));
                }
            }
        }
        state.finished = true;
        Ok(state.end)
    }
}

impl Drop for BucketWriter {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if state.finished {
            return;
        }
        let Some(mut upload) = state.upload.take() else { return };
        // No part may arrive behind the upload's end: it would be kept, and paid for.
        let flight = std::mem::take(self.flight.get_mut());
        let ended = wait(async {
            flight.iter().for_each(JoinHandle::abort);
            futures::future::join_all(flight).await;
            upload.abort().await
        });
        let name = &self.large.name;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, object = name, "leaving an unfinished upload behind"),
            Err(error) => tracing::warn!(%error, object = name, "leaving an unfinished upload behind"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_the_object() {
        let part = |at_most| part_bytes(at_most, 16 << 20, 8);
        for (at_most, expected) in [
            (0, 5 << 20),
            (20 << 20, 5 << 20),
            (64 << 20, 8 << 20),
            (1 << 30, 16 << 20),
            (64 << 30, 16 << 20),
        ] {
            assert_eq!(part(at_most), expected, "{at_most}");
        }
        for at_most in [200u64 << 30, 5 << 40] {
            assert!(at_most.div_ceil(part(at_most)) < MOST_PARTS, "{at_most}");
        }
    }
}

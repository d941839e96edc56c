//! A large object as a multipart upload: pieces gather into parts, whoever fills a part sends it.

use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use parking_lot::Mutex;

use super::Provider;
use super::error::failed;
use super::runtime::wait;
use crate::error::{Error, Result};
use crate::storage::{Piece, Writer, crc32c};

/// S3 and GCS take parts from 5 MiB (the last one apart) and at most 10,000 of them; Azure takes any, and 50,000.
const SMALLEST_PART: u64 = 5 << 20;
const MOST_PARTS: u64 = 10_000;
const ALIGNMENT: usize = 4096;
static ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// Which object.
pub struct Large {
    pub objects: Arc<dyn ObjectStore>,
    pub provider: Provider,
    pub location: Path,
    /// For messages.
    pub name: String,
}

/// Memory: none of its own. The bytes go out from where the caller has them, one part a thread.
pub struct BucketWriter {
    large: Large,
    part_bytes: u64,
    state: Mutex<State>,
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
    /// `part_bytes`: of an object that is neither small nor very large; `requests`: in flight at once.
    pub fn begin(large: Large, part_bytes: u64, requests: usize, at_most: u64) -> BucketWriter {
        let part_bytes = part_bytes_of(at_most, part_bytes, requests);
        BucketWriter { large, part_bytes, state: Mutex::default() }
    }

    fn failed(&self, error: &object_store::Error) -> Error {
        failed(self.large.provider, format!("writing {}", self.large.name), error)
    }

    /// Whether the object is complete although its completion seems to have failed: an answer got lost, and the second try
    /// was told that there is no such upload. Nobody else uses the name, and a part of it is never seen.
    fn is_there(&self, bytes: u64) -> bool {
        let found = wait(async { self.large.objects.head(&self.large.location).await });
        found.is_ok_and(|found| found.is_ok_and(|found| found.size == bytes))
    }

    /// The store has taken these bytes: are they still those that were summed?
    fn check(&self, part: &[Piece]) -> Result<()> {
        match part.iter().all(|piece| crc32c(&piece.bytes) == piece.crc32c) {
            true => Ok(()),
            false => Err(Error::corrupt(format!(
                "writing {}: bytes changed while they were sent",
                self.large.name
            ))),
        }
    }
}

/// Small enough that every request has a part, and large enough that there are not too many of them.
fn part_bytes_of(at_most: u64, usual: u64, requests: usize) -> u64 {
    let shared = at_most.div_ceil(requests.max(1) as u64).next_multiple_of(ALIGNMENT as u64);
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
        wait(sending)?.map_err(|error| self.failed(&error))?;
        self.check(&part)?;
        Ok(offset)
    }

    fn finish(&self) -> Result<u64> {
        let mut state = self.state.lock();
        let part = std::mem::take(&mut state.part);
        let payload = payload(&part);
        match state.upload.as_mut() {
            None => {
                let sent = wait(async { self.large.objects.put(&self.large.location, payload).await })?;
                sent.map(drop).map_err(|error| self.failed(&error))?;
            }
            Some(upload) => {
                let sent = wait(async {
                    if !part.is_empty() {
                        upload.put_part(payload).await?;
                    }
                    upload.complete().await.map(drop)
                })?;
                if let Err(error) = sent
                    && !self.is_there(state.end)
                {
                    return Err(self.failed(&error));
                }
            }
        }
        state.finished = true;
        self.check(&part)?;
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
        match wait(async { upload.abort().await }) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, object = self.large.name, "leaving an unfinished upload behind")
            }
            Err(error) => {
                tracing::warn!(%error, object = self.large.name, "leaving an unfinished upload behind")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_fit_the_object() {
        let part = |at_most| part_bytes_of(at_most, 16 << 20, 8);
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

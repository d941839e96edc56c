//! Reading what a COMMIT leads to: manifests and packs, each checked against who named it. What is missing, short or
//! changed is Corrupt, with the object's name.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::parallel::each;
use super::store::Place;
use crate::error::{Error, Kind, Result};
use crate::format::{CommitRecord, RankManifest, manifest, paths};
use crate::proto::format::{Manifest, Pack};
use crate::storage::{Part, Reader, Store, crc32c};

/// The manifest that COMMIT names for a rank.
pub fn read_manifest(place: &Place, record: &CommitRecord, named: &RankManifest) -> Result<Manifest> {
    let what = place.objects.name_of(&named.path);
    paths::check_data_path(&named.path, &format!("COMMIT of step {}", record.step))?;
    let bytes = place.objects.read(&named.path).map_err(|error| missing(error, &what))?;
    decode_manifest(record, named, &bytes, &what)
}

/// Corrupt unless these are the bytes that COMMIT names for the rank. `what` names them.
pub fn decode_manifest(
    record: &CommitRecord,
    named: &RankManifest,
    bytes: &[u8],
    what: &str,
) -> Result<Manifest> {
    if bytes.len() as u64 != named.bytes || manifest::hash(bytes) != named.blake3 {
        return Err(Error::corrupt(format!("reading {what}: its bytes are not those that COMMIT names")));
    }
    let manifest = manifest::decode(bytes, what)?;
    let own = manifest.job_uuid == record.job_uuid.to_string()
        && manifest.step == record.step.0
        && manifest.generation == record.generation.0
        && manifest.rank == named.rank.0;
    match own {
        true => Ok(manifest),
        false => Err(Error::corrupt(format!("reading {what}: it is the manifest of something else"))),
    }
}

/// All manifests of a step, in the order of its ranks.
pub fn read_manifests(place: &Place, record: &CommitRecord) -> Result<Vec<Manifest>> {
    each(place.threads, record.ranks.iter().collect(), |named| read_manifest(place, record, named))
}

/// The packs that a step's chunks lie in, each opened once.
pub struct Packs {
    objects: Arc<dyn Store>,
    open: Mutex<HashMap<String, Opened>>,
}

/// None until the first reader of the pack has opened it; others of the same pack wait, those of another don't.
type Opened = Arc<Mutex<Option<Arc<dyn Reader>>>>;

/// Where a chunk lies, and the sum of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sum {
    pub offset: u64,
    pub crc32c: u32,
}

impl Packs {
    pub fn new(objects: &Arc<dyn Store>) -> Packs {
        Packs { objects: Arc::clone(objects), open: Mutex::default() }
    }

    /// For messages.
    pub fn name_of(&self, pack: &Pack) -> String {
        self.objects.name_of(&pack.path)
    }

    /// Corrupt when the pack is missing or not as long as it was.
    pub fn open(&self, pack: &Pack) -> Result<Arc<dyn Reader>> {
        let opened = Arc::clone(self.open.lock().entry(pack.path.clone()).or_default());
        let mut opened = opened.lock();
        if let Some(reader) = &*opened {
            return Ok(Arc::clone(reader));
        }
        let what = self.objects.name_of(&pack.path);
        let reader = self.objects.reader(&pack.path).map_err(|error| missing(error, &what))?;
        if reader.bytes() != pack.bytes {
            return Err(Error::corrupt(format!(
                "reading {what}: it has {} bytes and had {} when it was written",
                reader.bytes(),
                pack.bytes
            )));
        }
        let reader: Arc<dyn Reader> = reader.into();
        *opened = Some(Arc::clone(&reader));
        Ok(reader)
    }

    /// How many bytes of a pack one request had better bring; 0: each chunk for itself.
    pub fn together(&self, pack: &Pack) -> Result<u64> {
        Ok(self.open(pack)?.together())
    }

    /// Fills several chunks of one pack that lie close to each other, by ascending offset, in one request. Their sums are
    /// checked before this returns.
    pub fn read_together(&self, pack: &Pack, chunks: &mut [(Sum, &mut [u8])]) -> Result<()> {
        let mut parts: Vec<Part<'_>> =
            chunks.iter_mut().map(|(sum, target)| Part { offset: sum.offset, target }).collect();
        self.open(pack)?.read_together(&mut parts)?;
        for (sum, target) in chunks {
            if crc32c(target) != sum.crc32c {
                self.read(pack, *sum, target)?;
            }
        }
        Ok(())
    }

    /// Fills `target` with a chunk, whose sum is checked before this returns.
    pub fn read(&self, pack: &Pack, chunk: Sum, target: &mut [u8]) -> Result<()> {
        let reader = self.open(pack)?;
        reader.read_at(chunk.offset, target)?;
        if crc32c(target) == chunk.crc32c {
            return Ok(());
        }
        // Once more: a flip on the way is not a flip in the store.
        reader.read_at(chunk.offset, target)?;
        let what = self.objects.name_of(&pack.path);
        if crc32c(target) == chunk.crc32c {
            tracing::warn!(
                pack = what,
                offset = chunk.offset,
                "bytes were damaged on the way from the store"
            );
            return Ok(());
        }
        Err(Error::corrupt(format!(
            "reading {} bytes at {} of {what}: they are not what was written (CRC32C does not match)",
            target.len(),
            chunk.offset
        )))
    }
}

/// An object that something names and that is not there is damage.
pub fn missing(error: Error, what: &str) -> Error {
    match error.kind {
        Kind::NotFound => Error::corrupt(format!("reading {what}: it is missing")),
        _ => error,
    }
}

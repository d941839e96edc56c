//! What the first pages of an arena file hold. Page 0: the identity (written once, under a CRC) and how much of the file
//! has memory; then one page per slot; then the slots' data, each a multiple of 4096 bytes.

use std::sync::atomic::AtomicU64;

use crc_fast::{CrcAlgorithm, checksum};
use uuid::Uuid;

use super::state::SlotState;
use crate::error::{Error, Result};
use crate::ids::{JobUuid, Rank};

pub(super) const PAGE: u64 = 4096;
const MAGIC: [u8; 8] = *b"STRATAAR";
const VERSION: u32 = 1;
/// Longest job name, in bytes.
const JOB_BYTES: usize = 64;
/// Encoded identity, its CRC included.
pub(super) const IDENTITY_BYTES: usize = 144;
/// Where page 0 says how much of the file has memory.
pub(super) const ALLOCATION_OFFSET: usize = 2112;

/// Whose arena this is. `file` tells the files of one rank apart: a new session gets a new file when the old process
/// can't be proved dead, or when the state outgrew the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaIdentity {
    pub job: crate::ids::JobName,
    pub job_uuid: JobUuid,
    pub rank: Rank,
    pub file: u64,
}

/// Page 0's immutable part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ArenaHeader {
    pub identity: ArenaIdentity,
    pub boot: Uuid,
    pub slots: u32,
    pub slot_bytes: u64,
}

pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

impl ArenaHeader {
    pub fn file_bytes(&self) -> u64 {
        self.slot_offset(self.slots)
    }

    pub fn slot_header_offset(&self, slot: u32) -> u64 {
        PAGE * (1 + u64::from(slot))
    }

    pub fn slot_offset(&self, slot: u32) -> u64 {
        PAGE * (1 + u64::from(self.slots)) + self.slot_bytes * u64::from(slot)
    }

    pub fn encode(&self) -> [u8; IDENTITY_BYTES] {
        let mut out = [0; IDENTITY_BYTES];
        let job = self.identity.job.as_str().as_bytes();
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&self.slots.to_le_bytes());
        put(&self.slot_bytes.to_le_bytes());
        put(&self.identity.file.to_le_bytes());
        put(&self.identity.rank.0.to_le_bytes());
        put(&(job.len() as u32).to_le_bytes());
        put(self.boot.as_bytes());
        put(self.identity.job_uuid.0.as_bytes());
        put(job);
        let crc = crc32c(&out[..IDENTITY_BYTES - 4]);
        out[IDENTITY_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Corrupt when it is no arena or damaged; Invalid when a newer Strata wrote it.
    pub fn decode(bytes: &[u8; IDENTITY_BYTES]) -> Result<ArenaHeader> {
        if bytes[..8] != MAGIC {
            return Err(Error::corrupt(
                "reading the arena's header: it does not start with an arena's magic",
            ));
        }
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let uuid_at = |at: usize| Uuid::from_bytes(bytes[at..at + 16].try_into().expect("16 bytes"));
        let version = u32_at(8);
        if version != VERSION {
            return Err(Error::invalid(format!(
                "reading the arena's header: layout {version}, this build knows {VERSION}"
            ))
            .hint("it was made by another version of Strata: end that sidecar and remove the file"));
        }
        if u32_at(IDENTITY_BYTES - 4) != crc32c(&bytes[..IDENTITY_BYTES - 4]) {
            return Err(Error::corrupt("reading the arena's header: its checksum does not match"));
        }
        let job_bytes = (u32_at(36) as usize).min(JOB_BYTES);
        let job = std::str::from_utf8(&bytes[72..72 + job_bytes])
            .map_err(|error| Error::corrupt(format!("reading the arena's job name: {error}")))?;
        Ok(ArenaHeader {
            slots: u32_at(12),
            slot_bytes: u64_at(16),
            boot: uuid_at(40),
            identity: ArenaIdentity {
                job: job.parse()?,
                job_uuid: JobUuid(uuid_at(56)),
                rank: Rank(u32_at(32)),
                file: u64_at(24),
            },
        })
    }
}

/// One slot's page. The first group is written by whoever begins a filling (the sidecar), the second by whoever seals
/// it; each group carries a check of itself that is bound to the slot and the fill.
#[repr(C, align(64))]
pub(super) struct SlotHeader {
    pub word: AtomicU64,
    pub session: AtomicU64,
    pub generation: AtomicU64,
    pub step: AtomicU64,
    pub begin_check: AtomicU64,

    pub data_bytes: AtomicU64,
    pub index_offset: AtomicU64,
    pub index_bytes: AtomicU64,
    pub index_crc: AtomicU64,
    pub seal_check: AtomicU64,
}

/// The check of a group of fields: CRC32C over them, the slot and the fill, with a high bit so that it is never the
/// zero of a fresh page.
pub(super) fn check(slot: u32, fill: u64, fields: &[u64]) -> u64 {
    let mut bytes = Vec::with_capacity(16 + 8 * fields.len());
    bytes.extend_from_slice(&u64::from(slot).to_le_bytes());
    bytes.extend_from_slice(&fill.to_le_bytes());
    for field in fields {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    1 << 32 | u64::from(crc32c(&bytes))
}

/// What a slot's header says, checked. Lengths are 0 until it is sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotSnapshot {
    pub slot: u32,
    pub state: SlotState,
    /// Number of this filling; 0 when the slot was never used.
    pub fill: u64,
    /// 0 for a step that the sidecar restored into the slot.
    pub session: crate::ids::SessionId,
    pub generation: crate::ids::Generation,
    pub step: crate::ids::Step,
    pub rank: Rank,
    pub data_bytes: u64,
    pub index_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ArenaHeader {
        ArenaHeader {
            identity: ArenaIdentity {
                job: "run-1".parse().unwrap(),
                job_uuid: JobUuid(Uuid::from_u128(0x0102)),
                rank: Rank(3),
                file: 7,
            },
            boot: Uuid::from_u128(0xb007),
            slots: 2,
            slot_bytes: 8192,
        }
    }

    #[test]
    fn header_of_version_1_still_loads() {
        let golden = include_bytes!("golden/arena-header-v1.bin");
        assert_eq!(ArenaHeader::decode(golden).unwrap(), sample());
        assert_eq!(sample().encode(), *golden);
    }

    #[test]
    fn any_flipped_bit_of_the_header_is_found() {
        let good = sample().encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ArenaHeader::decode(&bad).is_err(), "bit {bit}");
        }
    }
}

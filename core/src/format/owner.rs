//! OWNER: which cluster writes under a prefix, and the job's identity, which outlives a lost coordinator.

use serde::{Deserialize, Serialize};

use super::sealed_json;
use crate::error::Result;
use crate::ids::{ClusterId, JobUuid};

const FORMAT: u32 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub cluster: ClusterId,
    pub job_uuid: JobUuid,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    owner: Owner,
}

impl Owner {
    pub fn encode(&self) -> Vec<u8> {
        sealed_json::encode(&File { format: FORMAT, owner: *self })
    }

    /// Corrupt on any damage; Invalid when a newer version wrote it.
    pub fn decode(bytes: &[u8]) -> Result<Owner> {
        Ok(sealed_json::decode::<File>(bytes, FORMAT, "OWNER")?.owner)
    }
}

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
    /// The user whose job it is; not in what was written before users were told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As written before it named a user.
    const GOLDEN: &str = include_str!("owner/without_uid");

    #[test]
    fn an_owner_without_a_user_still_loads_and_one_with_a_user_comes_back() {
        let old = Owner::decode(GOLDEN.as_bytes()).unwrap();
        assert_eq!(old.cluster.to_string(), "2d98ee39-6f2c-4a04-a2ed-871b0c626292");
        assert_eq!(old.uid, None);
        assert_eq!(old.encode(), GOLDEN.as_bytes(), "and is written as it was");
        let new = Owner { uid: Some(1000), ..old };
        assert_eq!(Owner::decode(&new.encode()).unwrap(), new);
    }
}

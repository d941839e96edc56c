//! JSON that people can read, ended by a line `blake3:<hex>` over everything before it: COMMIT, OWNER, and what a sidecar
//! keeps beside its arenas.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

const MARK: &str = "blake3:";

pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes =
        serde_json::to_vec_pretty(value).expect("plain structs with string keys always serialise");
    bytes.push(b'\n');
    let seal = blake3::hash(&bytes).to_hex();
    bytes.extend_from_slice(format!("{MARK}{seal}\n").as_bytes());
    bytes
}

/// `version` is the newest that this build reads; `what` names the object in messages.
pub fn decode<T: DeserializeOwned>(bytes: &[u8], version: u32, what: &str) -> Result<T> {
    let damaged = |why: &str| Error::corrupt(format!("reading {what}: {why}"));
    let seal = MARK.len() + 2 * blake3::OUT_LEN + 1;
    let cut = bytes.len().checked_sub(seal).ok_or_else(|| damaged("it is truncated"))?;
    let (body, line) = bytes.split_at(cut);
    if line != format!("{MARK}{}\n", blake3::hash(body).to_hex()).as_bytes() {
        return Err(damaged("its bytes are not what was written (the BLAKE3 line does not match)"));
    }
    #[derive(serde::Deserialize)]
    struct Versioned {
        format: u32,
    }
    let found: Versioned =
        serde_json::from_slice(body).map_err(|error| damaged(&format!("no format version: {error}")))?;
    if found.format > version {
        let message =
            format!("reading {what}: it has format {}, this build reads up to {version}", found.format);
        return Err(Error::invalid(message).hint("read it with the newer version of Strata that wrote it"));
    }
    serde_json::from_slice(body).map_err(|error| damaged(&error.to_string()))
}

//! Which boot of the machine this is: an arena of an earlier one is not what was sealed.

use std::sync::OnceLock;

use uuid::Uuid;

use crate::error::{Doing, Error, Result};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(super) fn boot_id() -> Result<Uuid> {
    static KNOWN: OnceLock<Uuid> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(*known);
    }
    let text = std::fs::read_to_string(BOOT_ID).doing(|| format!("reading {BOOT_ID}"))?;
    let boot =
        Uuid::parse_str(text.trim()).map_err(|e| Error::internal(format!("reading {BOOT_ID}: {e}")))?;
    Ok(*KNOWN.get_or_init(|| boot))
}

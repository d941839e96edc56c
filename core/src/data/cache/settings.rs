//! Where the cache is and how large, and how buckets are reached: as the process that reads finds it, environment before file.

use std::path::PathBuf;

use crate::config::{Environment, Loaded, locate};
use crate::error::Result;
use crate::storage::StoreOptions;

/// The settings as an error message names them.
pub const FOLDER_SETTING: &str = "data.cache_dir (STRATA_DATA_CACHE)";
pub const CAP_SETTING: &str = "data.cache_bytes (STRATA_DATA_CACHE_BYTES)";

#[derive(Clone, Debug)]
pub struct Settings {
    pub folder: PathBuf,
    /// None: by the disk.
    pub cap: Option<u64>,
    /// Buckets of datasets are reached like that of the checkpoints.
    pub store: StoreOptions,
}

impl Settings {
    /// Fails with Invalid for a configuration that can't be read.
    pub fn of_process() -> Result<Settings> {
        let env = Environment::process();
        let config = Loaded::load(&env, None, &[])?.config;
        Ok(Settings {
            folder: locate::data_cache(&env, config.data.cache_dir.as_deref())?,
            cap: config.data.cache_bytes.map(|cap| cap.0),
            store: StoreOptions::from(&config.store),
        })
    }
}

//! How to reach a store and how long to try.

use std::fmt;
use std::time::Duration;

use super::BufferBudget;
use crate::config::{Secret, StoreConfig};
use crate::error::{Error, Result};

/// How bytes get into a local disk's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskQueue {
    /// Through io_uring where the kernel grants it, else by threads.
    #[default]
    Probed,
    /// By threads that wait for their write, everywhere.
    Threads,
}

/// Settings of a store. Credentials are never shown by Debug or in messages.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// S3: base URL of the service, such as `http://127.0.0.1:7070`; none: AWS.
    pub endpoint: Option<String>,
    pub region: Option<String>,
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<String>,
    pub session_token: Option<String>,
    /// Plain HTTP, for servers on the same machine or network.
    pub allow_http: bool,
    /// GCS: an emulator's base URL. It is asked without credentials, and may be plain HTTP.
    pub gcs_emulator: Option<String>,
    /// Azure: the storage account, where the URL names none.
    pub azure_account: Option<String>,
    pub azure_key: Option<String>,
    /// Azure: base URL of the account, such as `http://127.0.0.1:10000/devstoreaccount1`; none: Azure itself.
    pub azure_endpoint: Option<String>,
    /// One request.
    pub request_timeout: Duration,
    /// All tries of one operation together.
    pub retry_budget: Duration,
    /// Threads that persist or restore. Eight keep a local disk as busy as it gets while other work wants the cores (1.1 GB
    /// on two busy cores: 0.60–0.69 s with eight, 0.65–0.96 s with four).
    pub concurrency: usize,
    /// Object stores: the most bodies in flight at once in each direction; how many there are is found by trying.
    pub requests: usize,
    /// A directory: how its disk is kept busy.
    pub disk_queue: DiskQueue,
    /// Object stores: bytes that one request carries of a large object; none: by the measured rate.
    pub part_bytes: Option<u64>,
    /// Memory for persisting and restoring, beyond the arenas; shared by all clones of these options.
    pub buffers: BufferBudget,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions {
            endpoint: None,
            region: None,
            access_key_id: None,
            secret_access_key: None,
            session_token: None,
            allow_http: false,
            gcs_emulator: None,
            azure_account: None,
            azure_key: None,
            azure_endpoint: None,
            request_timeout: Duration::from_secs(30),
            retry_budget: Duration::from_secs(60),
            concurrency: 8,
            requests: 64,
            disk_queue: DiskQueue::default(),
            part_bytes: None,
            buffers: BufferBudget::default(),
        }
    }
}

impl StoreOptions {
    /// Defaults, with what the providers' own variables say (AWS_*, AZURE_*, STORAGE_EMULATOR_HOST); `get` looks a variable up.
    /// Invalid when AWS_ALLOW_HTTP is neither true nor false.
    pub fn from_environment(get: impl Fn(&str) -> Option<String>) -> Result<StoreOptions> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let allow_http = match get("AWS_ALLOW_HTTP").as_deref() {
            None | Some("false" | "0") => false,
            Some("true" | "1") => true,
            Some(other) => {
                let message = format!("reading AWS_ALLOW_HTTP: {other:?} is neither true nor false");
                return Err(Error::invalid(message).hint("set AWS_ALLOW_HTTP=true or unset it"));
            }
        };
        Ok(StoreOptions {
            endpoint: get("AWS_ENDPOINT_URL_S3")
                .or_else(|| get("AWS_ENDPOINT_URL"))
                .or_else(|| get("AWS_ENDPOINT")),
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
            access_key_id: get("AWS_ACCESS_KEY_ID"),
            secret_access_key: get("AWS_SECRET_ACCESS_KEY"),
            session_token: get("AWS_SESSION_TOKEN"),
            allow_http,
            gcs_emulator: get("STORAGE_EMULATOR_HOST"),
            azure_account: get("AZURE_STORAGE_ACCOUNT_NAME"),
            azure_key: get("AZURE_STORAGE_ACCOUNT_KEY"),
            azure_endpoint: get("AZURE_STORAGE_ENDPOINT"),
            ..StoreOptions::default()
        })
    }
}

/// What the `[store]` section says.
impl From<&StoreConfig> for StoreOptions {
    fn from(config: &StoreConfig) -> StoreOptions {
        let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.0.clone());
        StoreOptions {
            endpoint: config.endpoint.clone(),
            region: config.region.clone(),
            access_key_id: config.access_key_id.clone(),
            secret_access_key: secret(&config.secret_access_key),
            session_token: secret(&config.session_token),
            allow_http: config.allow_http,
            gcs_emulator: config.gcs_emulator.clone(),
            azure_account: config.azure_account.clone(),
            azure_key: secret(&config.azure_key),
            azure_endpoint: config.azure_endpoint.clone(),
            request_timeout: config.timeout,
            requests: config.requests as usize,
            ..StoreOptions::default()
        }
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("credentials", &self.access_key_id.as_ref().or(self.azure_key.as_ref()).map(|_| "given"))
            .field("gcs_emulator", &self.gcs_emulator)
            .field("azure_account", &self.azure_account)
            .field("azure_endpoint", &self.azure_endpoint)
            .field("allow_http", &self.allow_http)
            .field("request_timeout", &self.request_timeout)
            .field("retry_budget", &self.retry_budget)
            .field("concurrency", &self.concurrency)
            .field("requests", &self.requests)
            .field("disk_queue", &self.disk_queue)
            .field("part_bytes", &self.part_bytes)
            .field("buffers", &self.buffers)
            .finish()
    }
}

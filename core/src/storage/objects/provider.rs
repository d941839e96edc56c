//! Who keeps the bucket, what every client of theirs is given, and what a user is told to look at.

use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use crate::error::{Error, Result};
use crate::storage::StoreOptions;

/// The budget of time ends the tries, not their number.
const MOST_TRIES: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    S3,
    Gcs,
    Azure,
}

impl Provider {
    /// Where its credentials come from.
    pub fn credentials(self) -> &'static str {
        match self {
            Provider::S3 => "[store], or AWS_*",
            Provider::Gcs => "GOOGLE_APPLICATION_CREDENTIALS, or the instance's service account",
            Provider::Azure => {
                "[store], AZURE_STORAGE_ACCOUNT_NAME and _KEY, or AZURE_CLIENT_ID and its like"
            }
        }
    }

    /// What it calls the place that must be there before.
    pub fn place(self) -> &'static str {
        match self {
            Provider::S3 | Provider::Gcs => "bucket",
            Provider::Azure => "container",
        }
    }

    /// Its code for a bucket that is not there.
    pub fn no_place(self) -> &'static str {
        match self {
            Provider::S3 | Provider::Gcs => "NoSuchBucket",
            Provider::Azure => "ContainerNotFound",
        }
    }
}

pub fn client(options: &StoreOptions) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(options.allow_http)
        .with_timeout(options.request_timeout)
        .with_connect_timeout(options.request_timeout)
}

pub fn retry(options: &StoreOptions) -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: MOST_TRIES,
        retry_timeout: options.retry_budget,
    }
}

/// Invalid for an endpoint that would be asked without TLS, unless that is allowed.
pub fn check_endpoint(opening: &str, endpoint: Option<&str>, options: &StoreOptions) -> Result<()> {
    match endpoint {
        Some(endpoint) if endpoint.starts_with("http://") && !options.allow_http => {
            Err(Error::invalid(format!("opening {opening}: {endpoint} is not encrypted"))
                .hint("set store.allow_http (AWS_ALLOW_HTTP=true) if the network between is yours"))
        }
        _ => Ok(()),
    }
}

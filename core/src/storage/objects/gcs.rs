//! Google Cloud Storage, over its XML API. Create-only is `x-goog-if-generation-match: 0`.

use std::sync::Arc;

use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::{ObjectStore, StaticCredentialProvider};

use super::provider::{client, retry};
use super::transport::Watching;
use crate::error::{Error, Result};
use crate::storage::StoreOptions;

/// Reaches for nothing yet. Credentials are found as object_store finds them: GOOGLE_SERVICE_ACCOUNT(_KEY),
/// GOOGLE_APPLICATION_CREDENTIALS, gcloud's own file, the instance.
pub fn bucket(bucket: &str, options: &StoreOptions, watching: Watching) -> Result<Arc<dyn ObjectStore>> {
    let mut builder = GoogleCloudStorageBuilder::from_env()
        .with_bucket_name(bucket)
        .with_retry(retry(options))
        .with_http_connector(watching);
    builder = match &options.gcs_emulator {
        None => builder.with_client_options(client(options)),
        Some(emulator) => {
            // As Google's own clients read STORAGE_EMULATOR_HOST: with or without the scheme, and no credentials.
            let url = match emulator.contains("://") {
                true => emulator.trim_end_matches('/').to_owned(),
                false => format!("http://{emulator}"),
            };
            let nobody = GcpCredential { bearer: String::new() };
            builder
                .with_base_url(&url)
                .with_credentials(Arc::new(StaticCredentialProvider::new(nobody)))
                .with_client_options(client(options).with_allow_http(true))
        }
    };
    let client = builder.build().map_err(|error| {
        Error::invalid(format!("opening gs://{bucket}: {error}"))
            .hint("GOOGLE_APPLICATION_CREDENTIALS names a service account's JSON file")
    })?;
    Ok(Arc::new(client))
}

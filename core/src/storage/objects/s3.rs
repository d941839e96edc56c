//! S3 and what speaks like it. Create-only is `If-None-Match: *`.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

use super::provider::{check_endpoint, client, retry};
use super::transport::Watching;
use crate::error::{Error, Result};
use crate::storage::StoreOptions;

const DEFAULT_REGION: &str = "us-east-1";

/// Reaches for nothing yet. Credentials that the options lack are found as object_store finds them: environment, web
/// identity, container, instance.
pub fn bucket(bucket: &str, options: &StoreOptions, watching: Watching) -> Result<Arc<dyn ObjectStore>> {
    check_endpoint(&format!("s3://{bucket}"), options.endpoint.as_deref(), options)?;
    if options.access_key_id.is_some() != options.secret_access_key.is_some() {
        return Err(Error::invalid(format!(
            "opening s3://{bucket}: of access key and secret only one is given"
        ))
        .hint("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither"));
    }
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client(options))
        .with_retry(retry(options))
        .with_http_connector(watching)
        .with_conditional_put(S3ConditionalPut::ETagMatch);
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    } else if builder.get_config_value(&object_store::aws::AmazonS3ConfigKey::Region).is_none() {
        builder = builder.with_region(DEFAULT_REGION);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let (Some(key), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
        builder = builder.with_access_key_id(key).with_secret_access_key(secret);
    }
    if let Some(token) = &options.session_token {
        builder = builder.with_token(token);
    }
    let client = builder.build();
    Ok(Arc::new(client.map_err(|error| Error::invalid(format!("opening s3://{bucket}: {error}")))?))
}

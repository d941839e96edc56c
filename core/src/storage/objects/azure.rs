//! Azure Blob Storage. Create-only is `If-None-Match: *`.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};

use super::provider::{check_endpoint, client, retry};
use super::transport::Watching;
use crate::error::{Error, Result};
use crate::storage::StoreOptions;

/// Reaches for nothing yet. `account`: as the URL names it, else the options, else AZURE_STORAGE_ACCOUNT_NAME. Credentials
/// that the options lack are found as object_store finds them: access key, service principal, workload identity, SAS,
/// managed identity.
pub fn container(
    account: Option<&str>,
    container: &str,
    options: &StoreOptions,
    watching: Watching,
) -> Result<Arc<dyn ObjectStore>> {
    let opening = format!("az://{container}");
    check_endpoint(&opening, options.azure_endpoint.as_deref(), options)?;
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(container)
        .with_client_options(client(options))
        .with_retry(retry(options))
        .with_http_connector(watching);
    if let Some(account) = account.or(options.azure_account.as_deref()) {
        builder = builder.with_account(account);
    }
    let emulated =
        builder.get_config_value(&AzureConfigKey::UseEmulator).is_some_and(|value| value == "true");
    if builder.get_config_value(&AzureConfigKey::AccountName).is_none() && !emulated {
        return Err(Error::invalid(format!("opening {opening}: no storage account is named")).hint(
            "set AZURE_STORAGE_ACCOUNT_NAME, or write abfss://container@ACCOUNT.dfs.core.windows.net/prefix",
        ));
    }
    if let Some(key) = &options.azure_key {
        builder = builder.with_access_key(key);
    }
    if let Some(endpoint) = &options.azure_endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let client = builder.build().map_err(|error| {
        Error::invalid(format!("opening {opening}: {error}"))
            .hint("AZURE_STORAGE_ACCOUNT_KEY is the account's key in base64, as the portal shows it")
    })?;
    Ok(Arc::new(client))
}

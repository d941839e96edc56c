//! Azure: over a real server where the environment names one, and what options are refused.

use super::azurite::Azurite;
use super::conforms;
use crate::error::Kind;
use crate::storage::{StoreOptions, StoreUrl, open};

#[test]
fn a_real_azure_server_conforms() {
    let Some(server) = Azurite::start() else { return };
    conforms(&open(&server.url, &server.options, "job").unwrap());
}

#[test]
fn a_real_azure_server_says_what_is_wrong_with_credentials_and_containers() {
    let Some(server) = Azurite::start() else { return };
    let key = Some("aHVudGVyMg==".to_owned());
    let stranger = StoreOptions { azure_key: key, ..server.options.clone() };
    let error = open(&server.url, &stranger, "").unwrap().list("").unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(!error.to_string().contains("aHVudGVyMg") && !error.to_string().contains("<Error>"), "{error}");
    assert!(error.hint.unwrap().contains("AZURE_STORAGE_ACCOUNT_NAME"));
    let nowhere: StoreUrl = "az://no-such-container/x".parse().unwrap();
    let error = open(&nowhere, &server.options, "").unwrap().create("a", "x".into()).unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
    assert!(error.message.contains("az://no-such-container/x/a"), "{error}");
    assert!(error.hint.unwrap().contains("container"));
}

#[test]
fn options_that_azure_can_not_work_with_are_refused_before_anything_is_asked() {
    let key = Some("no base64!".to_owned());
    let account = Some("acc".to_owned());
    for (url, options, hint) in [
        ("az://c/p", StoreOptions::default(), "AZURE_STORAGE_ACCOUNT_NAME"),
        (
            "abfss://c@acc.dfs.core.windows.net/p",
            StoreOptions { azure_key: key, ..StoreOptions::default() },
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
        (
            "az://c/p",
            StoreOptions {
                azure_account: account,
                azure_endpoint: Some("http://10.0.0.1:10000/acc".into()),
                ..StoreOptions::default()
            },
            "allow_http",
        ),
    ] {
        let error = open(&url.parse().unwrap(), &options, "").unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{error}");
        assert!(error.hint.as_ref().is_some_and(|text| text.contains(hint)), "{url}: {error:?}");
    }
}

//! gRPC's transport as a user meets it: PEM files that are what they should be, and what a connection that failed says,
//! in words that help. Called by client, sidecar and coordinator; opens no connection itself.

use std::error::Error as StdError;
use std::path::Path;

use tonic::Status;
use tonic::transport::{Certificate, Identity};

use crate::error::{Doing, Error, Result};

/// Authorities in a PEM file. Invalid when it holds no certificate: nobody would be trusted, and nothing say why.
pub fn authorities(path: &Path) -> Result<Certificate> {
    let text = read(path)?;
    let marker = b"-----BEGIN CERTIFICATE-----";
    if !text.windows(marker.len()).any(|window| window == marker) {
        return Err(Error::invalid(format!("reading {}: it holds no certificate", path.display()))
            .hint("tls_ca and tls_client_ca name a PEM file with the authority's certificate"));
    }
    Ok(Certificate::from_pem(text))
}

/// A certificate chain and its key.
pub fn identity(chain: &Path, key: &Path) -> Result<Identity> {
    Ok(Identity::from_pem(read(chain)?, read(key)?))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).doing(|| format!("reading {}", path.display()))
}

/// How a connection failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Such as "Connection refused (os error 111)".
    pub why: String,
    /// What to do, where the failure tells.
    pub hint: Option<&'static str>,
}

const WRONG_AUTHORITY: &str =
    "tls_ca in [sidecar] (STRATA_COORDINATOR_CA) must name the authority of the coordinator's certificate";
const WRONG_NAME: &str = "its certificate is for other names: write its address with one of those";
const WRONG_TIME: &str = "its certificate is not valid now: renew it, or set this machine's clock";
const NO_TLS: &str = "it doesn't serve TLS: write its address as http://…";
const OWN_CERTIFICATE: &str = "is it running? With tls_client_ca it wants a certificate of that authority from us: tls_cert and tls_key in [sidecar]";
const PERHAPS_TLS: &str = "is it running? If it serves TLS, its address begins with https://";

/// In the words of `rustls`, `h2` and the system, which keep no codes on their way through the transport's errors.
const TELLING: [(&str, &str, &str); 11] = [
    ("https", "UnknownIssuer", WRONG_AUTHORITY),
    ("https", "NotValidForName", WRONG_NAME),
    ("https", "certificate expired", WRONG_TIME),
    ("https", "certificate not valid yet", WRONG_TIME),
    ("https", "InvalidContentType", NO_TLS),
    // TLS 1.3: the server judges our certificate when we believe the handshake to be done.
    ("https", "fatal alert", OWN_CERTIFICATE),
    ("https", "broken pipe", OWN_CERTIFICATE),
    ("https", "connection closed", OWN_CERTIFICATE),
    ("http", "broken pipe", PERHAPS_TLS),
    ("http", "http2 error", PERHAPS_TLS),
    ("http", "invalid size", PERHAPS_TLS),
];

/// Of a connection to `url`.
pub fn refusal(url: &str, error: &(dyn StdError + 'static)) -> Refusal {
    let mut said = vec![error.to_string()];
    let mut next = error.source();
    while let Some(cause) = next {
        said.push(cause.to_string());
        next = cause.source();
    }
    let scheme = url.split("://").next().unwrap_or_default();
    let all = said.join(": ");
    let telling = TELLING.iter().find(|(of, words, _)| *of == scheme && all.contains(words));
    // The outer ones are "transport error" and the like.
    Refusal { why: said.pop().unwrap_or_default(), hint: telling.map(|(.., hint)| *hint) }
}

/// Of a call that never reached `url`.
pub fn refusal_of(url: &str, status: &Status) -> Refusal {
    match status.source() {
        Some(source) => refusal(url, source),
        None => Refusal { why: status.message().to_owned(), hint: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_without_a_certificate_is_invalid() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        let error = authorities(&path).unwrap_err();
        assert!(error.message.contains("ca.pem: it holds no certificate") && error.hint.is_some(), "{error}");
    }

    #[test]
    fn hint_is_what_the_cause_below_tells() {
        let below = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let error = std::io::Error::other(below);
        let told = refusal("https://a:1", &error);
        assert_eq!(told.hint, Some(WRONG_AUTHORITY));
        assert!(told.why.contains("UnknownIssuer"));
        let refused = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
        assert_eq!(refusal("http://a:1", &refused).hint, None);
    }
}

//! TLS towards a coordinator, as [sidecar] tls_ca, tls_cert and tls_key configure it.

use std::path::PathBuf;

use tonic::transport::{ClientTlsConfig, Endpoint};

use crate::error::{Error, Result};
use crate::transport::{authorities, identity};

/// PEM files; all of them optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Authority that the server's certificate must come from; none: the system's.
    pub authority: Option<PathBuf>,
    /// Certificate chain and key that are shown to a server that asks for them.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ClientTls {
    /// An endpoint for `url`, with TLS where it says https. Invalid for an unreadable URL or PEM file.
    pub fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| {
            Error::invalid(format!("reading the coordinator's address {url:?}: {error}"))
                .hint("write it like http://127.0.0.1:50051")
        })?;
        if !url.starts_with("https://") {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.authority {
            Some(authority) => tls.ca_certificate(authorities(authority)?),
            None => tls.with_native_roots(),
        };
        if let Some((chain, key)) = &self.identity {
            tls = tls.identity(identity(chain, key)?);
        }
        endpoint.tls_config(tls).map_err(|error| {
            Error::invalid(format!("setting up TLS for {url}: {error}"))
                .hint("tls_ca, tls_cert and tls_key in [sidecar] must be PEM files")
        })
    }
}

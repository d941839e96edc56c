//! gRPC's transport as a user meets it: PEM files that are what they should be, and what a connection that failed says,
//! in words that help. Called by client, sidecar and coordinator; opens no connection itself.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use tonic::transport::{Certificate, Identity};
use tonic::{Code, Status};

use crate::error::{Doing, Error, KIND_KEY, LEADER_KEY, Result};

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

/// The coordinators of a set, as users list them (`URL,URL,URL`), and which of them is asked: one that leads, as far as is known.
/// Of a coordinator that is alone it is always that one.
#[derive(Debug)]
pub struct Route {
    list: String,
    urls: Vec<String>,
    at: AtomicUsize,
}

impl Route {
    pub fn of(list: &str) -> Route {
        let urls = list.split(',').map(str::to_owned).collect();
        Route { list: list.to_owned(), urls, at: AtomicUsize::new(0) }
    }

    /// As it is written.
    pub fn list(&self) -> &str {
        &self.list
    }

    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Index of the one that is asked now.
    pub fn at(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    pub fn url(&self) -> &str {
        &self.urls[self.at()]
    }

    /// After a call to number `from` failed so: goes on to the leader that it names, or to the next where the connection broke or
    /// it knows of none; whether the leader was named. Of several calls that failed at once one turns.
    pub fn turn(&self, from: usize, status: &Status) -> bool {
        let named = status.metadata().get(LEADER_KEY).and_then(|url| url.to_str().ok());
        let leader = named.and_then(|named| self.urls.iter().position(|url| url == named));
        if self.urls.len() > 1 && (named.is_some() || is_broken(status)) {
            let next = leader.unwrap_or((from + 1) % self.urls.len());
            // Somebody else may have turned before.
            let _ = self.at.compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed);
        }
        leader.is_some_and(|leader| leader != from)
    }
}

/// Whether nobody answered: what a service says itself carries its kind.
pub fn is_broken(status: &Status) -> bool {
    !status.metadata().contains_key(KIND_KEY)
        && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

/// Whether it is the answer of a coordinator that does not lead its set.
pub fn is_follower(status: &Status) -> bool {
    status.metadata().contains_key(LEADER_KEY)
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
    fn route_goes_to_the_leader_that_is_named_and_else_to_the_next() {
        let route = Route::of("http://a:1,http://b:1,http://c:1");
        let broken = Status::unavailable("connection refused");
        assert!(!route.turn(0, &broken) && route.url() == "http://b:1");
        assert!(!route.turn(0, &broken) && route.url() == "http://b:1", "another call of before has turned");
        let follower = |leader: &str| Status::from(Error::unavailable("follows").led_by(leader));
        assert!(route.turn(1, &follower("http://a:1")) && route.url() == "http://a:1");
        assert!(!route.turn(0, &follower("")) && route.url() == "http://b:1");
        assert!(!route.turn(1, &follower("http://elsewhere:1")) && route.url() == "http://c:1");
        let own = Status::from(Error::conflict("said by the leader"));
        assert!(!route.turn(2, &own) && route.url() == "http://c:1");
        let alone = Route::of("http://a:1");
        assert!(!alone.turn(0, &broken) && alone.url() == "http://a:1");
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

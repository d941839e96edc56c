//! Who is in the set: its addresses, which of them is this one, the secret that they share, the way to each.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::super::settings::TlsFiles;
use crate::config::locate;
use crate::error::{Error, Result};
use crate::transport::{authorities, identity, refusal};

/// A majority of three survives one, of five two; more make every change slower and are not asked for.
const SIZES: [usize; 2] = [3, 5];
/// Of a secret in characters: what can't be guessed.
const SECRET: usize = 16;
const CONNECT: Duration = Duration::from_millis(500);
const KEEP_ALIVE: Duration = Duration::from_secs(2);
const SECRET_KEY: &str = "strata-peers-secret";

/// How one coordinator of a set is configured.
#[derive(Clone)]
pub struct SetSettings {
    /// The addresses of all, this one's too; in any order, the same everywhere.
    pub peers: Vec<String>,
    /// Which of them is this one; None: the one that it listens on.
    pub advertise: Option<String>,
    pub secret: String,
    /// Authority of the others' certificates; None: the system's.
    pub authority: Option<PathBuf>,
}

impl std::fmt::Debug for SetSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SetSettings")
            .field("peers", &self.peers)
            .field("advertise", &self.advertise)
            .finish_non_exhaustive()
    }
}

/// The set as one of its coordinators sees it.
pub struct Peers {
    pub me: u64,
    /// By number: the addresses in their order, so that all number alike.
    pub urls: BTreeMap<u64, String>,
    channels: BTreeMap<u64, Channel>,
    token: AsciiMetadataValue,
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid(format!("starting a coordinator of a set: {what}"))
}

impl SetSettings {
    /// The addresses by number, and the number of this coordinator. Invalid for a set that can't work.
    pub fn check(&self, listen: SocketAddr, tls: bool) -> Result<(BTreeMap<u64, String>, u64)> {
        let mut all = self.peers.clone();
        all.sort();
        all.dedup();
        if !SIZES.contains(&all.len()) || all.len() != self.peers.len() {
            let message = format!("peers names {} different coordinators", all.len());
            return Err(invalid(message)
                .hint("name three or five, each once, this one too; the same list everywhere"));
        }
        if self.secret.chars().count() < SECRET {
            let message = format!("peers_secret has fewer than {SECRET} characters");
            return Err(invalid(message).hint(
                "make one with `openssl rand -hex 32` and give all coordinators of the set the same, as STRATA_PEERS_SECRET",
            ));
        }
        let urls: BTreeMap<u64, String> = (1..).zip(all).collect();
        let named = match &self.advertise {
            Some(own) => urls.iter().filter(|(_, url)| *url == own).map(|(number, _)| *number).collect(),
            None => urls
                .iter()
                .filter(|(_, url)| is_at(url, listen))
                .map(|(number, _)| *number)
                .collect::<Vec<_>>(),
        };
        let [me] = named[..] else {
            let which = self.advertise.clone().unwrap_or_else(|| listen.to_string());
            let message = format!("{which} is not one of peers ({})", list(&urls));
            return Err(invalid(message)
                .hint("say which of them this one is with --advertise URL, written as in --peers"));
        };
        if urls[&me].starts_with("https://") != tls {
            let message = format!(
                "peers names this one as {}, and it serves {}",
                urls[&me],
                if tls { "TLS" } else { "no TLS" }
            );
            return Err(invalid(message)
                .hint("write https:// for coordinators with tls_cert, http:// for those without"));
        }
        Ok((urls, me))
    }
}

fn list(urls: &BTreeMap<u64, String>) -> String {
    urls.values().cloned().collect::<Vec<_>>().join(",")
}

/// Whether who listens there is reached under this address, as far as an address itself can say.
fn is_at(url: &str, listen: SocketAddr) -> bool {
    let authority = url.split("://").nth(1).unwrap_or_default();
    let Some((host, port)) = authority.rsplit_once(':') else { return false };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let same_host = match host.parse::<IpAddr>() {
        Ok(ip) => ip == listen.ip(),
        Err(_) if host == "localhost" => listen.ip().is_loopback(),
        Err(_) => listen.ip().is_unspecified() && host == locate::host_name(),
    };
    same_host && port.parse() == Ok(listen.port())
}

impl Peers {
    /// Dials nothing yet. Must be called inside the runtime.
    pub fn open(settings: &SetSettings, listen: SocketAddr, tls: Option<&TlsFiles>) -> Result<Peers> {
        let (urls, me) = settings.check(listen, tls.is_some())?;
        let dial = |(number, url): (&u64, &String)| Ok((*number, channel(url, settings, tls)?));
        let channels = urls.iter().filter(|(number, _)| **number != me).map(dial).collect::<Result<_>>()?;
        // What is sent is not the secret itself: who overhears it learns nothing of use elsewhere.
        let token =
            blake3::derive_key("strata 2026 secret of a set of coordinators", settings.secret.as_bytes());
        let token = blake3::Hash::from_bytes(token).to_hex().as_str().parse().expect("hexadecimal is ASCII");
        Ok(Peers { me, urls, channels, token })
    }

    pub fn url(&self) -> &str {
        &self.urls[&self.me]
    }

    /// Names the list: coordinators with another one are another set.
    pub fn set(&self) -> String {
        blake3::hash(list(&self.urls).as_bytes()).to_hex()[..16].to_owned()
    }

    pub fn list(&self) -> String {
        list(&self.urls)
    }

    pub fn majority(&self) -> usize {
        self.urls.len() / 2 + 1
    }

    pub fn others(&self) -> impl Iterator<Item = (u64, &Channel)> {
        self.channels.iter().map(|(number, channel)| (*number, channel))
    }

    /// None for this one, and for a number that is none.
    pub fn channel(&self, number: u64) -> Option<Channel> {
        self.channels.get(&number).cloned()
    }

    /// The message with the set's secret.
    pub fn sealed<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert(SECRET_KEY, self.token.clone());
        request
    }

    /// Denied for a call without the set's secret.
    pub fn admit(&self, metadata: &MetadataMap) -> Result<()> {
        let given = metadata.get(SECRET_KEY).map(|value| value.as_bytes()).unwrap_or_default();
        // The comparison of hashes takes the same time whatever differs.
        match blake3::hash(given) == blake3::hash(self.token.as_bytes()) {
            true => Ok(()),
            false => Err(Error::denied(
                "speaking for a coordinator of this set: the secret is missing or another one",
            )
            .hint("give all coordinators of a set the same peers_secret (STRATA_PEERS_SECRET)")),
        }
    }
}

fn channel(url: &str, settings: &SetSettings, tls: Option<&TlsFiles>) -> Result<Channel> {
    let unusable = |error: tonic::transport::Error| invalid(format!("{url}: {}", refusal(url, &error).why));
    let mut endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(unusable)?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true);
    if url.starts_with("https://") {
        let mut config = match &settings.authority {
            Some(authority) => ClientTlsConfig::new().ca_certificate(authorities(authority)?),
            None => ClientTlsConfig::new().with_native_roots(),
        };
        // One that wants certificates of its clients wants the others' too.
        if let Some(own) = tls.filter(|own| own.client_ca.is_some()) {
            config = config.identity(identity(&own.cert, &own.key)?);
        }
        endpoint = endpoint.tls_config(config).map_err(unusable)?;
    }
    Ok(endpoint.connect_lazy())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn settings(peers: &[&str], advertise: Option<&str>) -> SetSettings {
        SetSettings {
            peers: peers.iter().map(|url| (*url).to_owned()).collect(),
            advertise: advertise.map(str::to_owned),
            secret: "sixteen or more characters".to_owned(),
            authority: None,
        }
    }

    const THREE: [&str; 3] = ["http://127.0.0.1:3", "http://127.0.0.1:1", "http://b:2"];

    #[test]
    fn coordinator_finds_itself_by_the_address_it_listens_on_or_is_told() {
        let at = |listen: &str, own| settings(&THREE, own).check(listen.parse().unwrap(), false);
        let (urls, me) = at("127.0.0.1:3", None).unwrap();
        assert_eq!(urls[&me], "http://127.0.0.1:3");
        assert_eq!(urls.keys().copied().collect::<Vec<_>>(), [1, 2, 3], "numbered alike whatever the order");
        assert_eq!(at("0.0.0.0:2", Some("http://b:2")).unwrap().1, 3);
        for (listen, own) in [("127.0.0.1:4", None), ("0.0.0.0:1", None), ("127.0.0.1:1", Some("http://c:1"))]
        {
            let error = at(listen, own).unwrap_err();
            assert!(error.kind == Kind::Invalid && error.hint.unwrap().contains("--advertise"), "{listen}");
        }
        assert_eq!(
            settings(&THREE, None).check("127.0.0.1:1".parse().unwrap(), true).unwrap_err().kind,
            Kind::Invalid
        );
    }

    #[test]
    fn set_of_two_or_with_one_twice_or_without_a_secret_is_invalid() {
        let listen = "127.0.0.1:1".parse().unwrap();
        let refused = |settings: SetSettings| settings.check(listen, false).unwrap_err().message;
        assert!(refused(settings(&THREE[1..], None)).contains("2 different"));
        assert!(refused(settings(&[THREE[0], THREE[1], THREE[1]], None)).contains("2 different"));
        assert!(
            refused(SetSettings { secret: "short".into(), ..settings(&THREE, None) })
                .contains("peers_secret")
        );
    }
}

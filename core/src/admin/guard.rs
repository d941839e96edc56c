//! Who may ask over HTTP: nobody whose request was made by a foreign web page (DNS rebinding, cross-site requests).

use std::net::{IpAddr, SocketAddr};

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::middleware::Next;
use axum::response::Response;

use super::routes::refusal;
use crate::error::{Error, Result};

/// Lets a request pass when Host, and Origin where there is one, name this server itself.
pub async fn same_origin(State(addr): State<SocketAddr>, request: Request, next: Next) -> Response {
    match check(&request, addr) {
        Ok(()) => next.run(request).await,
        Err(error) => refusal(&error),
    }
}

fn check(request: &Request, addr: SocketAddr) -> Result<()> {
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or("unreadable"));
    let host = header(HOST).or(request.uri().authority().map(|authority| authority.as_str())).unwrap_or("");
    if !names_us(host, addr) {
        let message = format!("serving HTTP: the Host header {host:?} is not an address of this server");
        return Err(Error::denied(message).hint(format!("ask for http://{addr}")));
    }
    let Some(origin) = header(ORIGIN) else { return Ok(()) };
    let page = origin.trim_start_matches("http://").trim_start_matches("https://");
    if !names_us(page, addr) {
        return Err(Error::denied(format!("serving HTTP: a page of {origin} may not read from here"))
            .hint("open the page that this server serves itself"));
    }
    Ok(())
}

/// Whether `authority` (host, with or without port) is one that a browser can only have from us: an address, or
/// `localhost`. A foreign name that resolves to our address is not.
fn names_us(authority: &str, addr: SocketAddr) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(ip) => ip == addr.ip() || ip.is_loopback() || addr.ip().is_unspecified(),
        Err(_) => host == "localhost",
    }
}

//! The XML and the query strings of the GCS double.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;

use crate::storage::crc32c;

/// Keys in one answer: far fewer than GCS's 1000, so that every listing has several pages.
const PAGE: usize = 7;

/// Status and code.
pub struct Failure(pub u16, pub &'static str);

pub fn error(Failure(status, code): Failure) -> Response {
    let text = format!(
        "<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>why</Message></Error>"
    );
    Response::builder().status(status).body(Body::from(text)).unwrap()
}

/// Tells contents apart, as GCS's own does.
pub fn etag(content: &[u8]) -> String {
    format!("\"{:08x}-{}\"", crc32c(content), content.len())
}

/// What x-goog-hash says of the body.
pub fn sum_told(headers: &HeaderMap) -> Option<u32> {
    let told = headers.get("x-goog-hash")?.to_str().ok()?.strip_prefix("crc32c=")?;
    Some(u32::from_be_bytes(BASE64_STANDARD.decode(told).ok()?.try_into().ok()?))
}

pub fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%').then(|| after.get(..2)).flatten();
        match escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()) {
            Some(value) => (out.push(value), rest = &after[2..]).1,
            None => (out.push(if byte == b'+' { b' ' } else { byte }), rest = after).1,
        }
    }
    String::from_utf8(out).unwrap()
}

pub fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(k, v)| (decoded(k), decoded(v)))
        .collect()
}

/// Version 2: keys and common prefixes in one order, the last one of a page being the token for the next.
pub fn listing(objects: &BTreeMap<String, Bytes>, query: &BTreeMap<String, String>) -> Response {
    assert_eq!(query.get("list-type").map(String::as_str), Some("2"));
    let text = |key: &str| query.get(key).cloned().unwrap_or_default();
    let (prefix, delimiter, after) = (text("prefix"), text("delimiter"), text("continuation-token"));
    let mut entries: BTreeMap<&str, Option<usize>> = BTreeMap::new();
    for (key, content) in objects.iter().filter(|(key, _)| key.starts_with(&prefix)) {
        let folder = key[prefix.len()..].find(&delimiter).filter(|_| !delimiter.is_empty());
        match folder {
            Some(end) => entries.insert(&key[..prefix.len() + end + delimiter.len()], None),
            None => entries.insert(key, Some(content.len())),
        };
    }
    let left: Vec<_> = entries.into_iter().filter(|(key, _)| after.is_empty() || **key > *after).collect();
    let page = &left[..left.len().min(PAGE)];
    let mut body = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
    for (key, bytes) in page {
        body += &match bytes {
            Some(bytes) => format!(
                "<Contents><Key>{key}</Key><Size>{bytes}</Size><LastModified>2026-11-24T00:00:00.000Z\
                 </LastModified><ETag>\"x\"</ETag></Contents>"
            ),
            None => format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>"),
        };
    }
    if left.len() > PAGE {
        body += &format!("<NextContinuationToken>{}</NextContinuationToken>", page[PAGE - 1].0);
    }
    Response::new(Body::from(body + "</ListBucketResult>"))
}

/// Numbers and tags that a complete-request names, in its order, which must ascend.
pub fn parts(text: &str) -> Vec<(usize, String)> {
    let element = |part: &str, name: &str| {
        let (_, rest) = part.split_once(&format!("<{name}>")).unwrap();
        rest.split_once(&format!("</{name}>")).unwrap().0.replace("&quot;", "\"")
    };
    let parts: Vec<(usize, String)> = text
        .split("<Part>")
        .skip(1)
        .map(|part| (element(part, "PartNumber").parse().unwrap(), element(part, "ETag")))
        .collect();
    let numbers: BTreeSet<usize> = parts.iter().map(|(number, _)| *number).collect();
    assert!(numbers.iter().eq(parts.iter().map(|(number, _)| number)), "parts out of order");
    parts
}

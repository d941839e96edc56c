//! What the service said, as ours.

use object_store::Error as Said;
use object_store::client::{HttpError, HttpErrorKind};

use crate::error::{Error, Kind};

/// Codes of an S3 answer that mean that there is no room, whatever their HTTP status.
const FULL: [&str; 5] = ["QuotaExceeded", "StorageFull", "InsufficientStorage", "507 ", "XMinioStorageFull"];
/// Answers to a request that stays wrong.
const WRONG: [&str; 4] = ["400 Bad Request", "405 Method", "411 Length", "501 Not Implemented"];

pub fn failed(doing: impl std::fmt::Display, said: &Said) -> Error {
    let text = one_line(&said.to_string());
    let says = |codes: &[&str]| codes.iter().any(|code| text.contains(code));
    let error = |kind| Error::new(kind, format!("{doing}: {text}"));
    match said {
        Said::NotFound { .. } if text.contains("NoSuchBucket") => {
            error(Kind::NotFound).hint("make the bucket first, or check the url and the endpoint")
        }
        Said::NotFound { .. } => error(Kind::NotFound),
        Said::AlreadyExists { .. } | Said::Precondition { .. } | Said::NotModified { .. } => {
            error(Kind::Conflict)
        }
        Said::PermissionDenied { .. } | Said::Unauthenticated { .. } => error(Kind::Denied).hint(
            "check the credentials ([store], or AWS_*), and that they may read, write, list and delete there",
        ),
        Said::InvalidPath { .. } | Said::NotSupported { .. } | Said::NotImplemented { .. } => {
            error(Kind::Invalid)
        }
        Said::Generic { .. } if says(&FULL) => {
            error(Kind::Overloaded).hint("free space in the bucket, keep fewer steps, or raise its quota")
        }
        Said::Generic { .. } if says(&WRONG) => error(Kind::Invalid),
        Said::Generic { .. } if cause(said).is_some_and(|http| http.kind() == HttpErrorKind::Timeout) => {
            error(Kind::Unavailable).hint("the store answers too slowly: see store.timeout")
        }
        _ => error(Kind::Unavailable),
    }
}

/// The transport's own error, where it was one.
fn cause(said: &Said) -> Option<&HttpError> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(said);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref() {
            return Some(http);
        }
        next = error.source();
    }
    None
}

/// XML bodies and chains of causes come with line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

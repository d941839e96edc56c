//! What the service said, as ours: the kind by HTTP status and error code, the message without the XML around it.

use object_store::Error as Said;
use object_store::client::{HttpError, HttpErrorKind};

use super::Provider;
use crate::error::{Error, Kind};

/// Codes that mean that there is no room, whatever their HTTP status.
const FULL: [&str; 4] = ["QuotaExceeded", "StorageFull", "InsufficientStorage", "XMinioStorageFull"];
/// Codes under status 400 that another try may mend: a body that came too slowly or was cut short, or that is not what its
/// sum says (S3 has the SHA-256 of each body in the request's signature).
const PASSING: [&str; 5] =
    ["RequestTimeout", "IncompleteBody", "XAmzContentSHA256Mismatch", "BadDigest", "Md5Mismatch"];
/// Of an upload that was begun and is there no more: complete already, or cleaned away. The object can be written again.
const GONE: &str = "NoSuchUpload";
/// Codes under status 400 that speak of credentials.
const CREDENTIALS: [&str; 4] =
    ["ExpiredToken", "InvalidToken", "AuthorizationHeaderMalformed", "InvalidAccessKeyId"];

pub fn failed(provider: Provider, doing: impl std::fmt::Display, said: &Said) -> Error {
    let answer = Answer::read(&said.to_string());
    let kind = kind(said, &answer);
    let error = Error::new(kind, format!("{doing}: {}", answer.text));
    match kind {
        Kind::NotFound if answer.code == provider.no_place() => {
            error.hint(format!("make the {} first, or check the url and the endpoint", provider.place()))
        }
        Kind::Denied => error.hint(format!(
            "check the credentials ({}), and that they may read, write, list and delete there",
            provider.credentials()
        )),
        Kind::Overloaded => error.hint("free space in the bucket, keep fewer steps, or raise its quota"),
        Kind::Unavailable if timed_out(said) => error.hint("the store answers too slowly: see store.timeout"),
        _ => error,
    }
}

fn kind(said: &Said, answer: &Answer) -> Kind {
    match said {
        _ if answer.code == GONE => Kind::Unavailable,
        Said::NotFound { .. } => Kind::NotFound,
        Said::AlreadyExists { .. } | Said::Precondition { .. } | Said::NotModified { .. } => Kind::Conflict,
        Said::PermissionDenied { .. } | Said::Unauthenticated { .. } => Kind::Denied,
        Said::InvalidPath { .. } | Said::NotSupported { .. } | Said::NotImplemented { .. } => Kind::Invalid,
        _ if FULL.contains(&answer.code.as_str()) => Kind::Overloaded,
        _ => match answer.status {
            401 | 403 => Kind::Denied,
            404 => Kind::NotFound,
            409 | 412 => Kind::Conflict,
            507 => Kind::Overloaded,
            400 if PASSING.contains(&answer.code.as_str()) => Kind::Unavailable,
            400 if CREDENTIALS.contains(&answer.code.as_str()) => Kind::Denied,
            400 | 405 | 411 | 501 => Kind::Invalid,
            _ => Kind::Unavailable,
        },
    }
}

/// The parts of an answer that tell: object_store gives them as text alone.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    /// HTTP status; 0: there was none.
    status: u16,
    /// The service's error code; empty: there was none.
    code: String,
    text: String,
}

impl Answer {
    fn read(said: &str) -> Answer {
        let status = said.split("status code: ").nth(1).and_then(|rest| rest.get(..3)?.parse().ok());
        let element = |name: &str| {
            let (_, rest) = said.split_once(&format!("<{name}>"))?;
            Some(rest.split_once(&format!("</{name}>"))?.0.to_owned())
        };
        let (code, message) = (element("Code").unwrap_or_default(), element("Message"));
        let head = said.split("<?xml").next().and_then(|head| head.split("<Error>").next()).unwrap_or(said);
        let text = match (code.as_str(), message) {
            ("", _) => head.to_owned(),
            (code, Some(message)) => format!("{head} {code}: {message}"),
            (code, None) => format!("{head} {code}"),
        };
        // Chains of causes come with line breaks.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Answer { status: status.unwrap_or(0), code, text }
    }
}

/// Whether the transport gave up waiting.
fn timed_out(said: &Said) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(said);
    while let Some(error) = next {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return http.kind() == HttpErrorKind::Timeout;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_status_and_code_and_the_xml_stays_out() {
        for (status, code, kind) in [
            ("403 Forbidden", "SignatureDoesNotMatch", Kind::Denied),
            ("404 Not Found", "NoSuchBucket", Kind::NotFound),
            ("404 Not Found", "NoSuchUpload", Kind::Unavailable),
            ("400 Bad Request", "ExpiredToken", Kind::Denied),
            ("400 Bad Request", "XAmzContentSHA256Mismatch", Kind::Unavailable),
            ("400 Bad Request", "RequestTimeout", Kind::Unavailable),
            ("400 Bad Request", "InvalidArgument", Kind::Invalid),
            ("503 Service Unavailable", "SlowDown", Kind::Unavailable),
            ("507 Insufficient Storage", "XMinioStorageFull", Kind::Overloaded),
            ("403 Forbidden", "QuotaExceeded", Kind::Overloaded),
        ] {
            let source = format!(
                "Error performing PUT http://h/b/k in 3ms - Server returned non-2xx status code: {status}: \
                 <?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>why</Message><Key>k</Key></Error>"
            );
            let error =
                failed(Provider::S3, "writing x", &Said::Generic { store: "S3", source: source.into() });
            assert_eq!(error.kind, kind, "{error}");
            assert!(error.message.ends_with(&format!("{code}: why")), "{error}");
        }
    }
}

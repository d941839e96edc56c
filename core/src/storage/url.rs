//! Where a store is: a path, `file:///path` or `s3://bucket/prefix`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// What a store's URL names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// An absolute path.
    Local(PathBuf),
    /// `prefix` without slashes at its ends, empty for the whole bucket.
    S3 { bucket: String, prefix: String },
}

/// A parsed store URL; displays as users write it, without credentials (which it never holds).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreUrl {
    scheme: Scheme,
}

impl StoreUrl {
    pub fn local(path: impl AsRef<Path>) -> Result<StoreUrl> {
        let path = path.as_ref();
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::io(format!("reading the store path {}", path.display()), &error))?;
        Ok(StoreUrl { scheme: Scheme::Local(absolute) })
    }

    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<StoreUrl> {
        let invalid = |why: &str| {
            Error::invalid(format!("reading the store url {:?}: {why}", without_credentials(text)))
                .hint("use a directory such as /data/checkpoints, or s3://bucket/prefix")
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(invalid("it is empty")) } else { StoreUrl::local(text) };
        };
        match scheme {
            "file" if rest.starts_with('/') => StoreUrl::local(rest),
            "file" => Err(invalid("a file url names no host: write file:///path")),
            "s3" | "s3a" => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                if bucket.is_empty() || !bucket.chars().all(allowed) {
                    return Err(invalid("it names no bucket"));
                }
                let prefix = prefix.trim_matches('/');
                if prefix.contains(['?', '#']) || prefix.split('/').any(|part| part == "." || part == "..") {
                    return Err(invalid("its prefix is not a plain path"));
                }
                let scheme = Scheme::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() };
                Ok(StoreUrl { scheme })
            }
            "gs" | "gcs" | "az" | "azure" | "abfs" | "abfss" => {
                Err(invalid(&format!("{scheme}:// stores are not supported yet")))
            }
            other => Err(invalid(&format!("{other}:// is no kind of store that Strata knows"))),
        }
    }
}

/// Somebody may have written `s3://key:secret@bucket`: that must not reach a log.
fn without_credentials(text: &str) -> String {
    match text.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://…@{host}"),
        _ => text.to_owned(),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scheme {
            Scheme::Local(path) => path.display().fmt(f),
            Scheme::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Scheme::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn the_same_store_reads_the_same_however_it_is_written() {
        for (text, shown) in [
            ("/data/c", "/data/c"),
            ("file:///data/c", "/data/c"),
            ("s3://b/p/q/", "s3://b/p/q"),
            ("s3://b", "s3://b"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
    }

    #[test]
    fn a_store_that_is_not_there_yet_says_so() {
        for text in ["gs://b/p", "az://b", "ftp://x", "s3://", "s3:///p", "file://host/x", "", "s3://b/../x"]
        {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert_eq!(error.kind, Kind::Invalid, "{text}");
            assert!(error.hint.is_some());
        }
        assert!("gs://b".parse::<StoreUrl>().unwrap_err().message.contains("not supported yet"));
    }

    #[test]
    fn credentials_never_reach_a_message() {
        let error = "s3://AKIA:hunter2@bucket/p".parse::<StoreUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

//! Where a store is: a path, `file:///path`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// What a store's URL names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// An absolute path.
    Local(PathBuf),
    /// `prefix` without slashes at its ends, empty for the whole bucket; so for all of these.
    S3 { bucket: String, prefix: String },
    /// Google Cloud Storage.
    Gcs { bucket: String, prefix: String },
    /// Azure Blob Storage. `account`: where the URL names it; else the options do.
    Azure { account: Option<String>, container: String, prefix: String },
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

    /// The whole bucket, and the path in it; None for a directory.
    pub fn bucket(&self) -> Option<(StoreUrl, String)> {
        let mut bucket = self.clone();
        let (Scheme::S3 { prefix, .. } | Scheme::Gcs { prefix, .. } | Scheme::Azure { prefix, .. }) =
            &mut bucket.scheme
        else {
            return None;
        };
        let path = std::mem::take(prefix);
        Some((bucket, path))
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<StoreUrl> {
        let invalid = |why: &str| {
            Error::invalid(format!("reading the store url {:?}: {why}", without_credentials(text))).hint(
                "use a directory such as /data/checkpoints, s3://bucket/prefix, gs://bucket/prefix or \
                     az://container/prefix",
            )
        };
        let Some((scheme, rest)) = text.split_once("://") else {
            return if text.is_empty() { Err(invalid("it is empty")) } else { StoreUrl::local(text) };
        };
        let scheme = match scheme {
            "file" if rest.starts_with('/') => return StoreUrl::local(rest),
            "file" => return Err(invalid("a file url names no host: write file:///path")),
            "s3" | "s3a" => {
                let (bucket, prefix) = split(rest).map_err(&invalid)?;
                Scheme::S3 { bucket, prefix }
            }
            "gs" | "gcs" => {
                let (bucket, prefix) = split(rest).map_err(&invalid)?;
                Scheme::Gcs { bucket, prefix }
            }
            "az" | "azure" | "adl" | "abfs" | "abfss" => azure(rest).map_err(&invalid)?,
            "https" => azure_web(rest).map_err(&invalid)?,
            other => return Err(invalid(&format!("{other}:// is no kind of store that Strata knows"))),
        };
        Ok(StoreUrl { scheme })
    }
}

/// Bucket (or container) and prefix.
fn split(rest: &str) -> std::result::Result<(String, String), &'static str> {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if bucket.is_empty() || !bucket.chars().all(allowed) {
        return Err("it names no bucket");
    }
    let prefix = prefix.trim_matches('/');
    if prefix.contains(['?', '#']) || prefix.split('/').any(|part| part == "." || part == "..") {
        return Err("its prefix is not a plain path");
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

/// `container/prefix`, or Hadoop's `container@account.dfs.core.windows.net/prefix`.
fn azure(rest: &str) -> std::result::Result<Scheme, &'static str> {
    let authority = rest.split('/').next().unwrap_or_default();
    let Some((container, host)) = authority.split_once('@') else {
        let (container, prefix) = split(rest)?;
        return Ok(Scheme::Azure { account: None, container, prefix });
    };
    let account = account_of(host).ok_or("after the @ comes ACCOUNT.dfs.core.windows.net")?;
    let (container, prefix) = split(&format!("{container}{}", &rest[authority.len()..]))?;
    Ok(Scheme::Azure { account: Some(account), container, prefix })
}

/// `account.blob.core.windows.net/container/prefix`.
fn azure_web(rest: &str) -> std::result::Result<Scheme, &'static str> {
    let (host, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let account = account_of(host).ok_or("https:// is for ACCOUNT.blob.core.windows.net/container alone")?;
    let (container, prefix) = split(rest)?;
    Ok(Scheme::Azure { account: Some(account), container, prefix })
}

fn account_of(host: &str) -> Option<String> {
    let (account, service) = host.split_once('.')?;
    let known = matches!(service, "dfs.core.windows.net" | "blob.core.windows.net");
    (known && !account.is_empty() && account.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        .then(|| account.to_owned())
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
        let (start, prefix) = match &self.scheme {
            Scheme::Local(path) => return path.display().fmt(f),
            Scheme::S3 { bucket, prefix } => (format!("s3://{bucket}"), prefix),
            Scheme::Gcs { bucket, prefix } => (format!("gs://{bucket}"), prefix),
            Scheme::Azure { account: None, container, prefix } => (format!("az://{container}"), prefix),
            Scheme::Azure { account: Some(account), container, prefix } => {
                (format!("abfss://{container}@{account}.dfs.core.windows.net"), prefix)
            }
        };
        f.write_str(&start)?;
        if prefix.is_empty() { Ok(()) } else { write!(f, "/{prefix}") }
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
            ("gs://b/p/", "gs://b/p"),
            ("gcs://b", "gs://b"),
            ("az://c/p/q", "az://c/p/q"),
            ("azure://c", "az://c"),
            ("abfs://c/p", "az://c/p"),
            ("abfss://c@acc.dfs.core.windows.net/p/", "abfss://c@acc.dfs.core.windows.net/p"),
            ("https://acc.blob.core.windows.net/c/p", "abfss://c@acc.dfs.core.windows.net/p"),
            ("https://acc.blob.core.windows.net/c", "abfss://c@acc.dfs.core.windows.net"),
        ] {
            let url: StoreUrl = text.parse().unwrap();
            assert_eq!(url.to_string(), shown);
            assert_eq!(url.to_string().parse::<StoreUrl>().unwrap(), url);
        }
    }

    #[test]
    fn a_url_is_its_bucket_and_a_path_in_it() {
        for text in ["s3://b/p/q", "gs://b", "abfss://c@acc.dfs.core.windows.net/p"] {
            let url: StoreUrl = text.parse().unwrap();
            let (bucket, path) = url.bucket().unwrap();
            assert_eq!(format!("{bucket}/{path}").trim_end_matches('/'), text);
            assert_eq!(bucket.bucket(), Some((bucket, String::new())));
        }
        assert_eq!("/data".parse::<StoreUrl>().unwrap().bucket(), None);
    }

    #[test]
    fn a_url_that_names_no_store_says_what_one_looks_like() {
        for text in [
            "gs://",
            "az:///p",
            "ftp://x",
            "s3://",
            "s3:///p",
            "file://host/x",
            "",
            "s3://b/../x",
            "gs://b/a?versionId=1",
            "abfss://c@elsewhere.example.org/p",
            "abfss://@acc.dfs.core.windows.net/p",
            "https://example.org/c/p",
            "https://acc.blob.core.windows.net/",
        ] {
            let error = text.parse::<StoreUrl>().unwrap_err();
            assert_eq!(error.kind, Kind::Invalid, "{text}");
            assert!(error.hint.unwrap().contains("gs://bucket/prefix"));
        }
    }

    #[test]
    fn credentials_never_reach_a_message() {
        let error = "s3://AKIA:hunter2@bucket/p".parse::<StoreUrl>().unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

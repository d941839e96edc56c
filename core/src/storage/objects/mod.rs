//! Stores in buckets, through object_store: its retries, its signing, its multipart upload. What one provider alone wants
//! (options, credentials, what a user is told) lies in the file of its name; everything else knows no provider.
//! Called by `storage` alone. Requests run on threads of this room's own, so that a caller needs no runtime. Never sends
//! COMMIT or OWNER as anything but one conditional PUT.

mod azure;
mod error;
mod gcs;
mod provider;
mod reader;
mod runtime;
mod s3;
mod writer;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use self::error::failed;
pub(super) use self::provider::Provider;
use self::runtime::wait;
use super::options::StoreOptions;
use super::store::{Created, Listed, Reader, Store, Writer};
use super::url::{Scheme, StoreUrl};
use crate::error::{Error, Kind, Result};

#[derive(Debug)]
pub(super) struct BucketStore {
    objects: Arc<dyn ObjectStore>,
    provider: Provider,
    /// `s3://bucket/prefix/folder`, for messages.
    name: String,
    /// Of every object's path, without slashes at its ends.
    prefix: String,
    part_bytes: u64,
    concurrency: usize,
}

impl BucketStore {
    /// Reaches for nothing yet. Invalid for options that the provider can't work with; Internal for a directory's URL.
    pub fn connect(url: &StoreUrl, options: &StoreOptions, folder: &str) -> Result<BucketStore> {
        let (provider, objects, prefix) = match url.scheme() {
            Scheme::S3 { bucket, prefix } => (Provider::S3, s3::bucket(bucket, options)?, prefix),
            Scheme::Gcs { bucket, prefix } => (Provider::Gcs, gcs::bucket(bucket, options)?, prefix),
            Scheme::Azure { account, container, prefix } => {
                (Provider::Azure, azure::container(account.as_deref(), container, options)?, prefix)
            }
            Scheme::Local(path) => {
                return Err(Error::internal(format!("{} is no bucket", path.display())));
            }
        };
        let shown = url.to_string();
        let service = shown.strip_suffix(prefix.as_str()).unwrap_or(&shown).trim_end_matches('/').to_owned();
        let prefix =
            [prefix, folder].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Ok(BucketStore::over(objects, provider, service, prefix, options))
    }

    /// `service`: what comes before the path in messages.
    pub fn over(
        objects: Arc<dyn ObjectStore>,
        provider: Provider,
        service: String,
        prefix: String,
        options: &StoreOptions,
    ) -> BucketStore {
        let name = if prefix.is_empty() { service } else { format!("{service}/{prefix}") };
        let (part_bytes, concurrency) = (options.part_bytes, options.concurrency.max(1));
        BucketStore { objects, provider, name, prefix, part_bytes, concurrency }
    }

    fn path(&self, path: &str) -> Result<Path> {
        let full = if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Path::parse(full.trim_end_matches('/'))
            .map_err(|error| Error::invalid(format!("naming {}: {error}", self.name_of(path))))
    }

    /// Below this store's prefix.
    fn own_path(&self, path: &Path) -> Option<String> {
        let path = path.as_ref().strip_prefix(&self.prefix)?;
        Some(path.trim_start_matches('/').to_owned())
    }

    fn put(&self, path: &str, content: Bytes, mode: PutMode) -> Result<object_store::Result<()>> {
        let location = self.path(path)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        wait(async { self.objects.put_opts(&location, PutPayload::from(content), options).await.map(drop) })
    }

    fn failed(&self, doing: &str, path: &str, error: &object_store::Error) -> Error {
        failed(self.provider, format!("{doing} {}", self.name_of(path)), error)
    }
}

impl Store for BucketStore {
    fn name_of(&self, path: &str) -> String {
        format!("{}/{path}", self.name)
    }

    /// A prefix is there as soon as an object has it.
    fn make_place(&self) -> Result<()> {
        Ok(())
    }

    fn place_uid(&self) -> Result<Option<u32>> {
        Ok(None)
    }

    fn create(&self, path: &str, content: Bytes) -> Result<Created> {
        match self.put(path, content, PutMode::Create)? {
            Ok(()) => Ok(Created::New),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Exists),
            Err(error) => Err(self.failed("writing", path, &error)),
        }
    }

    fn replace(&self, path: &str, content: Bytes) -> Result<()> {
        self.put(path, content, PutMode::Overwrite)?.map_err(|error| self.failed("writing", path, &error))
    }

    fn read(&self, path: &str) -> Result<Bytes> {
        let location = self.path(path)?;
        wait(async { self.objects.get(&location).await?.bytes().await })?
            .map_err(|error| self.failed("reading", path, &error))
    }

    fn reader(&self, path: &str) -> Result<Box<dyn Reader>> {
        let location = self.path(path)?;
        let found = wait(async { self.objects.head(&location).await })?
            .map_err(|error| self.failed("reading", path, &error))?;
        Ok(Box::new(reader::BucketReader {
            objects: Arc::clone(&self.objects),
            provider: self.provider,
            location,
            name: self.name_of(path),
            bytes: found.size,
        }))
    }

    fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        let large = writer::Large {
            objects: Arc::clone(&self.objects),
            provider: self.provider,
            location: self.path(path)?,
            name: self.name_of(path),
        };
        Ok(Box::new(writer::BucketWriter::begin(large, self.part_bytes, self.concurrency, at_most)))
    }

    /// A finished upload always takes the place of what has its name.
    fn rewriter(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        self.writer(path, at_most)
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let location = self.path(folder)?;
        let found: Vec<_> = wait(async { self.objects.list(Some(&location)).try_collect().await })?
            .map_err(|error| self.failed("listing", folder, &error))?;
        let own = |meta: object_store::ObjectMeta| {
            Some(Listed { path: self.own_path(&meta.location)?, bytes: meta.size })
        };
        Ok(found.into_iter().filter_map(own).collect())
    }

    fn folders(&self, folder: &str) -> Result<Vec<String>> {
        let location = self.path(folder)?;
        let found = wait(async { self.objects.list_with_delimiter(Some(&location)).await })?
            .map_err(|error| self.failed("listing", folder, &error))?;
        Ok(found.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned)).collect())
    }

    fn delete(&self, paths: &[String]) -> Result<()> {
        let locations = paths.iter().map(|path| self.path(path)).collect::<Result<Vec<_>>>()?;
        let deleted: Vec<_> = wait(async {
            let one = |location| async move { (self.objects.delete(&location).await, location) };
            futures::stream::iter(locations).map(one).buffer_unordered(4 * self.concurrency).collect().await
        })?;
        for (outcome, location) in deleted {
            let path = self.own_path(&location).unwrap_or_default();
            let outcome = outcome.map_err(|error| self.failed("deleting", &path, &error));
            match outcome {
                Err(error) if error.kind == Kind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// An unfinished upload can't be seen or listed here, and goes by the bucket's own rule for such.
    fn sweep(&self, _folder: &str) -> Result<u64> {
        Ok(0)
    }
}

//! Stores in buckets, through object_store: its retries, its signing, its multipart upload. What one provider alone wants
//! (options, credentials, what a user is told) lies in the file of its name; everything else knows no provider.
//! Called by `storage` alone. Requests run on threads of this room's own, so that a caller needs no runtime. Never sends
//! COMMIT or OWNER as anything but one conditional PUT.

mod azure;
mod error;
mod gcs;
mod lane;
mod lanes;
mod provider;
mod reader;
mod runtime;
mod s3;
mod transport;
mod window;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use self::error::failed;
use self::lane::Lane;
pub(super) use self::lanes::Lanes;
pub(super) use self::provider::Provider;
use self::runtime::wait;
use self::transport::Watching;
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
    lanes: Arc<Lanes>,
    /// None: as the lane finds them.
    part_bytes: Option<u64>,
    /// Of one request.
    timeout: Duration,
    /// In flight at once.
    deletes: usize,
}

/// A large object, and the way to it.
struct Large {
    objects: Arc<dyn ObjectStore>,
    provider: Provider,
    location: Path,
    /// For messages.
    name: String,
    lane: Arc<Lane>,
    /// That one request had better carry.
    part_bytes: u64,
}

impl Large {
    fn failed(&self, doing: &str, error: &object_store::Error) -> Error {
        failed(self.provider, format!("{doing} {}", self.name), error)
    }
}

impl BucketStore {
    /// Reaches for nothing yet. Invalid for options that the provider can't work with; Internal for a directory's URL.
    pub fn connect(url: &StoreUrl, options: &StoreOptions, folder: &str) -> Result<BucketStore> {
        let (provider, endpoint, prefix) = match url.scheme() {
            Scheme::S3 { prefix, .. } => (Provider::S3, &options.endpoint, prefix),
            Scheme::Gcs { prefix, .. } => (Provider::Gcs, &options.gcs_emulator, prefix),
            Scheme::Azure { prefix, .. } => (Provider::Azure, &options.azure_endpoint, prefix),
            Scheme::Local(path) => {
                return Err(Error::internal(format!("{} is no bucket", path.display())));
            }
        };
        let shown = url.to_string();
        let service = shown.strip_suffix(prefix.as_str()).unwrap_or(&shown).trim_end_matches('/').to_owned();
        let lanes = Lanes::to((&service, endpoint.as_deref()), options.requests);
        let watching = Watching { lanes: Arc::clone(&lanes), sums: provider == Provider::Gcs };
        let objects = match url.scheme() {
            Scheme::S3 { bucket, .. } => s3::bucket(bucket, options, watching)?,
            Scheme::Gcs { bucket, .. } => gcs::bucket(bucket, options, watching)?,
            Scheme::Azure { account, container, .. } => {
                azure::container(account.as_deref(), container, options, watching)?
            }
            Scheme::Local(_) => unreachable!("it was told apart above"),
        };
        let prefix =
            [prefix, folder].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        Ok(BucketStore::over(objects, provider, lanes, service, prefix, options))
    }

    /// `service`: what comes before the path in messages.
    pub fn over(
        objects: Arc<dyn ObjectStore>,
        provider: Provider,
        lanes: Arc<Lanes>,
        service: String,
        prefix: String,
        options: &StoreOptions,
    ) -> BucketStore {
        let name = if prefix.is_empty() { service } else { format!("{service}/{prefix}") };
        BucketStore {
            objects,
            provider,
            name,
            prefix,
            lanes,
            part_bytes: options.part_bytes,
            timeout: options.request_timeout,
            deletes: 4 * options.concurrency.max(1),
        }
    }

    fn large(&self, path: &str, lane: &Arc<Lane>) -> Result<Large> {
        Ok(Large {
            objects: Arc::clone(&self.objects),
            provider: self.provider,
            location: self.path(path)?,
            name: self.name_of(path),
            lane: Arc::clone(lane),
            part_bytes: self.part_bytes.unwrap_or_else(|| lane.part_bytes(self.timeout)),
        })
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
        let large = self.large(path, &self.lanes.bring)?;
        Ok(Box::new(reader::BucketReader::new(large, found)))
    }

    fn writer(&self, path: &str, at_most: u64) -> Result<Box<dyn Writer>> {
        Ok(Box::new(writer::BucketWriter::begin(self.large(path, &self.lanes.send)?, at_most)))
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
            futures::stream::iter(locations).map(one).buffer_unordered(self.deletes).collect().await
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

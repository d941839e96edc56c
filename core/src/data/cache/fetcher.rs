//! A dataset's files for whoever reads them: where they lie if they can be read there, else from the node's cache.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use super::node::{Fetched, NodeCache};
use super::origin::{Key, Origin, Place, Source};
use super::part::Part;
use super::settings::Settings;
use super::{stores, unpack};
use crate::error::{Doing, Kind, Result};
use crate::storage::{Store, StoreOptions, StoreUrl};

/// An object that is replaced again and again is given up after so many.
const TRIES: u32 = 3;

/// The client of a bucket.
type Bucket = dyn Fn(&StoreUrl, &StoreOptions) -> Result<Arc<dyn Store>> + Send + Sync;

/// Reads no setting and makes no folder before a file asks for it. Threads may share it, and it may be forked.
pub struct Fetcher {
    node: OnceLock<(Settings, NodeCache)>,
    bucket: Box<Bucket>,
}

impl Default for Fetcher {
    fn default() -> Fetcher {
        Fetcher { node: OnceLock::new(), bucket: Box::new(stores::bucket) }
    }
}

impl Fetcher {
    #[cfg(test)]
    pub fn with(
        settings: Settings,
        bucket: impl Fn(&StoreUrl, &StoreOptions) -> Result<Arc<dyn Store>> + Send + Sync + 'static,
    ) -> Result<Fetcher> {
        let cache = NodeCache::open(&settings)?;
        Ok(Fetcher { node: OnceLock::from((settings, cache)), bucket: Box::new(bucket) })
    }

    fn node(&self) -> Result<&(Settings, NodeCache)> {
        if let Some(node) = self.node.get() {
            return Ok(node);
        }
        let settings = Settings::of_process()?;
        let cache = NodeCache::open(&settings)?;
        Ok(self.node.get_or_init(|| (settings, cache)))
    }

    /// Bytes that the cache may have.
    pub fn cap(&self) -> Result<u64> {
        Ok(self.node()?.1.cap())
    }

    /// Path of the file that holds its bytes, fetched if need be. Blocking.
    ///
    /// It may be removed from the cache at any moment: [`Fetcher::open`] gives a file that stays.
    pub fn local(&self, origin: &Origin) -> Result<PathBuf> {
        match origin.plain() {
            Some(path) => Ok(path.to_owned()),
            None => Ok(self.fetch(origin)?.path),
        }
    }

    /// The whole file, unpacked, to be read at any place. Blocking.
    ///
    /// Fails with NotFound where it is not there, Corrupt where it can't be unpacked, and as the cache and the store do.
    pub fn open(&self, origin: &Origin) -> Result<File> {
        match origin.plain() {
            Some(path) => File::open(path).doing(|| reading(origin)),
            None => Ok(self.fetch(origin)?.file),
        }
    }

    /// The bytes as they lie there, packed or not, and nothing of them yet.
    pub fn source(&self, origin: &Origin) -> Result<Source> {
        self.look(origin).map(|(source, _)| source).doing(|| reading(origin))
    }

    /// The bucket, to be listed.
    pub fn bucket(&self, url: &StoreUrl, change: impl FnOnce(&mut StoreOptions)) -> Result<Arc<dyn Store>> {
        let mut options = self.node()?.0.store.clone();
        change(&mut options);
        (self.bucket)(url, &options)
    }

    fn fetch(&self, origin: &Origin) -> Result<Fetched> {
        let fetched = || -> Result<Fetched> {
            let (_, cache) = self.node()?;
            let mut tries = 1;
            loop {
                if let Some(key) = origin.seen.get()
                    && let Some(found) = cache.find(*key)?
                {
                    return Ok(found);
                }
                let (source, key) = self.look(origin)?;
                let fill = |part: &mut Part<'_>| unpack::copy(&source, origin.packing, origin.name(), part);
                match cache.entry(key, origin.name(), &fill) {
                    // Another object has its name by now.
                    Err(error) if error.kind == Kind::Conflict && tries < TRIES => tries += 1,
                    outcome => return outcome,
                }
            }
        };
        fetched().doing(|| reading(origin))
    }

    /// What is there now, and what it is found by once it is in the cache.
    fn look(&self, origin: &Origin) -> Result<(Source, Key)> {
        let packing = format!("{:?}", origin.packing);
        match &origin.place {
            Place::Local(path) => {
                let file = File::open(path).doing(|| reading(origin))?;
                let version = Source::version(&file).doing(|| reading(origin))?;
                let key = Key::of(&[&path.to_string_lossy(), &version, &packing]);
                Ok((Source::file(file, origin.name())?, key))
            }
            Place::Object { bucket, path } => {
                let options = &self.node()?.0.store;
                let mut reader = (self.bucket)(bucket, options)?.reader(path)?;
                let tag = reader.pin().unwrap_or_default();
                let endpoints = [&options.endpoint, &options.gcs_emulator, &options.azure_endpoint];
                let endpoints = format!("{endpoints:?} {:?}", options.azure_account);
                let bytes = reader.bytes().to_string();
                let key = Key::of(&[&bucket.to_string(), path, &endpoints, &tag, &bytes, &packing]);
                // The first that was seen stays; whoever finds nothing under it looks again.
                let _ = origin.seen.set(key);
                Ok((Source::Object(reader), key))
            }
        }
    }
}

fn reading(origin: &Origin) -> String {
    format!("reading {}", origin.name().display())
}

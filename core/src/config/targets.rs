//! `[[store.target]]`: further places that every committed step is copied to, each a table of its own in the file. What the
//! one does not say about how a store is reached, `[store]` says.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::file::Entry;
use super::keys::{KeySpec, StoreConfig};
use super::resolve::{Origin, unreadable};
use super::value::{Extreme, Secret, Setting};
use crate::error::Error;

/// As it is written in the file, and how keys name it.
pub const TARGET: &str = "store.target";

/// One table of the file: line of its head, keys.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub line: usize,
    pub values: BTreeMap<String, Entry>,
}

macro_rules! target {
    ($( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:literal; )*) => {
        /// A further target, in the order of the file.
        #[derive(Clone, Debug)]
        pub struct TargetConfig { $( $(#[doc = $doc])+ pub $key: $ty, )* }

        /// Its keys, in the order of the example file. None has a variable in the environment: there may be several.
        pub const TARGET_KEYS: &[KeySpec] = &[$(
            KeySpec {
                section: TARGET, name: stringify!($key), doc: &[$($doc),+], default: $default, env: "",
                what: <$ty as Setting>::WHAT, form: <$ty as Setting>::FORM, sample: <$ty as Setting>::SAMPLE,
            },
        )*];

        impl TargetConfig {
            fn read(path: &Path, table: &Table, errors: &mut Vec<Error>) -> TargetConfig {
                TargetConfig { $( $key: value(path, table, stringify!($key), errors), )* }
            }

            /// Keys and values as they are written; empty: unset.
            pub fn shown(&self) -> Vec<(&'static KeySpec, String)> {
                let values = [$( self.$key.render(), )*];
                TARGET_KEYS.iter().zip(values).collect()
            }
        }
    };
}

target! {
    /// Where it is: a directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, such as [store] url.
    url: String = "";
    /// What status, metrics and messages call it. Unset: its url.
    name: Option<String> = "";
    /// Keep the newest so many committed steps there; 0 keeps all. The rules are those of [checkpoint], for this target
    /// alone: what the first store gives up stays here, and the other way round.
    keep_last: u32 = "0";
    /// Beside the newest: keep the first step of every so many; 0 keeps none by this rule.
    keep_every_steps: u64 = "0";
    /// Beside the newest: keep one step for every so much time.
    keep_every: Option<Duration> = "";
    /// Beside the newest: keep so many with the best value of best_metric; 0 keeps none by this rule.
    keep_best: u32 = "0";
    /// Which of the metrics that a step is saved with keep_best compares.
    best_metric: Option<String> = "";
    /// Whether the lowest or the highest best_metric is the best: "min" or "max".
    best_is: Extreme = "min";
    /// How many steps the first store keeps beyond its own rules until this target has them. When more are waiting the
    /// oldest is removed all the same, with a warning, and this target never gets it: a slow target must not fill a fast disk.
    hold: u32 = "2";
    /// S3: the server's address. Unset, as all below: what [store] says.
    endpoint: Option<String> = "";
    /// S3: the region.
    region: Option<String> = "";
    /// S3: the access key.
    access_key_id: Option<String> = "";
    /// S3: the secret of access_key_id.
    secret_access_key: Option<Secret> = "";
    /// S3 and Azure: allow an endpoint without TLS.
    allow_http: Option<bool> = "";
    /// GCS: the address of an emulator.
    gcs_emulator: Option<String> = "";
    /// Azure: the storage account.
    azure_account: Option<String> = "";
    /// Azure: the key of the account.
    azure_key: Option<Secret> = "";
    /// Azure: the account's address.
    azure_endpoint: Option<String> = "";
}

pub(super) fn find(key: &str) -> Option<&'static KeySpec> {
    TARGET_KEYS.iter().find(|spec| spec.name == key)
}

fn value<T: Setting>(path: &Path, table: &Table, key: &'static str, errors: &mut Vec<Error>) -> T {
    let spec = find(key).expect("a declared key");
    if let Some(entry) = table.values.get(key) {
        match T::parse(&entry.text) {
            Ok(read) => return read,
            Err(problem) => {
                let origin = Origin::File { path: path.to_owned(), line: entry.line };
                errors.push(unreadable(spec, &entry.text, &origin, &problem));
            }
        }
    }
    T::parse(spec.default).expect("declared defaults are readable: a test reads them all")
}

/// All of them; what is wrong with any goes to `errors`.
pub(super) fn read(path: &Path, tables: &[Table], errors: &mut Vec<Error>) -> Vec<TargetConfig> {
    let mut found: Vec<TargetConfig> = Vec::new();
    for table in tables {
        let target = TargetConfig::read(path, table, errors);
        let mut refuse = |problem: String, hint: &str| {
            let place = format!("reading {}:{}: [[{TARGET}]]", path.display(), table.line);
            errors.push(Error::invalid(format!("{place}: {problem}")).hint(hint.to_owned()));
        };
        if target.url.is_empty() {
            refuse("it has no url".to_owned(), "add url = \"s3://bucket/prefix\", or a directory");
        }
        if found.iter().any(|other| other.name() == target.name()) {
            refuse(format!("there is another one called {:?}", target.name()), "give each a name of its own");
        }
        found.push(target);
    }
    found
}

impl TargetConfig {
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.url)
    }

    /// How it is reached: as it says itself, and else as `[store]` says.
    pub fn reached_as(&self, store: &StoreConfig) -> StoreConfig {
        let either = |own: &Option<String>, other: &Option<String>| own.clone().or_else(|| other.clone());
        let has_own_key = self.access_key_id.is_some();
        StoreConfig {
            url: Some(self.url.clone()),
            endpoint: either(&self.endpoint, &store.endpoint),
            region: either(&self.region, &store.region),
            access_key_id: either(&self.access_key_id, &store.access_key_id),
            secret_access_key: self.secret_access_key.clone().or_else(|| store.secret_access_key.clone()),
            // A token belongs to its key.
            session_token: store.session_token.clone().filter(|_| !has_own_key),
            allow_http: self.allow_http.unwrap_or(store.allow_http),
            gcs_emulator: either(&self.gcs_emulator, &store.gcs_emulator),
            azure_account: either(&self.azure_account, &store.azure_account),
            azure_key: self.azure_key.clone().or_else(|| store.azure_key.clone()),
            azure_endpoint: either(&self.azure_endpoint, &store.azure_endpoint),
            ..store.clone()
        }
    }
}

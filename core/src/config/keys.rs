//! Every configuration key, declared once: section, key, type, default, environment name and text. The structs, the
//! reading, the example file and `config show` all come out of this table.

use std::path::PathBuf;
use std::time::Duration;

use super::resolve::Resolver;
use super::targets::{self, TargetConfig};
use super::value::{ByteSize, Extreme, Form, Listen, SaveEvery, Secret, Setting};
use crate::telemetry::LogFormat;

/// One `[section]` as the example file and the checks see it.
pub struct SectionSpec {
    pub name: &'static str,
    pub doc: &'static [&'static str],
    pub keys: &'static [KeySpec],
}

/// One key as declared.
pub struct KeySpec {
    pub section: &'static str,
    pub name: &'static str,
    pub doc: &'static [&'static str],
    /// In the textual form of the type; empty: unset.
    pub default: &'static str,
    pub env: &'static str,
    pub what: &'static str,
    pub form: Form,
    pub sample: &'static str,
}

macro_rules! settings {
    ($(
        $(#[doc = $section_doc:literal])*
        [$section:ident] $Struct:ident {
            $( $(#[doc = $doc:literal])+ $key:ident: $ty:ty = $default:literal, $env:literal; )*
        }
    )*) => {
        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug)]
            pub struct $Struct { $( $(#[doc = $doc])+ pub $key: $ty, )* }
        )*

        /// All settings with their effective values.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( pub $section: $Struct, )*
            /// Beside the first store.
            pub targets: Vec<TargetConfig>,
        }

        /// The declarations, in the order of the example file.
        pub const SECTIONS: &[SectionSpec] = &[$(
            SectionSpec {
                name: stringify!($section),
                doc: &[$($section_doc),*],
                keys: &[$(
                    KeySpec {
                        section: stringify!($section), name: stringify!($key), doc: &[$($doc),+], default: $default,
                        env: $env, what: <$ty as Setting>::WHAT, form: <$ty as Setting>::FORM,
                        sample: <$ty as Setting>::SAMPLE,
                    },
                )*],
            },
        )*];

        impl Config {
            pub(super) fn resolve(from: &mut Resolver<'_>) -> Config {
                Config {
                    $( $section: $Struct { $( $key: from.value(stringify!($section), stringify!($key)), )* }, )*
                    targets: targets::read(&from.file.path, &from.file.targets, &mut from.errors),
                }
            }
        }
    };
}

settings! {
    /// The cluster's coordinator, and the coordinator half of `strata up`.
    [coordinator] CoordinatorConfig {
        /// Where gRPC listens. Beyond loopback it wants tls_cert and tls_key, or insecure.
        listen: Listen = "127.0.0.1:50051", "STRATA_LISTEN";
        /// Where HTTP listens: /livez, /readyz, /metrics, /api/v1/status. It has no TLS: beyond loopback it wants
        /// insecure.
        http: Listen = "127.0.0.1:3000", "STRATA_HTTP";
        /// Certificate chain (PEM) for gRPC; wants tls_key too. HTTP has no TLS.
        tls_cert: Option<PathBuf> = "", "STRATA_TLS_CERT";
        /// Private key (PEM) of tls_cert.
        tls_key: Option<PathBuf> = "", "STRATA_TLS_KEY";
        /// Authority (PEM) that client certificates must come from; unset: clients need none.
        tls_client_ca: Option<PathBuf> = "", "STRATA_TLS_CLIENT_CA";
        /// Listen beyond loopback without TLS. Anyone who reaches the port can then command the cluster.
        insecure: bool = "false", "STRATA_INSECURE";
        /// A rank or sidecar that is silent for so long is lost, unless its death was proved before.
        lease: Duration = "10s", "STRATA_LEASE";
        /// A sidecar that is silent for so long is shown as suspect.
        suspect_after: Duration = "1s 500ms", "STRATA_SUSPECT_AFTER";
        /// A rank whose step has not changed for so long, and for much longer than the job's steps take, is shown as stalled,
        /// with its Python stack. Ends nothing. 0s: never.
        stall_after: Duration = "5m", "STRATA_STALL_AFTER";
        /// The most calls a second that one job may make, a second's worth at once; more are refused as Overloaded and
        /// told when to come again, so that other jobs are not held up. What a job lives by (heartbeats, registrations,
        /// barriers, restores) counts and is never refused. 0: as many as it likes.
        calls_per_second: u64 = "0", "STRATA_CALLS_PER_SECOND";
        /// A Python file with on_commit, on_worker_lost or retain, run in a child process.
        hooks: Option<PathBuf> = "", "STRATA_HOOKS";
        /// Three or five coordinators that are one cluster's, this one too, as URLs with commas between; the same list for each. What they
        /// have acknowledged survives the loss of one of three, or two of five. Unset: this coordinator is alone.
        peers: Option<String> = "", "STRATA_PEERS";
        /// Which of peers this coordinator is, written as there. Unset: the one with the address that it listens on.
        advertise: Option<String> = "", "STRATA_ADVERTISE";
        /// By this the coordinators of peers know each other: 16 characters or more, the same for each. Better given in the
        /// environment than in a file.
        peers_secret: Option<Secret> = "", "STRATA_PEERS_SECRET";
    }

    /// The sidecar of a node, and the sidecar half of `strata up`.
    [sidecar] SidecarConfig {
        /// The Unix socket trainers connect to. Unset: $XDG_RUNTIME_DIR/strata/sidecar.sock, /run/strata/sidecar.sock
        /// or /tmp/strata-UID/sidecar.sock.
        socket: Option<PathBuf> = "", "STRATA_SOCKET";
        /// Where arenas lie; a memory file system. Unset: /dev/shm/strata-UID.
        arena_dir: Option<PathBuf> = "", "STRATA_ARENA_DIR";
        /// Where HTTP listens when the sidecar runs without a coordinator in the same process.
        http: Listen = "127.0.0.1:3001", "STRATA_SIDECAR_HTTP";
        /// The coordinator's URL; of several that are one cluster's all of them, with commas between. Unset: the one named in
        /// $STRATA_HOME/endpoint.json, else http://127.0.0.1:50051.
        coordinator: Option<String> = "", "STRATA_COORDINATOR";
        /// Authority (PEM) of the coordinator's certificate; unset: the system's authorities.
        tls_ca: Option<PathBuf> = "", "STRATA_COORDINATOR_CA";
        /// Certificate chain (PEM) shown to a coordinator that has tls_client_ca; wants tls_key too.
        tls_cert: Option<PathBuf> = "", "STRATA_SIDECAR_CERT";
        /// Private key (PEM) of tls_cert.
        tls_key: Option<PathBuf> = "", "STRATA_SIDECAR_KEY";
        /// Serve HTTP beyond loopback without TLS.
        insecure: bool = "false", "STRATA_SIDECAR_INSECURE";
        /// Copies of a rank's state that its arena holds. Two let a save begin while the one before is persisted; three
        /// spare INCREMENTAL saves from reading their base back.
        slots: u32 = "2", "STRATA_SLOTS";
        /// How long a save waits for a free slot before its step is skipped.
        save_wait: Duration = "2s", "STRATA_SAVE_WAIT";
        /// After so long a step that is not committed is reported with the ranks that are missing. A private sidecar, which
        /// stays until further targets have their steps, gives up on one that has taken nothing for so long.
        commit_timeout: Duration = "5m", "STRATA_COMMIT_TIMEOUT";
        /// After SIGTERM, how long to go on persisting what is sealed.
        drain_timeout: Duration = "20s", "STRATA_DRAIN_TIMEOUT";
        /// How long the arenas of a job that ended without a clean close are kept once they are persisted.
        arena_ttl: Duration = "1day", "STRATA_ARENA_TTL";
        /// Memory for persisting and restoring, beyond the arenas; 5MiB at least.
        memory_limit: ByteSize = "256MiB", "STRATA_MEMORY_LIMIT";
    }

    /// Where checkpoints are kept. A step is committed when this store has it.
    [store] StoreConfig {
        /// A directory, file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix. Unset: what the job asks for, and for `strata up`
        /// $STRATA_HOME/store.
        url: Option<String> = "", "STRATA_STORE";
        /// S3: the server's address, for anything but AWS itself.
        endpoint: Option<String> = "", "AWS_ENDPOINT_URL";
        /// S3: the region.
        region: Option<String> = "", "AWS_REGION";
        /// S3: the access key. Unset: found as the AWS tools find it.
        access_key_id: Option<String> = "", "AWS_ACCESS_KEY_ID";
        /// S3: the secret of access_key_id. Better given in the environment than in a file.
        secret_access_key: Option<Secret> = "", "AWS_SECRET_ACCESS_KEY";
        /// S3: the session token of temporary credentials.
        session_token: Option<Secret> = "", "AWS_SESSION_TOKEN";
        /// S3 and Azure: allow an endpoint without TLS.
        allow_http: bool = "false", "AWS_ALLOW_HTTP";
        /// GCS: the address of an emulator, which is asked without credentials. Credentials for GCS itself are found as
        /// Google's tools find them (GOOGLE_APPLICATION_CREDENTIALS, GOOGLE_SERVICE_ACCOUNT, the instance's own).
        gcs_emulator: Option<String> = "", "STORAGE_EMULATOR_HOST";
        /// Azure: the storage account, where the URL names none. Credentials other than its key are found as Azure's
        /// tools find them (AZURE_CLIENT_ID and its like, a managed identity, AZURE_STORAGE_SAS_TOKEN).
        azure_account: Option<String> = "", "AZURE_STORAGE_ACCOUNT_NAME";
        /// Azure: the key of the account. Better given in the environment than in a file.
        azure_key: Option<Secret> = "", "AZURE_STORAGE_ACCOUNT_KEY";
        /// Azure: the account's address, for anything but Azure itself, such as http://127.0.0.1:10000/devstoreaccount1.
        azure_endpoint: Option<String> = "", "AZURE_STORAGE_ENDPOINT";
        /// After so long without an answer a store request has failed, and is made again.
        timeout: Duration = "30s", "STRATA_STORE_TIMEOUT";
        /// Object stores: the most requests that carry checkpoints at once, in each direction. How many are in flight is found by
        /// trying; fewer leave more of a shared line to others.
        requests: u32 = "64", "STRATA_STORE_REQUESTS";
        /// Take over a store prefix that belongs to another cluster (its coordinator's state was lost). Keeps the job.
        take_over: bool = "false", "STRATA_TAKE_OVER_STORE";
    }

    /// Which checkpoints are kept: those that any of these rules keeps, and pinned ones. What is newest and whole, or what a
    /// save or a restore needs, is never removed.
    [checkpoint] CheckpointConfig {
        /// Keep the newest so many committed steps that hold the whole state; 0 keeps all. Pinned steps are always kept.
        keep_last: u32 = "0", "STRATA_KEEP_LAST";
        /// Beside the newest: keep the first step of every so many, such as 1000, 2000, 3000; 0 keeps none by this rule.
        keep_every_steps: u64 = "0", "STRATA_KEEP_EVERY_STEPS";
        /// Beside the newest: keep one step for every so much time.
        keep_every: Option<Duration> = "", "STRATA_KEEP_EVERY";
        /// Beside the newest: keep so many with the best value of best_metric; 0 keeps none by this rule.
        keep_best: u32 = "0", "STRATA_KEEP_BEST";
        /// Which of the metrics that a step is saved with keep_best compares, such as "loss".
        best_metric: Option<String> = "", "STRATA_BEST_METRIC";
        /// Whether the lowest or the highest best_metric is the best: "min" or "max".
        best_is: Extreme = "min", "STRATA_BEST_IS";
        /// When should_save says yes by itself: at every so many steps, such as 500; 0: never, the script decides; "auto":
        /// as often as what a save costs, and how often ranks are lost, make it worth while.
        interval_steps: SaveEvery = "0", "STRATA_CHECKPOINT_INTERVAL";
    }

    /// What every job is given.
    [job] JobConfig {
        /// The budget of a blocking call (restore, barrier, wait_committed) that names no time-out of its own.
        timeout: Duration = "10m", "STRATA_TIMEOUT";
        /// Told to workers that speak gRPC themselves: how often to send a heartbeat.
        heartbeat_interval: Duration = "2s", "STRATA_HEARTBEAT_INTERVAL";
    }

    /// Datasets whose files can't be read where they lie: those in a bucket, and compressed ones. The processes that train
    /// read this file and the environment themselves.
    [data] DataConfig {
        /// Where such files are kept once they were fetched or decompressed, for all processes and jobs of a user on this node; on a
        /// local disk. Unset: $STRATA_HOME/data-cache.
        cache_dir: Option<PathBuf> = "", "STRATA_DATA_CACHE";
        /// The most that they may take together; those that were not used for the longest time make room for others. Holds the
        /// largest of them at least, decompressed. Unset: a fifth of the disk, and no more than half of what is free there without them.
        cache_bytes: Option<ByteSize> = "", "STRATA_DATA_CACHE_BYTES";
    }

    /// Log lines, on standard error.
    [log] LogConfig {
        /// "human" or "json".
        format: LogFormat = "human", "STRATA_LOG_FORMAT";
        /// error, warn, info, debug or trace; or a filter such as "info,strata_core::sidecar=debug".
        level: String = "info", "STRATA_LOG";
    }
}

/// The declaration of `section.key`; None when there is no such key.
pub fn find(section: &str, key: &str) -> Option<&'static KeySpec> {
    SECTIONS.iter().find(|spec| spec.name == section)?.keys.iter().find(|spec| spec.name == key)
}

//! Every metric of Strata in one table. Made once per process and passed down as `Arc<Metrics>`; a role that has no
//! part in a metric leaves it at zero.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::buckets;
use crate::checksum;

/// Where a rank's part of a step was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum RestoreFrom {
    #[allow(non_camel_case_types, reason = "the label's value as it is written")]
    arena,
    #[allow(non_camel_case_types, reason = "the label's value as it is written")]
    store,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RestoreLabels {
    pub source: RestoreFrom,
}

/// One store operation and how it failed: `operation` such as "put", `kind` an error kind's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StoreErrorLabels {
    pub operation: &'static str,
    pub kind: &'static str,
}

/// Slot states as the arena headers name them: "free", "filling", "sealed", "persisting", "clean".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct SlotLabels {
    pub state: &'static str,
}

/// A further target of a job's steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TargetLabels {
    pub job: String,
    pub target: String,
}

/// A job, and what its time was spent on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobUseLabels {
    pub job: String,
    pub spent_on: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// A counter with one label set.
pub type CounterBy<L> = Family<L, Counter>;
/// A counter of fractions with one label set.
pub type FractionsBy<L> = Family<L, Counter<f64, AtomicU64>>;
/// A gauge with one label set.
pub type GaugeBy<L> = Family<L, Gauge>;
/// A histogram of seconds with one label set.
pub type SecondsBy<L> = Family<L, Histogram>;

/// From half a millisecond to about a quarter of an hour: a log commit, a staged save and a 100 GB persist all fall inside.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 21))
}

fn counter() -> Counter {
    Counter::default()
}

fn gauge() -> Gauge {
    Gauge::default()
}

macro_rules! metrics {
    ($($field:ident: $kind:ty = $make:expr, $name:literal $([$unit:ident])?, $help:literal;)*) => {
        /// All counters, gauges and histograms of this process. Cheap to update from any thread.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            fn unregistered() -> Metrics {
                Metrics { registry: Registry::with_prefix("strata"), $($field: $make,)* }
            }

            fn register(&mut self) {
                $(register!(self.registry, self.$field, $name, $help $(, $unit)?);)*
            }
        }
    };
}

macro_rules! register {
    ($registry:expr, $metric:expr, $name:literal, $help:literal) => {
        $registry.register($name, $help, $metric.clone())
    };
    ($registry:expr, $metric:expr, $name:literal, $help:literal, $unit:ident) => {
        $registry.register_with_unit($name, $help, Unit::$unit, $metric.clone())
    };
}

metrics! {
    // saves, counted by the side that knows: the sidecar (begun, sealed, skipped) and the coordinator (the outcome)
    saves_begun: Counter = counter(), "saves_begun", "Saves that were granted a slot, per rank";
    saves_sealed: Counter = counter(), "saves_sealed", "Saves whose slot was sealed, per rank: from here they survive the trainer";
    saves_durable: Counter = counter(), "saves_durable", "Saves whose packs and manifest are durable, per rank";
    saves_skipped: Counter = counter(), "saves_skipped", "Saves skipped because no slot came free within save_wait, per rank";
    saves_failed: Counter = counter(), "saves_failed", "Saves that could not be persisted, per rank";
    saves_incremental_without_base: Counter = counter(), "saves_incremental_without_base",
        "INCREMENTAL saves stored whole because no base step was at hand, per rank";
    steps_committed: Counter = counter(), "steps_committed", "Steps committed over all their ranks";
    steps_adopted: Counter = counter(), "steps_adopted", "Pending steps carried into a newer generation";
    steps_abandoned: Counter = counter(), "steps_abandoned", "Steps given up for good";
    steps_late: Counter = counter(), "steps_late", "Steps that passed commit_timeout before they committed";
    steps_removed: Counter = counter(), "steps_removed", "Steps removed by retention or by request";
    pending_steps: Gauge = gauge(), "pending_steps", "Steps begun and neither committed nor abandoned";
    commit_time: Histogram = seconds(), "commit" [Seconds], "From the first rank's seal report of a step to its COMMIT";

    // persisting
    persist_time: Histogram = seconds(), "persist" [Seconds], "Time to make one step of one node durable";
    save_wait: Histogram = seconds(), "save_wait" [Seconds], "Time a rank waited for a slot";
    state_bytes: Counter = counter(), "persisted_state" [Bytes], "Bytes of state made durable, before deduplication";
    stored_bytes: Counter = counter(), "stored" [Bytes], "Bytes newly written to the store";
    freed_bytes: Counter = counter(), "freed" [Bytes], "Bytes removed from the store with their steps";
    persist_buffer_bytes: Gauge = gauge(), "persist_buffer" [Bytes], "Memory held for persisting and restoring beyond the arenas";

    // restoring
    restore_time: SecondsBy<RestoreLabels> = Family::new_with_constructor(seconds), "restore" [Seconds],
        "Time to bring a rank's part of a step into its arena, verified";
    restored_bytes: CounterBy<RestoreLabels> = Family::default(), "restored" [Bytes], "Bytes of state restored";
    restores_damaged: Counter = counter(), "restores_damaged", "Steps found damaged by a restore";

    // store
    store_errors: CounterBy<StoreErrorLabels> = Family::default(), "store_errors", "Store operations that failed";
    store_retries: Counter = counter(), "store_retries", "Store operations made again after a failure";
    store_reachable: Gauge = gauge(), "store_reachable", "1 while the last store operation succeeded";

    // further targets
    steps_copied: Counter = counter(), "steps_copied", "Steps copied to further targets";
    copied_bytes: Counter = counter(), "copied" [Bytes], "Bytes of packs copied to further targets";
    target_behind: GaugeBy<TargetLabels> = Family::default(), "target_behind", "Committed steps that a target is to get and has not";

    // arenas
    arena_bytes: Gauge = gauge(), "arena" [Bytes], "Shared memory held by arenas";
    slots: GaugeBy<SlotLabels> = Family::default(), "slots", "Arena slots by state";
    slot_leases: Gauge = gauge(), "slot_leases", "Slots held by restored views and delta bases";
    slots_adopted: Counter = counter(), "slots_adopted", "Sealed slots found and taken over at start";

    // sessions and the line to the coordinator
    sessions: Gauge = gauge(), "sessions", "Trainers connected to this sidecar";
    sessions_refused: Counter = counter(), "sessions_refused", "Trainers refused at Hello";
    coordinator_attached: Gauge = gauge(), "coordinator_attached", "1 while this sidecar's line to the coordinator stands";
    coordinator_attaches: Counter = counter(), "coordinator_attaches", "Times the line to the coordinator was made";

    // coordinator
    nodes_attached: Gauge = gauge(), "nodes_attached", "Sidecars attached to this coordinator";
    ranks_live: Gauge = gauge(), "ranks_live", "Ranks of open generations";
    ranks_stalled: Gauge = gauge(), "ranks_stalled", "Ranks whose step stands still though they live";
    registrations: Counter = counter(), "registrations", "Ranks registered";
    heartbeats: Counter = counter(), "heartbeats", "Heartbeats and sidecar frames received";
    generations_opened: Counter = counter(), "generations_opened", "Generations opened";
    generations_ended: Counter = counter(), "generations_ended", "Generations ended by a lost rank or a clean close of all";
    job_time: FractionsBy<JobUseLabels> = Family::default(), "job" [Seconds],
        "Where a job's time has gone: productive, start, detection, fencing, restart, reassignment, restore, replay, save, stall";
    ranks_lost: Counter = counter(), "ranks_lost", "Ranks lost: dead by proof, or their lease ran out";
    calls_fenced: Counter = counter(), "calls_fenced", "Calls of an ended generation that were refused";
    barriers_released: Counter = counter(), "barriers_released", "Barriers released to all their ranks";
    barriers_timed_out: Counter = counter(), "barriers_timed_out", "Barrier calls that timed out";
    shard_requests: Counter = counter(), "shard_requests", "Shard assignments handed out";
    damaged_files: Counter = counter(), "damaged_files", "Files of datasets that ranks found damaged while they read them, and left out";
    log_commit_time: Histogram = seconds(), "log_commit" [Seconds], "Time of one group commit of the coordinator's log";
    log_records: Counter = counter(), "log_records", "Commands made durable in the coordinator's log";
    set_term: Gauge = gauge(), "coordinator_set_term", "Term of the set of coordinators that this one is of: it grows with every election";
    set_leads: Gauge = gauge(), "coordinator_set_leads", "Whether this coordinator leads its set: 1 or 0";
    set_lag: Gauge = gauge(), "coordinator_set_lag", "Entries of the set's log that this coordinator has and has not yet applied";
    hook_failures: Counter = counter(), "hook_failures", "Operator hooks that raised, hung or died: everything was kept";
}

/// What this process spends on sums, counted where they are made.
#[derive(Debug)]
struct Checksums;

impl Collector for Checksums {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let spent = checksum::spent();
        let bytes = ConstCounter::new(spent.bytes);
        let kind = bytes.metric_type();
        let what = "Bytes summed with CRC32C, to be guarded or to be checked";
        bytes.encode(encoder.encode_descriptor("checksum", what, Some(&Unit::Bytes), kind)?)?;
        let seconds = ConstCounter::new(spent.cpu.as_secs_f64());
        let what = "Processor time that those sums took";
        seconds.encode(encoder.encode_descriptor("checksum", what, Some(&Unit::Seconds), kind)?)
    }
}

impl Metrics {
    /// Made once per process, by its role.
    pub fn new() -> Arc<Metrics> {
        let mut metrics = Metrics::unregistered();
        metrics.register();
        let build = Info::new(BuildLabels { version: crate::VERSION });
        metrics.registry.register("build", "The build that serves this", build);
        metrics.registry.register_collector(Box::new(Checksums));
        buckets::register(&mut metrics.registry);
        Arc::new(metrics)
    }

    /// The whole registry as OpenMetrics text, ending in `# EOF`.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String can't fail");
        text
    }

    /// One restore of `bytes`, taken from `source` in `took`.
    pub fn restored(&self, source: RestoreFrom, bytes: u64, took: Duration) {
        let labels = RestoreLabels { source };
        self.restore_time.get_or_create(&labels).observe(took.as_secs_f64());
        self.restored_bytes.get_or_create(&labels).inc_by(bytes);
    }

    /// One failed store operation.
    pub fn store_failed(&self, operation: &'static str, kind: crate::error::Kind) {
        self.store_errors.get_or_create(&StoreErrorLabels { operation, kind: kind.name() }).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_metric_has_a_prefix_help_and_unit() {
        let metrics = Metrics::new();
        metrics.steps_committed.inc();
        metrics.stored_bytes.inc_by(7);
        metrics.restored(RestoreFrom::store, 5, Duration::from_millis(3));
        metrics.store_failed("put", Kind::Unavailable);
        let text = metrics.encode();
        assert!(text.contains("strata_steps_committed_total 1\n"), "{text}");
        assert!(
            text.contains("# UNIT strata_stored_bytes bytes\n")
                && text.contains("strata_stored_bytes_total 7\n"),
            "{text}"
        );
        assert!(text.contains("strata_restore_seconds_count{source=\"store\"} 1\n"), "{text}");
        assert!(
            text.contains("strata_store_errors_total{operation=\"put\",kind=\"Unavailable\"} 1\n"),
            "{text}"
        );
        assert!(text.contains(&format!("strata_build_info{{version=\"{}\"}} 1\n", crate::VERSION)), "{text}");
        for counter in ["\nstrata_checksum_seconds_total ", "\nstrata_checksum_bytes_total "] {
            assert!(text.contains(counter), "{counter}: {text}");
        }
        assert!(text.ends_with("# EOF\n"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("strata_"), "{line}");
        }
        let helps = text.lines().filter(|line| line.starts_with("# HELP")).count();
        let types = text.lines().filter(|line| line.starts_with("# TYPE")).count();
        assert_eq!(helps, types);
    }
}

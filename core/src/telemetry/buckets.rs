//! How this process's requests to buckets have come to be. Of the process, not of a role: whoever sends shares the way.

use std::sync::LazyLock;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

static BUCKETS: LazyLock<Buckets> = LazyLock::new(Buckets::default);

#[derive(Default)]
struct Buckets {
    requests: Family<Labels, Gauge>,
    refusals: Family<Labels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    bucket: String,
    direction: Direction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Direction {
    #[allow(non_camel_case_types, reason = "the label's value as it is written")]
    send,
    #[allow(non_camel_case_types, reason = "the label's value as it is written")]
    bring,
}

/// Of one bucket in one direction.
#[derive(Clone, Debug, Default)]
pub struct Requests {
    /// That may be in flight.
    pub most: Gauge,
    /// Refused (429, 503) or timed out.
    pub refusals: Counter,
}

/// `bucket`: as a user writes it, such as `s3://name`.
pub fn requests(bucket: &str, direction: Direction) -> Requests {
    let labels = Labels { bucket: bucket.to_owned(), direction };
    Requests {
        most: BUCKETS.requests.get_or_create_owned(&labels),
        refusals: BUCKETS.refusals.get_or_create_owned(&labels),
    }
}

pub(super) fn register(registry: &mut Registry) {
    let what =
        "Requests with checkpoint data that may be in flight to a bucket, as its rate and refusals made it";
    registry.register("store_requests", what, BUCKETS.requests.clone());
    let what = "Requests that a bucket refused (429, 503) or let time out";
    registry.register("store_refusals", what, BUCKETS.refusals.clone());
}

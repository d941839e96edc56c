//! The lanes of this process, two a bucket.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::lane::Lane;
use crate::telemetry::{Direction, requests};

type Buckets = BTreeMap<(String, Option<String>), Arc<Lanes>>;

/// With the process that they belong to: what was in flight when it forked is its parent's.
static KNOWN: Mutex<Option<(u32, Buckets)>> = Mutex::new(None);

/// To a bucket.
#[derive(Debug)]
pub struct Lanes {
    pub send: Arc<Lane>,
    pub bring: Arc<Lane>,
}

impl Lanes {
    /// `most`: requests in flight in each.
    pub fn new(bucket: &str, most: usize) -> Arc<Lanes> {
        let lane = |direction| Lane::new(most, requests(bucket, direction));
        Arc::new(Lanes { send: lane(Direction::send), bring: lane(Direction::bring) })
    }

    /// Those of a bucket at an endpoint. `most` counts for whoever asks first.
    pub fn to((bucket, endpoint): (&str, Option<&str>), most: usize) -> Arc<Lanes> {
        let process = std::process::id();
        let mut known = KNOWN.lock();
        let (_, buckets) = match &mut *known {
            Some(known) if known.0 == process => known,
            other => other.insert((process, BTreeMap::new())),
        };
        let key = (bucket.to_owned(), endpoint.map(str::to_owned));
        Arc::clone(buckets.entry(key).or_insert_with(|| Lanes::new(bucket, most)))
    }
}

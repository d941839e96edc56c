//! Which rank holds which shard, and in which order samples come: ring, quotas, order, cursor. Pure.

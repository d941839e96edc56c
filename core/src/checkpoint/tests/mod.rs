//! The engine over real stores: a directory, S3 over object_store's memory, and a real S3 server where STRATA_VERSITYGW
//! names one.

#[macro_use]
mod pass_on;

mod attach;
mod copies;
mod crash;
mod damage;
mod faults;
mod fixture;
mod full;
mod full_anywhere;
mod incremental;
mod inspect;
mod mutations;
mod partial;
mod publish;
mod removal;
mod repairs;
mod replicated;
mod round_trip;
mod small;
mod stale;

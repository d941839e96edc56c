//! The engine over real stores: a directory, and S3 over object_store's memory; over a real S3 server too where the
//! environment names one (see `storage::conformance`).

mod attach;
mod damage;
mod faults;
mod fixture;
mod full;
mod incremental;
mod publish;
mod removal;
mod replicated;
mod round_trip;

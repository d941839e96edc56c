//! Generated from proto/: the gRPC services (`v1`) and what lies in arenas and stores (`format`).

#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("strata.v1");
}

#[allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]
pub mod format {
    tonic::include_proto!("strata.format.v1");
}

/// Encoded FileDescriptorSet of all services, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

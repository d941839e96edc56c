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

/// A rank's phase as people read it: "training", never a number.
pub(crate) fn phase_name<S: serde::Serializer>(phase: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let name = v1::RankPhase::try_from(*phase).unwrap_or_default().as_str_name();
    serializer.serialize_str(&name.trim_start_matches("RANK_PHASE_").to_ascii_lowercase())
}

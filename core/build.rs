//! Compiles the protos with protox (pure Rust: no protoc needed) and tonic-prost.

use std::path::Path;

const SERVICES: [&str; 9] = [
    "strata/v1/common.proto",
    "strata/v1/coordinator.proto",
    "strata/v1/sidecar.proto",
    "strata/v1/checkpoint.proto",
    "strata/v1/dataset.proto",
    "strata/v1/admin.proto",
    "strata/v1/rendezvous.proto",
    "strata/v1/replication.proto",
    "strata/format/v1/format.proto",
];

/// What `strata status --json`, `/api/v1/status` and `strata goodput --json` show.
const SHOWN: [&str; 13] = [
    "Status",
    "NodeStatus",
    "CoordinatorStatus",
    "JobStatus",
    "RankStatus",
    "RankStack",
    "PendingStep",
    "TargetStatus",
    "Version",
    "Progress",
    "Goodput",
    "JobGoodput",
    "TimeSpent",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(SERVICES, [&root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    let mut generate = tonic_prost_build::configure()
        .bytes(".strata.v1.WriteCommit")
        .codec_path("crate::codec::SmallBuffers");
    for message in SHOWN {
        generate = generate.type_attribute(format!("strata.v1.{message}"), "#[derive(serde::Serialize)]");
    }
    let phase = "#[serde(serialize_with = \"crate::proto::phase_name\")]";
    generate.field_attribute("strata.v1.Progress.phase", phase).compile_fds(descriptors)?;
    Ok(())
}

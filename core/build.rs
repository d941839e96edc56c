//! Compiles the protos with protox (pure Rust: no protoc needed) and tonic-prost.

use std::path::Path;

const SERVICES: [&str; 7] = [
    "strata/v1/common.proto",
    "strata/v1/coordinator.proto",
    "strata/v1/sidecar.proto",
    "strata/v1/checkpoint.proto",
    "strata/v1/dataset.proto",
    "strata/v1/admin.proto",
    "strata/format/v1/format.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(SERVICES, [&root])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), prost::Message::encode_to_vec(&descriptors))?;
    tonic_prost_build::configure().bytes(".strata.v1.WriteCommit").compile_fds(descriptors)?;
    Ok(())
}

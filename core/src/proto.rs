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

impl v1::DamagedFile {
    /// As `strata datasets --json` prints it below its dataset.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "path": self.path, "reason": self.reason, "hosts": self.hosts })
    }
}

impl v1::DatasetSpec {
    /// What `strata datasets --json` shows: of files their number, since there may be a million.
    pub fn to_json(&self) -> serde_json::Value {
        let left_out =
            |file: &v1::QuarantinedFile| serde_json::json!({ "path": file.path, "reason": file.reason });
        serde_json::json!({
            "id": self.id,
            "path": self.path,
            "format": self.format,
            "dtype": self.dtype,
            "sample_len": self.sample_len,
            "shape": self.shape,
            "columns": self.columns,
            "samples": self.total_samples,
            "shard_size": self.shard_size,
            "shards": self.total_samples.div_ceil(self.shard_size.max(1)),
            "shuffle": self.shuffle,
            "seed": self.seed,
            "version": self.version,
            "files": self.files.len(),
            "quarantined": self.quarantined.iter().map(left_out).collect::<Vec<_>>(),
        })
    }
}

impl v1::StepInfo {
    /// A committed step as hooks and `strata checkpoints` tell it; the user's own metrics and meta as JSON again.
    pub fn to_json(&self) -> serde_json::Value {
        let data = |position: &v1::DataPosition| {
            serde_json::json!({
                "dataset": position.dataset,
                "version": position.version,
                "epoch": position.epoch,
                "step": position.step,
                "batch_size": position.batch_size,
                "start": position.start,
            })
        };
        serde_json::json!({
            "step": self.step,
            "generation": self.generation,
            "kind": self.kind().as_str_name().trim_start_matches("SAVE_KIND_"),
            "world_size": self.world_size,
            "bytes": self.bytes,
            "stored_bytes": self.stored_bytes,
            "committed_unix_ms": self.committed_unix_ms,
            "pinned": self.pinned,
            "base_steps": self.base_steps,
            "metrics": users_json(&self.metrics_json),
            "meta": users_json(&self.meta_json),
            "targets": self.targets,
            "elsewhere": self.elsewhere,
            "data": self.data.iter().map(data).collect::<Vec<_>>(),
        })
    }
}

/// Who was lost, for messages: those that are named, and how many there are besides.
pub fn lost_names(lost: &[v1::Member], count: u32) -> String {
    let names: Vec<String> =
        lost.iter().map(|member| format!("rank {} on {}", member.rank, member.host)).collect();
    match (count as usize).saturating_sub(names.len()) {
        _ if names.is_empty() => "nobody".to_owned(),
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// Text that is no JSON is passed as text.
fn users_json(text: &str) -> serde_json::Value {
    match text.is_empty() {
        true => serde_json::Value::Null,
        false => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
    }
}

/// A rank's phase as people read it: "training", never a number.
pub(crate) fn phase_name<S: serde::Serializer>(phase: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    let name = v1::RankPhase::try_from(*phase).unwrap_or_default().as_str_name();
    serializer.serialize_str(&name.trim_start_matches("RANK_PHASE_").to_ascii_lowercase())
}

//! Between what the wire carries and what the state holds.

use super::super::state::{
    DatasetFile, DatasetRecord, Ended, Findings, Job, LostMember, Member, Open, Purpose, QuarantinedFile,
    StepRecord,
};
use crate::data::DatasetSpec;
use crate::error::{Error, Result};
use crate::format::StepKind;
use crate::ids::{Generation, JobName, Rank, Step, WorldSize};
use crate::proto::v1;

/// As member lists name a worker without a sidecar.
pub const DIRECT: &str = "direct";

pub fn kind(number: i32) -> Result<StepKind> {
    v1::SaveKind::try_from(number).map(StepKind::from).map_err(|_| {
        Error::invalid(format!("reading a save's kind: {number} is none that this version knows"))
    })
}

/// Lost ranks, and ranks that are waited for, of which a message names so many. All of them to all nodes would cost
/// O(members²).
const NAMED: usize = 64;

pub fn ended(job: &JobName, ended: &Ended) -> v1::GenerationEnded {
    let member = |lost: &LostMember| v1::Member {
        rank: lost.rank.0,
        node: lost.node.clone().unwrap_or_else(|| DIRECT.to_owned()),
        host: lost.host.clone(),
    };
    v1::GenerationEnded {
        job: job.to_string(),
        generation: ended.generation.0,
        lost: ended.lost.iter().take(NAMED).map(member).collect(),
        reason: ended.reason.clone(),
        lost_count: ended.lost.len() as u32,
    }
}

pub fn member(rank: Rank, member: &Member) -> v1::Member {
    v1::Member {
        rank: rank.0,
        node: member.node.clone().unwrap_or_else(|| DIRECT.to_owned()),
        host: member.host.clone(),
    }
}

/// With all its members.
pub fn generation(job: &JobName, known: &Job, open: &Open) -> v1::Generation {
    let members = open.members.iter().map(|(rank, one)| member(*rank, one)).collect();
    v1::Generation { members, ..generation_without_members(job, known, open) }
}

pub fn generation_without_members(job: &JobName, known: &Job, open: &Open) -> v1::Generation {
    v1::Generation {
        job: job.to_string(),
        job_uuid: known.uuid.map(|uuid| uuid.to_string()).unwrap_or_default(),
        generation: open.generation.0,
        world_size: open.world.0,
        members: Vec::new(),
        interval_steps: open.interval_steps,
        place: None,
    }
}

pub fn purpose(purpose: v1::StepPurpose) -> Purpose {
    match purpose {
        v1::StepPurpose::Stop => Purpose::Stop,
        v1::StepPurpose::Save => Purpose::Save,
    }
}

impl From<Purpose> for v1::StepPurpose {
    fn from(purpose: Purpose) -> v1::StepPurpose {
        match purpose {
            Purpose::Stop => v1::StepPurpose::Stop,
            Purpose::Save => v1::StepPurpose::Save,
        }
    }
}

pub fn step_info(step: Step, record: &StepRecord) -> v1::StepInfo {
    v1::StepInfo {
        step: step.0,
        generation: record.generation.0,
        kind: v1::SaveKind::from(record.kind).into(),
        world_size: record.world.0,
        bytes: record.bytes,
        stored_bytes: record.stored_bytes,
        committed_unix_ms: record.committed_unix_ms,
        pinned: record.is_pinned(),
        base_steps: record.bases.iter().map(|step| step.0).collect(),
        commit_blake3: record.commit_blake3.clone(),
        metrics_json: record.metrics_json.clone(),
        meta_json: record.meta_json.clone(),
        data: record.data.iter().cloned().map(Into::into).collect(),
        ..v1::StepInfo::default()
    }
}

pub fn record(info: v1::StepInfo) -> Result<(Step, StepRecord)> {
    let record = StepRecord {
        generation: Generation(info.generation),
        kind: kind(info.kind)?,
        world: WorldSize(info.world_size),
        bytes: info.bytes,
        stored_bytes: info.stored_bytes,
        committed_unix_ms: info.committed_unix_ms,
        pinned: info.pinned,
        holders: Default::default(),
        bases: info.base_steps.into_iter().map(Step).collect(),
        commit_blake3: info.commit_blake3,
        metrics_json: info.metrics_json,
        meta_json: info.meta_json,
        data: info.data.into_iter().map(Into::into).collect(),
    };
    Ok((Step(info.step), record))
}

pub fn findings(found: v1::StoreFindings) -> Result<Findings> {
    Ok(Findings {
        uuid: found.job_uuid.parse()?,
        highest_generation: Generation(found.highest_generation),
        steps: found.steps.into_iter().map(record).collect::<Result<_>>()?,
    })
}

/// Fails with Invalid for a format or dtype that is none.
pub fn dataset(bare: v1::DatasetSpec) -> Result<DatasetRecord> {
    let version = DatasetSpec::try_from(bare.clone())?.content_version();
    Ok(DatasetRecord {
        id: bare.id,
        path: bare.path,
        format: bare.format,
        total_samples: bare.total_samples,
        shard_size: bare.shard_size,
        shuffle: bare.shuffle,
        seed: bare.seed,
        sample_len: bare.sample_len,
        dtype: bare.dtype,
        files: bare
            .files
            .into_iter()
            .map(|file| DatasetFile { path: file.path, samples: file.samples })
            .collect(),
        columns: bare.columns,
        shape: bare.shape,
        schema: bare.schema,
        quarantined: bare
            .quarantined
            .into_iter()
            .map(|file| QuarantinedFile { path: file.path, reason: file.reason })
            .collect(),
        version,
    })
}

pub fn dataset_spec(record: &DatasetRecord) -> v1::DatasetSpec {
    let file = |file: &DatasetFile| v1::DataFile { path: file.path.clone(), samples: file.samples };
    let left_out =
        |file: &QuarantinedFile| v1::QuarantinedFile { path: file.path.clone(), reason: file.reason.clone() };
    v1::DatasetSpec {
        id: record.id.clone(),
        path: record.path.clone(),
        format: record.format.clone(),
        total_samples: record.total_samples,
        shard_size: record.shard_size,
        shuffle: record.shuffle,
        seed: record.seed,
        version: record.version,
        sample_len: record.sample_len,
        dtype: record.dtype.clone(),
        files: record.files.iter().map(file).collect(),
        columns: record.columns.clone(),
        shape: record.shape.clone(),
        schema: record.schema.clone(),
        quarantined: record.quarantined.iter().map(left_out).collect(),
    }
}

pub fn ranks(ranks: impl IntoIterator<Item = Rank>) -> Vec<u32> {
    ranks.into_iter().map(|rank| rank.0).collect()
}

/// As many of them as a message may name.
pub fn some_ranks(ranks: impl IntoIterator<Item = Rank>) -> Vec<u32> {
    ranks.into_iter().take(NAMED).map(|rank| rank.0).collect()
}

/// `1, 2 and 5` for messages, `0, 1, … and 99936 more` where they are many.
pub fn list(ranks: &[Rank]) -> String {
    let mut names: Vec<String> = ranks.iter().take(NAMED).map(Rank::to_string).collect();
    if ranks.len() > NAMED {
        names.push(format!("{} more", ranks.len() - NAMED));
    }
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_about_thousands_of_lost_ranks_names_some_and_counts_all() {
        let lost: Vec<LostMember> = (0..100_000)
            .map(|rank| LostMember { rank: Rank(rank), node: Some("n".into()), host: format!("host-{rank}") })
            .collect();
        let ranks: Vec<Rank> = lost.iter().map(|lost| lost.rank).collect();
        let reason = format!("rank {} was silent", list(&ranks));
        let told = ended(&"j".parse().unwrap(), &Ended { generation: Generation(1), lost, reason });
        assert_eq!((told.lost.len(), told.lost_count), (NAMED, 100_000));
        assert!(told.reason.ends_with("63 and 99936 more was silent"), "{}", told.reason);
        assert!(prost::Message::encoded_len(&told) < 4096);
        let named = crate::proto::lost_names(&told.lost, told.lost_count);
        assert!(named.ends_with("rank 63 on host-63 and 99936 more"), "{named}");
        assert_eq!(list(&[Rank(1), Rank(2), Rank(5)]), "1, 2 and 5");
    }
}

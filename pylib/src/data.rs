//! Datasets: registration, and one rank's batches.

use std::path::PathBuf;

use parking_lot::Mutex;
use pyo3::prelude::*;
use strata_core::data::{self, About, DatasetSpec, Format, OnDamage, Rows};
use strata_core::error::{Error, Result as CoreResult};
use strata_core::ids::{Rank, WorldSize};
use strata_core::proto::v1;
use strata_core::sharding::{Cursor, Tail};

use crate::blocking::blocking;
use crate::buffer::Buffer;
use crate::errors::Result;
use crate::save::Position;
use crate::table::Table;

/// Which files, what is in them, and what becomes of damaged ones.
pub struct Shape<'a> {
    pub path: PathBuf,
    pub format: &'a str,
    pub dtype: &'a str,
    pub sample_len: u32,
    pub columns: Vec<String>,
    pub on_damage: &'a str,
}

/// How many there are, and in which order they come.
pub struct Counts {
    pub total_samples: u64,
    pub shard_size: u64,
    pub shuffle: bool,
    pub seed: u64,
}

/// The spec to register: scanned where the path can be read here.
pub fn resolved(id: String, shape: Shape<'_>, counts: Counts) -> CoreResult<DatasetSpec> {
    let Shape { path, format, dtype, sample_len, columns, on_damage } = shape;
    let about = About { dtype: dtype.to_owned(), sample_len, columns, ..About::default() };
    let format = Format::new(format, about)
        .map_err(|error| error.while_doing(format!("registering dataset {id:?}")))?;
    let on_damage = match on_damage {
        "raise" => OnDamage::Raise,
        "quarantine" => OnDamage::Quarantine,
        other => {
            return Err(Error::invalid(format!(
                "registering dataset {id:?}: on_damage={other:?} is unknown"
            ))
            .hint("use \"raise\" or \"quarantine\""));
        }
    };
    // The spec is read in other working directories than this one.
    let path = match path.to_str() {
        Some(text) if text.contains("://") => path,
        _ => std::path::absolute(&path).unwrap_or(path),
    };
    let Counts { total_samples, shard_size, shuffle, seed } = counts;
    let spec = DatasetSpec { total_samples, shuffle, seed, ..DatasetSpec::new(id, path, format, shard_size) };
    Ok(data::resolve(spec, on_damage)?.0)
}

/// One rank's batches, resumable from a position. Iterating ends with the epoch; `next_epoch` goes on.
#[pyclass(frozen, module = "strata._core")]
pub struct Batches {
    batches: Mutex<data::Batches>,
}

impl Batches {
    /// Resumes at `at`; another batch size begins a new segment there.
    pub fn open(
        spec: v1::DatasetSpec,
        rank: Rank,
        world: WorldSize,
        batch_size: u64,
        tail: &str,
        at: Option<v1::DataPosition>,
    ) -> CoreResult<Batches> {
        let spec = DatasetSpec::try_from(spec)?;
        let tail = match tail {
            "short" => Tail::Short,
            "pad" => Tail::Pad,
            "drop" => Tail::Drop,
            other => {
                return Err(Error::invalid(format!(
                    "reading dataset {:?}: tail={other:?} is unknown",
                    spec.id
                ))
                .hint("use \"short\", \"pad\" or \"drop\""));
            }
        };
        let cursor = match at {
            None => Cursor::new(spec.id.as_str(), spec.version, 0, batch_size, world)?,
            Some(position) => {
                // Where the epoch stands does not depend on the world that got there.
                let reached = Cursor::from_position(&position, world)?;
                if reached.segment.batch == batch_size {
                    reached
                } else {
                    reached.resized(batch_size, world)?
                }
            }
        };
        Ok(Batches { batches: Mutex::new(data::Batches::new(spec, rank, cursor, tail)?) })
    }
}

/// (samples, indices as int64, real samples, epoch, step)
type Taken = (Py<PyAny>, Py<Buffer>, u64, u64, u64);

#[pymethods]
impl Batches {
    /// Name of the items' dtype; none for samples that come as a table.
    #[getter]
    fn dtype(&self) -> String {
        self.batches.lock().format().about().dtype
    }

    /// Of one sample.
    #[getter]
    fn shape(&self) -> Vec<u64> {
        let about = self.batches.lock().format().about();
        if about.sample_len > 0 { vec![u64::from(about.sample_len)] } else { about.shape }
    }

    #[getter]
    fn total_samples(&self) -> u64 {
        self.batches.lock().spec().total_samples
    }

    /// Global steps left in the epoch.
    #[getter]
    fn steps_left(&self) -> u64 {
        let batches = self.batches.lock();
        batches.consumption().steps_left(batches.cursor())
    }

    /// What the tail of the epoch costs: padded or dropped samples.
    #[getter]
    fn uneven(&self) -> u64 {
        let batches = self.batches.lock();
        batches.consumption().uneven(batches.cursor())
    }

    /// Where the next batch will be taken from.
    fn position(&self) -> Position {
        let at = v1::DataPosition::from(self.batches.lock().cursor());
        (at.dataset, at.epoch, at.step, at.batch_size, at.start, at.version)
    }

    /// The next batch, or None at the epoch's end.
    fn next(&self, py: Python<'_>) -> Result<Option<Taken>> {
        let Some(batch) = blocking(py, |_| self.batches.lock().next_batch())? else { return Ok(None) };
        let indices: Vec<u8> = batch.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        let samples = match batch.rows {
            Rows::Fixed(bytes) => Py::new(py, Buffer::from(bytes))?.into_any(),
            Rows::Table(rows) => Py::new(py, Table::from(rows))?.into_any(),
        };
        let indices = Py::new(py, Buffer::from(indices))?;
        Ok(Some((samples, indices, batch.weight, batch.at.epoch, batch.at.step)))
    }

    fn next_epoch(&self) {
        self.batches.lock().next_epoch();
    }
}

//! Datasets: registration, and one rank's batches.

use std::ffi::{c_int, c_void};
use std::path::PathBuf;

use parking_lot::Mutex;
use pyo3::exceptions::PyBufferError;
use pyo3::ffi;
use pyo3::prelude::*;
use strata_core::data::{self, DatasetSpec, Format};
use strata_core::error::{Error, Result as CoreResult};
use strata_core::ids::{Rank, WorldSize};
use strata_core::proto::v1;
use strata_core::sharding::{Cursor, Tail};

use crate::blocking::blocking;
use crate::errors::Result;
use crate::save::Position;

/// How the samples of a dataset lie in its files.
pub struct Shape<'a> {
    pub path: PathBuf,
    pub format: &'a str,
    pub dtype: &'a str,
    pub sample_len: u32,
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
    let format = Format::parse(shape.format, shape.dtype, shape.sample_len)
        .map_err(|error| error.while_doing(format!("registering dataset {id:?}")))?;
    // The spec is read in other working directories than this one.
    let path = match shape.path.to_str() {
        Some(text) if text.contains("://") => shape.path,
        _ => std::path::absolute(&shape.path).unwrap_or(shape.path),
    };
    let Counts { total_samples, shard_size, shuffle, seed } = counts;
    let files = Vec::new();
    let spec = DatasetSpec { id, path, format, total_samples, shard_size, shuffle, seed, version: 0, files };
    Ok(data::resolve(spec)?.0)
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
type Taken = (Py<Buffer>, Py<Buffer>, u64, u64, u64);

#[pymethods]
impl Batches {
    /// Name of the items' dtype.
    #[getter]
    fn dtype(&self) -> &'static str {
        match &self.batches.lock().spec().format {
            Format::Tokens { dtype, .. } => dtype.name(),
            Format::Named(_) => "",
        }
    }

    /// Items of a sample.
    #[getter]
    fn sample_len(&self) -> u32 {
        match &self.batches.lock().spec().format {
            Format::Tokens { sample_len, .. } => *sample_len,
            Format::Named(_) => 0,
        }
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
        let indices = batch.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
        let samples = Py::new(py, Buffer { bytes: batch.bytes })?;
        let indices = Py::new(py, Buffer { bytes: indices })?;
        Ok(Some((samples, indices, batch.weight, batch.at.epoch, batch.at.step)))
    }

    fn next_epoch(&self) {
        self.batches.lock().next_epoch();
    }
}

/// Bytes made in Rust that NumPy and torch use where they lie; writable, since torch wants that.
#[pyclass(frozen, module = "strata._core")]
pub struct Buffer {
    bytes: Vec<u8>,
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.bytes.len()
    }

    /// # Safety
    /// Called by the interpreter, with a view to be filled.
    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        if view.is_null() {
            return Err(PyBufferError::new_err("no view to fill"));
        }
        let bytes = &slf.get().bytes;
        let (start, length) = (bytes.as_ptr().cast_mut().cast::<c_void>(), bytes.len() as ffi::Py_ssize_t);
        // SAFETY: the view is the interpreter's. It gets a reference to this object, which never moves or resizes its
        // bytes, and no Rust code reads or writes them once Python has them.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, length, 0, flags) };
        if filled == -1 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }
}

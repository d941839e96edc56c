//! Datasets: registration, and one rank's batches.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use prost::Message;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use strata_core::data::{self, About, Batch, DatasetSpec, Format, OnDamage, Rows};
use strata_core::error::{Error, Result as CoreResult};
use strata_core::ids::{Rank, WorldSize};
use strata_core::proto::v1;
use strata_core::sharding::{Cursor, Tail};

use crate::blocking::blocking;
use crate::buffer::Buffer;
use crate::errors::Result;
use crate::save::{self, Position};
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

/// The spec to register, before anybody has looked at its files.
pub fn asked(id: String, shape: Shape<'_>, counts: Counts) -> CoreResult<(DatasetSpec, OnDamage)> {
    let Shape { path, format, dtype, sample_len, columns, on_damage } = shape;
    let about = About { dtype: dtype.to_owned(), sample_len, columns, ..About::default() };
    let format = Format::new(format, about)
        .map_err(|error| error.while_doing(format!("registering dataset {id:?}")))?;
    let on_damage =
        damage(on_damage).map_err(|error| error.while_doing(format!("registering dataset {id:?}")))?;
    // The spec is read in other working directories than this one.
    let path = match path.to_str() {
        Some(text) if text.contains("://") => path,
        _ => std::path::absolute(&path).unwrap_or(path),
    };
    let Counts { total_samples, shard_size, shuffle, seed } = counts;
    let spec = DatasetSpec { total_samples, shuffle, seed, ..DatasetSpec::new(id, path, format, shard_size) };
    Ok((spec, on_damage))
}

fn damage(word: &str) -> CoreResult<OnDamage> {
    match word {
        "raise" => Ok(OnDamage::Raise),
        "quarantine" => Ok(OnDamage::Quarantine),
        other => {
            Err(Error::invalid(format!("on_damage={other:?} is unknown"))
                .hint("use \"raise\" or \"quarantine\""))
        }
    }
}

fn tail(word: &str) -> CoreResult<Tail> {
    match word {
        "short" => Ok(Tail::Short),
        "pad" => Ok(Tail::Pad),
        "drop" => Ok(Tail::Drop),
        other => {
            Err(Error::invalid(format!("tail={other:?} is unknown"))
                .hint("use \"short\", \"pad\" or \"drop\""))
        }
    }
}

/// What a share does where a batch is not as it should be, in words that travel.
#[derive(Clone, Debug)]
pub struct Manner {
    pub tail: String,
    pub on_damage: String,
}

/// One rank's share of a dataset, as another process may have it too: pickled, it is what was registered and who reads.
#[pyclass(frozen, module = "strata._core")]
pub struct Share {
    spec: v1::DatasetSpec,
    rank: Rank,
    world: WorldSize,
    batch_size: u64,
    manner: Manner,
    /// With its files open, by the process of this number: a forked child opens them anew. Locked under the interpreter's lock
    /// alone, so that it is free in a child.
    opened: Mutex<Option<(u32, Arc<data::Share>)>>,
}

impl Share {
    pub fn of(spec: v1::DatasetSpec, rank: Rank, world: WorldSize, batch_size: u64, manner: Manner) -> Share {
        Share { spec, rank, world, batch_size, manner, opened: Mutex::default() }
    }

    fn opened(&self, py: Python<'_>) -> Result<Arc<data::Share>> {
        let process = std::process::id();
        if let Some((opener, share)) = &*self.opened.lock()
            && *opener == process
        {
            return Ok(share.clone());
        }
        let share = Arc::new(blocking(py, |_| self.open_anew())?);
        if let Some((opener, other)) = self.opened.lock().replace((process, share.clone()))
            && opener != process
        {
            // Threads of the parent may have held its locks when it was forked.
            std::mem::forget(other);
        }
        Ok(share)
    }

    fn open_anew(&self) -> CoreResult<data::Share> {
        let spec = DatasetSpec::try_from(self.spec.clone())?;
        let doing = |error: Error| error.while_doing(format!("reading dataset {:?}", spec.id));
        let tail = tail(&self.manner.tail).map_err(doing)?;
        let on_damage = damage(&self.manner.on_damage).map_err(doing)?;
        data::Share::new(spec, self.rank, self.world, self.batch_size, tail, on_damage)
    }
}

/// Name of the constructor and what it is called with.
type Pickled<'py> = (Bound<'py, PyType>, (Bound<'py, PyBytes>, u32, u32, u64, String, String));

#[pymethods]
impl Share {
    /// Of what `__reduce__` gives.
    #[new]
    fn new(
        spec: &[u8],
        rank: u32,
        world: u32,
        batch_size: u64,
        tail: String,
        on_damage: String,
    ) -> Result<Share> {
        let spec = v1::DatasetSpec::decode(spec)
            .map_err(|error| Error::invalid(format!("unpickling a share of a dataset: {error}")))?;
        Ok(Share::of(spec, Rank(rank), WorldSize(world), batch_size, Manner { tail, on_damage }))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Pickled<'py> {
        let Share { spec, rank, world, batch_size, manner, .. } = slf.get();
        let Manner { tail, on_damage } = manner.clone();
        let spec = PyBytes::new(slf.py(), &spec.encode_to_vec());
        (slf.get_type(), (spec, rank.0, world.0, *batch_size, tail, on_damage))
    }

    #[getter]
    fn total_samples(&self) -> u64 {
        self.spec.total_samples
    }

    /// Name of the items' dtype (none for samples that come as a table), and the shape of one sample.
    fn items(&self, py: Python<'_>) -> Result<(String, Vec<u64>)> {
        let About { dtype, sample_len, shape, .. } = self.opened(py)?.reader().format().about();
        Ok((dtype, if sample_len > 0 { vec![u64::from(sample_len)] } else { shape }))
    }

    /// Where reading goes on after `reached`, by whatever world and batch size that was; without it, where it begins.
    #[pyo3(signature = (reached=None))]
    fn start(&self, py: Python<'_>, reached: Option<Position>) -> Result<Position> {
        let reached = reached.map(save::position);
        Ok(position(&self.opened(py)?.cursor(reached.as_ref())?))
    }

    /// Global steps from there to the epoch's end.
    fn steps_left(&self, py: Python<'_>, at: Position) -> Result<u64> {
        let (share, at) = self.at(py, at)?;
        Ok(share.consumption().steps_left(&at))
    }

    /// What the tail of the epoch costs from there on: padded or dropped samples.
    fn uneven(&self, py: Python<'_>, at: Position) -> Result<u64> {
        let (share, at) = self.at(py, at)?;
        Ok(share.consumption().uneven(&at))
    }

    /// `steps` further, also beyond the epoch's end.
    fn skipped(&self, py: Python<'_>, at: Position, steps: u64) -> Result<Position> {
        let (_, at) = self.at(py, at)?;
        Ok(position(&at.skipped(steps)))
    }

    fn next_epoch(&self, py: Python<'_>, at: Position) -> Result<Position> {
        let (_, at) = self.at(py, at)?;
        Ok(position(&at.next_epoch()))
    }

    /// Each step from `at` on to the epoch's end, or each `every`th; `ahead` of them are read before they are asked for.
    #[pyo3(signature = (at, every=1, ahead=0))]
    fn batches(&self, py: Python<'_>, at: Position, every: u64, ahead: usize) -> Result<Batches> {
        let (share, at) = self.at(py, at)?;
        Ok(Batches { batches: Mutex::new(data::Batches::new(share, at, every, ahead)) })
    }

    /// The batch of one step; None beyond the epoch's end.
    fn batch(&self, py: Python<'_>, at: Position) -> Result<Option<Taken>> {
        let (share, at) = self.at(py, at)?;
        let batch = blocking(py, |_| share.read(&at, &share.spec().order(at.epoch)))?;
        batch.map(|batch| taken(py, batch)).transpose()
    }

    /// Samples by their numbers in the dataset.
    fn samples(&self, py: Python<'_>, numbers: Vec<u64>) -> Result<Py<PyAny>> {
        let share = self.opened(py)?;
        let rows = blocking(py, |_| share.reader().read(&numbers))?;
        samples(py, rows)
    }
}

impl Share {
    fn at(&self, py: Python<'_>, at: Position) -> Result<(Arc<data::Share>, Cursor)> {
        let share = self.opened(py)?;
        let cursor = share.cursor(Some(&save::position(at)))?;
        Ok((share, cursor))
    }
}

/// The batches of a loop. Iterating ends with the epoch.
#[pyclass(frozen, module = "strata._core")]
pub struct Batches {
    batches: Mutex<data::Batches>,
}

/// (samples, indices as int64, real samples, position of the step, position after it, damaged files of which samples are missing)
type Taken = (Py<PyAny>, Py<Buffer>, u64, Position, Position, Vec<LeftOut>);

/// (path, what is wrong with it, samples of the batch that lie in it)
type LeftOut = (PathBuf, String, u64);

#[pymethods]
impl Batches {
    /// The next batch, or None at the epoch's end.
    fn next(&self, py: Python<'_>) -> Result<Option<Taken>> {
        let batch = blocking(py, |interrupt| self.batches.lock().next_batch(|| interrupt.check()))?;
        batch.map(|batch| taken(py, batch)).transpose()
    }
}

fn taken(py: Python<'_>, batch: Batch) -> Result<Taken> {
    let indices: Vec<u8> = batch.indices.iter().flat_map(|index| index.to_le_bytes()).collect();
    let indices = Py::new(py, Buffer::from(indices))?;
    let (at, after) = (position(&batch.at), position(&batch.at.advanced()));
    let left_out = batch.left_out.into_iter();
    let left_out =
        left_out.map(|data::LeftOut { file, samples }| (file.path, file.reason, samples)).collect();
    Ok((samples(py, batch.rows)?, indices, batch.weight, at, after, left_out))
}

fn samples(py: Python<'_>, rows: Rows) -> Result<Py<PyAny>> {
    Ok(match rows {
        Rows::Fixed(bytes) => Py::new(py, Buffer::from(bytes))?.into_any(),
        Rows::Table(rows) => Py::new(py, Table::from(rows))?.into_any(),
    })
}

fn position(cursor: &Cursor) -> Position {
    let at = v1::DataPosition::from(cursor);
    (at.dataset, at.epoch, at.step, at.batch_size, at.start, at.version)
}

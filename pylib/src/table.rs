//! Samples as Arrow's arrays. Other libraries take the whole by its C data interface, without a copy; columns of numbers are NumPy's
//! where they lie, and texts Python's own objects.

use std::ffi::CStr;

use arrow_array::cast::AsArray;
use arrow_array::ffi::{self, FFI_ArrowArray, FFI_ArrowSchema};
use arrow_array::{Array, RecordBatch, StructArray};
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyList, PyType};
use strata_core::error::Error;

use crate::buffer::Buffer;
use crate::errors::Result;

/// Names that the C data interface prescribes ("The Arrow PyCapsule Interface").
const SCHEMA: &CStr = c"arrow_schema";
const ARRAY: &CStr = c"arrow_array";

#[pyclass(frozen, module = "strata._core")]
pub struct Table {
    rows: RecordBatch,
}

impl From<RecordBatch> for Table {
    fn from(rows: RecordBatch) -> Table {
        Table { rows }
    }
}

#[pymethods]
impl Table {
    /// Of what `__reduce__` gives: Arrow's stream format, one batch in it.
    #[new]
    fn new(stream: &[u8]) -> Result<Table> {
        let batch = StreamReader::try_new(stream, None).and_then(|mut batches| batches.next().transpose());
        let broken = |error: &dyn std::fmt::Display| Error::invalid(format!("unpickling samples: {error}"));
        match batch.map_err(|error| broken(&error))? {
            Some(rows) => Ok(Table { rows }),
            None => Err(broken(&"the stream holds no batch").into()),
        }
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> Result<(Bound<'py, PyType>, (Bound<'py, PyBytes>,))> {
        let rows = &slf.get().rows;
        let mut stream = Vec::new();
        StreamWriter::try_new(&mut stream, &rows.schema())
            .and_then(|mut writer| writer.write(rows).and_then(|()| writer.finish()))
            .map_err(|error| exporting(&error))?;
        Ok((slf.get_type(), (PyBytes::new(slf.py(), &stream),)))
    }

    fn __len__(&self) -> usize {
        self.rows.num_rows()
    }

    #[getter]
    fn names(&self) -> Vec<String> {
        self.rows.schema().fields().iter().map(|field| field.name().clone()).collect()
    }

    /// Of numbers without gaps: (dtype, Buffer); of texts and bytes: a list. None: of something else, which Arrow's libraries read.
    fn column(&self, py: Python<'_>, name: &str) -> Result<Option<Py<PyAny>>> {
        let column = self.rows.column_by_name(name).ok_or_else(|| {
            Error::invalid(format!("reading column {name:?}: the samples have none of that name"))
                .hint(format!("their columns: {}", self.names().join(", ")))
        })?;
        if let Some(dtype) = dtype(column.data_type())
            && column.null_count() == 0
        {
            let data = column.to_data();
            let bytes = column.data_type().primitive_width().unwrap_or(1);
            let items = data.buffers()[0].slice_with_length(data.offset() * bytes, data.len() * bytes);
            return Ok(Some((dtype, Buffer::from(items)).into_pyobject(py)?.into_any().unbind()));
        }
        texts(py, column)
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> Result<Bound<'py, PyCapsule>> {
        let schema = FFI_ArrowSchema::try_from(&*self.rows.schema()).map_err(|error| exporting(&error))?;
        Ok(PyCapsule::new_with_value(py, schema, SCHEMA)?)
    }

    /// `requested_schema` asks for other types, which a producer need not give.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> Result<(Bound<'py, PyCapsule>, Bound<'py, PyCapsule>)> {
        drop(requested_schema);
        let rows = StructArray::from(self.rows.clone());
        let (array, schema): (FFI_ArrowArray, FFI_ArrowSchema) =
            ffi::to_ffi(&rows.to_data()).map_err(|error| exporting(&error))?;
        let schema = PyCapsule::new_with_value(py, schema, SCHEMA)?;
        Ok((schema, PyCapsule::new_with_value(py, array, ARRAY)?))
    }
}

fn exporting(error: &ArrowError) -> Error {
    Error::internal(format!("handing samples to Arrow: {error}"))
}

/// NumPy's name of it, where NumPy has the same.
fn dtype(of: &DataType) -> Option<&'static str> {
    Some(match of {
        DataType::Int8 => "int8",
        DataType::Int16 => "int16",
        DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 => "uint8",
        DataType::UInt16 => "uint16",
        DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float16 => "float16",
        DataType::Float32 => "float32",
        DataType::Float64 => "float64",
        _ => return None,
    })
}

fn texts(py: Python<'_>, column: &dyn Array) -> Result<Option<Py<PyAny>>> {
    let bytes = |value: Option<&[u8]>| value.map(|bytes| PyBytes::new(py, bytes));
    let list = match column.data_type() {
        DataType::Binary => PyList::new(py, column.as_binary::<i32>().iter().map(bytes))?,
        DataType::LargeBinary => PyList::new(py, column.as_binary::<i64>().iter().map(bytes))?,
        DataType::Utf8 => PyList::new(py, column.as_string::<i32>().iter())?,
        DataType::LargeUtf8 => PyList::new(py, column.as_string::<i64>().iter())?,
        DataType::Boolean => PyList::new(py, column.as_boolean().iter())?,
        _ => return Ok(None),
    };
    Ok(Some(list.into_any().unbind()))
}

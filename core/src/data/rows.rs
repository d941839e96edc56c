//! The samples of a batch, as they are handed over.

use arrow_array::RecordBatch;

/// Samples in the order in which they were asked for.
#[derive(Clone, Debug, PartialEq)]
pub enum Rows {
    /// Of one dtype and shape: their items, one sample after the other.
    Fixed(Vec<u8>),
    /// A row a sample: Arrow's arrays, which NumPy and others use where they lie.
    Table(RecordBatch),
}

impl Rows {
    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        match self {
            Rows::Fixed(bytes) => bytes.len(),
            Rows::Table(table) => table.get_array_memory_size(),
        }
    }
}

//! What an item of a sample is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    Bool,
    Int8,
    Uint8,
    Int16,
    Uint16,
    Int32,
    Uint32,
    Int64,
    Uint64,
    Float16,
    Float32,
    Float64,
}

impl Dtype {
    pub const ALL: [Dtype; 12] = [
        Dtype::Bool,
        Dtype::Int8,
        Dtype::Uint8,
        Dtype::Int16,
        Dtype::Uint16,
        Dtype::Int32,
        Dtype::Uint32,
        Dtype::Int64,
        Dtype::Uint64,
        Dtype::Float16,
        Dtype::Float32,
        Dtype::Float64,
    ];

    /// Name as NumPy and torch spell it, kind as .npy files do, and bytes of one item.
    fn about(self) -> (&'static str, char, u64) {
        match self {
            Dtype::Bool => ("bool", 'b', 1),
            Dtype::Int8 => ("int8", 'i', 1),
            Dtype::Uint8 => ("uint8", 'u', 1),
            Dtype::Int16 => ("int16", 'i', 2),
            Dtype::Uint16 => ("uint16", 'u', 2),
            Dtype::Int32 => ("int32", 'i', 4),
            Dtype::Uint32 => ("uint32", 'u', 4),
            Dtype::Int64 => ("int64", 'i', 8),
            Dtype::Uint64 => ("uint64", 'u', 8),
            Dtype::Float16 => ("float16", 'f', 2),
            Dtype::Float32 => ("float32", 'f', 4),
            Dtype::Float64 => ("float64", 'f', 8),
        }
    }

    /// As NumPy and torch spell it.
    pub fn name(self) -> &'static str {
        self.about().0
    }

    /// Bytes of one item.
    pub fn bytes(self) -> u64 {
        self.about().2
    }

    /// Of a .npy header's `descr`, such as `<f4` or `|u1`. None for what this machine would have to convert.
    pub fn of_npy(descr: &str) -> Option<Dtype> {
        let mut letters = descr.chars();
        let order = letters.next()?;
        let (kind, bytes) = (letters.next()?, letters.as_str().parse().ok()?);
        let fits = |dtype: &Dtype| (dtype.about().1, dtype.bytes()) == (kind, bytes);
        let is_native = order == '<' || (bytes == 1 && "|=".contains(order));
        Dtype::ALL.into_iter().find(|dtype| is_native && fits(dtype))
    }

    /// What token ids are stored as.
    pub fn is_token(self) -> bool {
        matches!(self, Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 | Dtype::Int32 | Dtype::Int64)
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Dtype> {
        Dtype::ALL.into_iter().find(|dtype| dtype.name() == name).ok_or_else(|| {
            Error::invalid(format!("reading the dtype {name:?}: there is none of that name"))
                .hint(format!("dtype= is one of {}", Dtype::ALL.map(Dtype::name).join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_dtypes_are_those_that_need_no_conversion() {
        for (descr, dtype) in [
            ("<f4", Some(Dtype::Float32)),
            ("|b1", Some(Dtype::Bool)),
            ("|u1", Some(Dtype::Uint8)),
            ("<i8", Some(Dtype::Int64)),
            (">i8", None),
            ("<c8", None),
            ("<U5", None),
            ("|V2", None),
            ("", None),
            ("<", None),
        ] {
            assert_eq!(Dtype::of_npy(descr), dtype, "{descr}");
        }
    }
}

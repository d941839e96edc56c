//! How samples lie in the files of a dataset.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::dtype::Dtype;
use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Raw little-endian items without a header, `sample_len` to a sample; what is left over at a file's end is unused.
    Tokens { dtype: Dtype, sample_len: u32 },
    /// Arrays whose first axis counts the samples. Without a dtype before a file was looked at.
    Npy { dtype: Option<Dtype>, shape: Vec<u64> },
    /// A sample a line.
    Jsonl,
    /// Tar files; `parts` are the endings of a sample's files, in order. None: all that are found.
    WebDataset { parts: Vec<String> },
    /// A row a sample, of these columns or of all. `schema` says what the files have in common; empty before one was looked at.
    Parquet { columns: Vec<String>, schema: String },
    /// A format whose files this build doesn't open: registered and placed by its metadata alone.
    Named(String),
}

/// What a format may have beside its name, as the wire carries it. Empty: it has not, or not yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    pub dtype: String,
    pub sample_len: u32,
    pub columns: Vec<String>,
    pub shape: Vec<u64>,
    pub schema: String,
}

impl Format {
    const NAMES: [&str; 5] = ["tokens", "parquet", "jsonl", "webdataset", "npy"];

    /// `name` as users write it. A name that nearly is a known one is Invalid; any other stands for a format that the caller reads.
    pub fn new(name: &str, about: About) -> Result<Format> {
        let About { dtype, sample_len, columns, shape, schema } = about;
        if !columns.is_empty() && !["parquet", "webdataset"].contains(&name) {
            return Err(Error::invalid(format!("reading the format {name}: it has no columns"))
                .hint("columns= chooses columns of parquet files, or parts of webdataset's samples"));
        }
        match name {
            "tokens" => return Format::tokens(&dtype, sample_len),
            "npy" => {
                let dtype = if dtype.is_empty() { None } else { Some(dtype.parse()?) };
                return Ok(Format::Npy { dtype, shape });
            }
            "jsonl" => return Ok(Format::Jsonl),
            "webdataset" => return Ok(Format::WebDataset { parts: columns }),
            "parquet" => return Ok(Format::Parquet { columns, schema }),
            _ => {}
        }
        // Between slips such as "parqet" or "json" and real other names such as "tfrecord" (test below).
        let near = |known: &&str| strsim::jaro_winkler(name, known) > 0.85;
        if let Some(known) = Format::NAMES.iter().find(|known| near(known)) {
            return Err(Error::invalid(format!("reading the format {name:?}: no such format"))
                .hint(format!("did you mean {known:?}?")));
        }
        if name.is_empty() {
            return Err(Error::invalid("reading the format: it is empty")
                .hint(format!("format= is one of {}, or your own", Format::NAMES.join(", "))));
        }
        Ok(Format::Named(name.to_owned()))
    }

    fn tokens(dtype: &str, sample_len: u32) -> Result<Format> {
        let dtype: Dtype = dtype.parse()?;
        if !dtype.is_token() {
            let names = Dtype::ALL.into_iter().filter(|dtype| dtype.is_token()).map(Dtype::name);
            let names = names.collect::<Vec<_>>().join(", ");
            return Err(Error::invalid(format!("reading the format tokens: ids of {dtype}"))
                .hint(format!("dtype= is one of {names}")));
        }
        match sample_len {
            0 => Err(Error::invalid("reading the format tokens: a sample of 0 tokens")
                .hint("sample_len= says how many tokens make a sample")),
            _ => Ok(Format::Tokens { dtype, sample_len }),
        }
    }

    /// What [`Format::new`] made it of.
    pub fn about(&self) -> About {
        match self.clone() {
            Format::Tokens { dtype, sample_len } => {
                About { dtype: dtype.name().to_owned(), sample_len, ..About::default() }
            }
            Format::Npy { dtype, shape } => {
                let dtype = dtype.map_or_else(String::new, |dtype| dtype.name().to_owned());
                About { dtype, shape, ..About::default() }
            }
            Format::WebDataset { parts } => About { columns: parts, ..About::default() },
            Format::Parquet { columns, schema } => About { columns, schema, ..About::default() },
            Format::Jsonl | Format::Named(_) => About::default(),
        }
    }

    /// What files of this and of the other kind have in common; None: they are no dataset.
    pub fn with(&self, other: &Format) -> Option<Format> {
        match (self, other) {
            (Format::WebDataset { parts }, Format::WebDataset { parts: more }) => {
                let parts: BTreeSet<&String> = parts.iter().chain(more).collect();
                Some(Format::WebDataset { parts: parts.into_iter().cloned().collect() })
            }
            _ => (self == other).then(|| self.clone()),
        }
    }

    /// With what was found in the files. Invalid for parts that none of them has.
    pub fn filled(&self, found: Format) -> Result<Format> {
        let (Format::WebDataset { parts: wanted }, Format::WebDataset { parts }) = (self, &found) else {
            return Ok(found);
        };
        match wanted.iter().find(|part| !parts.contains(part)) {
            Some(strange) => Err(Error::invalid(format!("no sample has a part {strange:?}"))
                .hint(format!("their parts: {}", parts.join(", ")))),
            None if wanted.is_empty() => Ok(found),
            None => Ok(self.clone()),
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Format::Tokens { .. } => "tokens",
            Format::Npy { .. } => "npy",
            Format::Jsonl => "jsonl",
            Format::WebDataset { .. } => "webdataset",
            Format::Parquet { .. } => "parquet",
            Format::Named(name) => name,
        }
    }

    /// How its files' names end, where their directory is given. None: this build opens none of them.
    pub fn ending(&self) -> Option<&'static str> {
        match self {
            Format::Tokens { .. } => Some("bin"),
            Format::Npy { .. } => Some("npy"),
            Format::Jsonl => Some("jsonl"),
            Format::WebDataset { .. } => Some("tar"),
            Format::Parquet { .. } => Some("parquet"),
            Format::Named(_) => None,
        }
    }

    /// Bytes of one sample, where all samples have the same.
    pub fn sample_bytes(&self) -> Option<u64> {
        match self {
            Format::Tokens { dtype, sample_len } => Some(dtype.bytes() * u64::from(*sample_len)),
            Format::Npy { dtype, shape } => {
                shape.iter().try_fold(dtype.as_ref()?.bytes(), |bytes, axis| bytes.checked_mul(*axis))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn named(name: &str, dtype: &str, sample_len: u32) -> Result<Format> {
        Format::new(name, About { dtype: dtype.into(), sample_len, ..About::default() })
    }

    #[test]
    fn a_slip_in_the_format_is_refused_and_a_strange_format_is_not() {
        for slip in ["parqet", "Parquet", "json", "token", ""] {
            assert_eq!(named(slip, "uint8", 1).unwrap_err().kind, Kind::Invalid, "{slip}");
        }
        for strange in ["tfrecord", "arrow", "parquet", "jsonl", "npy", "webdataset"] {
            assert_eq!(named(strange, "", 0).unwrap().name(), strange);
        }
        assert!(named("tokens", "float32", 8).is_err());
        assert!(named("tokens", "uint8", 0).is_err());
    }

    #[test]
    fn columns_belong_to_formats_that_have_some() {
        let columns = || About { columns: vec!["text".into()], ..About::default() };
        for name in ["parquet", "webdataset"] {
            assert_eq!(Format::new(name, columns()).unwrap().about(), columns());
        }
        assert_eq!(Format::new("jsonl", columns()).unwrap_err().kind, Kind::Invalid);
    }
}

//! NumPy's own files: one array, whose first axis counts the samples.
//!
//! Source: NEP 1, "A Simple File Format for NumPy Arrays", versions 1.0 to 3.0.

use std::io::{self, BufReader, Read};
use std::path::Path;

use super::Held;
use crate::data::cache::Source;
use crate::data::dtype::Dtype;
use crate::data::format::Format;
use crate::error::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Of a sane header: NumPy writes 128 bytes for all but structured dtypes.
const LONGEST_HEADER: usize = 64 << 10;

/// Where the items begin, and what they are.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    pub start: u64,
    pub dtype: Dtype,
    /// Of the whole array.
    pub shape: Vec<u64>,
}

/// Reads the header and looks whether the file has as many bytes as it says.
pub fn scan(path: &Path, source: &Source) -> Result<Held> {
    let doing = || format!("reading {}", path.display());
    let header = read(BufReader::new(source.from(0))).map_err(|error| error.while_doing(doing()))?;
    let bytes = source.bytes();
    let (samples, shape) = (header.shape[0], header.shape[1..].to_vec());
    let item = header.dtype.bytes();
    let data = header.shape.iter().try_fold(item, |bytes, axis| bytes.checked_mul(*axis));
    if data.and_then(|data| data.checked_add(header.start)) != Some(bytes) {
        return Err(Error::corrupt(format!(
            "{}: it has {bytes} bytes, which an array of shape {:?} with {item}-byte items after a header of {} has not",
            doing(),
            header.shape,
            header.start
        ))
        .hint("the file was cut off, or written over"));
    }
    Ok(Held { samples, format: Format::Npy { dtype: Some(header.dtype), shape } })
}

/// The header, from the beginning of a file.
pub fn read(mut file: impl Read) -> Result<Header> {
    let not_npy = || Error::corrupt("it does not begin like a .npy file").hint("write it with numpy.save");
    // What could not be read at all says so itself.
    let unread = |error: io::Error| match error.downcast::<Error>() {
        Ok(ours) => ours,
        Err(_) => not_npy(),
    };
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(unread)?;
    let (magic, version) = start.split_at(MAGIC.len());
    if magic != MAGIC {
        return Err(not_npy());
    }
    let mut length = [0; 4];
    let wide = if version[0] == 1 { 2 } else { 4 };
    file.read_exact(&mut length[..wide]).map_err(unread)?;
    let length = u32::from_le_bytes(length) as usize;
    if !(1..=3).contains(&version[0]) || length > LONGEST_HEADER {
        return Err(Error::invalid(format!(
            "a .npy header of version {}.{} and {length} bytes",
            version[0], version[1]
        ))
        .hint("this build reads versions 1 to 3: write it with numpy.save"));
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(unread)?;
    let (dtype, shape) = parse(&String::from_utf8_lossy(&text))?;
    Ok(Header { start: (start.len() + wide + length) as u64, dtype, shape })
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, as NumPy writes it.
fn parse(text: &str) -> Result<(Dtype, Vec<u64>)> {
    let damaged =
        |what: &str| Error::corrupt(format!("its .npy header has no {what}: {:?}", text.trim_end()));
    let value = |key: &str| {
        let after = text.split_once(&format!("'{key}':"));
        after.map(|(_, rest)| rest.trim_start()).ok_or_else(|| damaged(key))
    };
    if value("fortran_order")?.starts_with("True") {
        return Err(Error::invalid("the array is stored by columns (fortran_order)")
            .hint("samples must lie together: numpy.save(path, numpy.ascontiguousarray(array))"));
    }
    let quoted = value("descr")?.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
    let descr = quoted.map(|(descr, _)| descr).unwrap_or("a structured dtype");
    let dtype = Dtype::of_npy(descr).ok_or_else(|| {
        Error::invalid(format!("items of {descr}"))
            .hint("a .npy file of samples holds little-endian numbers or booleans: array.astype(...)")
    })?;
    let inside = value("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let (axes, _) = inside.ok_or_else(|| damaged("shape"))?;
    let axes = axes.split(',').map(str::trim).filter(|axis| !axis.is_empty());
    let shape: Vec<u64> =
        axes.map(|axis| axis.parse().map_err(|_| damaged("shape"))).collect::<Result<_>>()?;
    match shape.is_empty() {
        true => Err(Error::invalid("the array has no axis").hint("its first axis counts the samples")),
        false => Ok((dtype, shape)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use tempfile::TempDir;

    use super::*;
    use crate::error::Kind;

    fn file(header: &str, data: usize) -> Result<Held> {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("a.npy");
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        fs::write(&path, bytes).unwrap();
        scan(&path, &Source::file(File::open(&path).unwrap(), &path).unwrap())
    }

    #[test]
    fn the_first_axis_counts_the_samples() {
        let held =
            file("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2, 5), }        \n", 3 * 10 * 4)
                .unwrap();
        let format = Format::Npy { dtype: Some(Dtype::Float32), shape: vec![2, 5] };
        assert_eq!(held, Held { samples: 3, format });
        let held = file("{'descr': '|u1', 'fortran_order': False, 'shape': (7,), }\n", 7).unwrap();
        assert_eq!((held.samples, held.format.sample_bytes()), (7, Some(1)));
    }

    #[test]
    fn what_can_not_be_read_says_why() {
        for (header, data, kind) in [
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (3, 2), }", 24, Kind::Invalid),
            ("{'descr': '>f4', 'fortran_order': False, 'shape': (3, 2), }", 24, Kind::Invalid),
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,), }", 12, Kind::Invalid),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (), }", 4, Kind::Invalid),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }", 23, Kind::Corrupt),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (3, x), }", 24, Kind::Corrupt),
            (
                "{'descr': '<f8', 'fortran_order': False, 'shape': (4611686018427387904, 8), }",
                8,
                Kind::Corrupt,
            ),
            ("nonsense", 0, Kind::Corrupt),
        ] {
            let error = file(header, data).unwrap_err();
            assert_eq!(error.kind, kind, "{header}: {error}");
            assert!(error.message.contains("a.npy"), "{error}");
        }
    }
}

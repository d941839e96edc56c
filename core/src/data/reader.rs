//! Reads samples by number into the caller's buffer.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::scan;
use super::spec::DatasetSpec;
use crate::error::{Doing, Error, Kind, Result};

/// Descriptors held at once; a window of the order touches about 16 shards, so more would seldom be hit again.
const OPEN_FILES: usize = 32;

/// Reads with `pread`, one call per run of neighbouring samples. Not mmap: a file that shrinks under a map is a SIGBUS,
/// here it is an error that names it.
#[derive(Debug)]
pub struct Reader {
    sample_bytes: u64,
    files: Vec<Source>,
    /// The files that are open, oldest first.
    open: VecDeque<(usize, File)>,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// First sample of the dataset that lies in this file, and the first that doesn't any more.
    start: u64,
    stop: u64,
}

impl Reader {
    /// A reader of this dataset. Scans it where it was registered from metadata alone.
    ///
    /// Fails with Invalid for a format this build doesn't open or a wrong count, NotFound where no file is here.
    pub fn new(spec: &DatasetSpec) -> Result<Reader> {
        let sample_bytes = spec.format.sample_bytes().ok_or_else(|| {
            Error::invalid(format!("reading dataset {:?}: this build doesn't open {} files", spec.id, spec.format.name()))
                .hint("use get_shard and read the files yourself, or store token ids as .bin files (format=\"tokens\")")
        })?;
        let files = if spec.files.is_empty() {
            match scan::resolve(spec.clone())? {
                (scanned, scan::Scanned::Yes) => scanned.files,
                (_, scan::Scanned::No(reason)) => {
                    return Err(Error::not_found(format!("reading dataset {:?}: {reason}", spec.id))
                        .hint("the path must be readable on every node that trains; check its mounts"));
                }
            }
        } else {
            spec.files.clone()
        };
        let mut start = 0;
        let sources = files.into_iter().map(|file| {
            let source = Source { path: file.path, start, stop: start + file.samples };
            start = source.stop;
            source
        });
        Ok(Reader { sample_bytes, files: sources.collect(), open: VecDeque::new() })
    }

    /// Bytes of one sample.
    pub fn sample_bytes(&self) -> usize {
        self.sample_bytes as usize
    }

    /// Reads these samples one after the other into `into`, which has room for exactly as many.
    ///
    /// Fails with Corrupt, naming the file, where a file is shorter than when it was registered. On failure the
    /// contents of `into` are unspecified.
    pub fn read(&mut self, samples: &[u64], into: &mut [u8]) -> Result<()> {
        assert_eq!(into.len(), samples.len() * self.sample_bytes(), "room for exactly the samples asked for");
        let mut rest = into;
        let mut at = 0;
        while at < samples.len() {
            let number = self.file_of(samples[at])?;
            let source = &self.files[number];
            let run = samples[at..]
                .iter()
                .zip(samples[at]..source.stop)
                .take_while(|(sample, expected)| *sample == expected)
                .count();
            let offset = (samples[at] - source.start) * self.sample_bytes;
            let (now, later) = rest.split_at_mut(run * self.sample_bytes as usize);
            self.read_file(number, offset, now)?;
            rest = later;
            at += run;
        }
        Ok(())
    }

    fn file_of(&self, sample: u64) -> Result<usize> {
        let number = self.files.partition_point(|file| file.stop <= sample);
        if number == self.files.len() {
            let samples = self.files.last().map_or(0, |file| file.stop);
            return Err(Error::invalid(format!("reading sample {sample}: the dataset has {samples}")));
        }
        Ok(number)
    }

    fn read_file(&mut self, number: usize, offset: u64, into: &mut [u8]) -> Result<()> {
        let file = match self.open.iter().position(|(open, _)| *open == number) {
            Some(at) => &self.open[at].1,
            None => {
                if self.open.len() == OPEN_FILES {
                    self.open.pop_front();
                }
                let path = &self.files[number].path;
                let file = File::open(path).doing(|| format!("reading {}", path.display()))?;
                self.open.push_back((number, file));
                &self.open[self.open.len() - 1].1
            }
        };
        file.read_exact_at(into, offset).map_err(|error| {
            let path = self.files[number].path.display();
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                let wanted = offset + into.len() as u64;
                return Error::new(
                    Kind::Corrupt,
                    format!(
                        "reading {path}: it ends before byte {wanted}, which it had when it was registered"
                    ),
                )
                .hint("put the whole file back, or register the dataset anew under another id");
            }
            Error::io(format!("reading {path} at byte {offset}"), &error)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;
    use crate::data::{Format, resolve};

    /// Sample n is the item n as uint32, twice; `counts` samples per file.
    fn dataset(counts: &[u64]) -> (TempDir, DatasetSpec) {
        let folder = TempDir::new().unwrap();
        let mut next = 0u32;
        for (number, count) in counts.iter().enumerate() {
            let items = (next..next + *count as u32).flat_map(|item| [item, item]);
            let bytes: Vec<u8> = items.flat_map(u32::to_le_bytes).collect();
            fs::write(folder.path().join(format!("{number:03}.bin")), bytes).unwrap();
            next += *count as u32;
        }
        let spec = DatasetSpec {
            id: "d".into(),
            path: folder.path().into(),
            format: Format::parse("tokens", "uint32", 2).unwrap(),
            total_samples: 0,
            shard_size: 4,
            shuffle: true,
            seed: 1,
            version: 0,
            files: vec![],
        };
        (folder, resolve(spec).unwrap().0)
    }

    fn read(reader: &mut Reader, samples: &[u64]) -> Result<Vec<u32>> {
        let mut bytes = vec![0; samples.len() * reader.sample_bytes()];
        reader.read(samples, &mut bytes)?;
        Ok(bytes.chunks(8).map(|sample| u32::from_le_bytes(sample[..4].try_into().unwrap())).collect())
    }

    #[test]
    fn any_samples_come_back_in_the_order_asked_for() {
        // More files than descriptors, one of them empty.
        let mut counts = vec![3; 50];
        counts[7] = 0;
        let (_folder, spec) = dataset(&counts);
        let mut reader = Reader::new(&spec).unwrap();
        let forward: Vec<u64> = (0..spec.total_samples).collect();
        let scattered: Vec<u64> = (0..spec.total_samples).map(|n| n * 71 % spec.total_samples).collect();
        for samples in [forward, scattered, vec![5, 5, 6, 4], vec![]] {
            let expected: Vec<u32> = samples.iter().map(|sample| *sample as u32).collect();
            assert_eq!(read(&mut reader, &samples).unwrap(), expected);
        }
        assert!(reader.open.len() <= OPEN_FILES);
    }

    #[test]
    fn a_file_that_became_short_is_corrupt_and_named() {
        let (folder, spec) = dataset(&[5, 5]);
        let mut reader = Reader::new(&spec).unwrap();
        let path = folder.path().join("001.bin");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let error = read(&mut reader, &[0, 8, 9]).unwrap_err();
        assert!(error.kind == Kind::Corrupt && error.message.contains("001.bin"), "{error}");
        assert_eq!(read(&mut reader, &[0, 8]).unwrap(), [0, 8]);
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let (folder, spec) = dataset(&[5, 5]);
        let mut reader = Reader::new(&spec).unwrap();
        fs::remove_file(folder.path().join("000.bin")).unwrap();
        let error = read(&mut reader, &[0]).unwrap_err();
        assert!(error.kind == Kind::NotFound && error.message.contains("000.bin"), "{error}");
    }

    #[test]
    fn a_sample_beyond_the_last_is_refused() {
        let (_folder, spec) = dataset(&[5]);
        let mut reader = Reader::new(&spec).unwrap();
        assert_eq!(read(&mut reader, &[5]).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn metadata_alone_reads_where_the_files_are_and_says_so_where_not() {
        let (_folder, spec) = dataset(&[5]);
        let bare = DatasetSpec { files: vec![], ..spec.clone() };
        assert_eq!(read(&mut Reader::new(&bare).unwrap(), &[4]).unwrap(), [4]);
        let elsewhere = DatasetSpec { path: "/nowhere".into(), ..bare.clone() };
        assert_eq!(Reader::new(&elsewhere).unwrap_err().kind, Kind::NotFound);
        let foreign = DatasetSpec { format: Format::parse("parquet", "", 0).unwrap(), ..bare };
        assert_eq!(Reader::new(&foreign).unwrap_err().kind, Kind::Invalid);
    }
}

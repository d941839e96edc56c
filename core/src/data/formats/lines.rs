//! A sample a line: JSON Lines. A line is handed over as it stands; lines of white space alone are no samples.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::{Extent, Held};
use crate::data::format::Format;
use crate::error::{Doing, Error, Result};

/// Read at once.
const PIECE: usize = 1 << 20;

pub fn scan(path: &Path, file: &File) -> Result<Held> {
    let mut samples = 0;
    walk(path, file, |_| samples += 1)?;
    Ok(Held { samples, format: Format::Jsonl })
}

/// Where each line lies, without its end.
pub fn index(path: &Path, file: &File) -> Result<Vec<Extent>> {
    let mut lines = Vec::new();
    walk(path, file, |line| lines.push(line))?;
    Ok(lines)
}

fn walk(path: &Path, file: &File, mut found: impl FnMut(Extent)) -> Result<()> {
    let doing = || format!("reading {}", path.display());
    let mut file = BufReader::with_capacity(PIECE, file);
    let mut line = Line::default();
    loop {
        let piece = file.fill_buf().doing(doing)?;
        if piece.is_empty() {
            break;
        }
        let mut begin = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            line.take(&piece[begin..end]);
            line.end(path, &mut found)?;
            begin = end + 1;
        }
        line.take(&piece[begin..]);
        let taken = piece.len();
        file.consume(taken);
    }
    // The last line may lack its end.
    line.end(path, &mut found)
}

/// The line that is being read.
#[derive(Default)]
struct Line {
    offset: u64,
    bytes: u64,
    has_text: bool,
}

impl Line {
    fn take(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.has_text = self.has_text || !piece.trim_ascii().is_empty();
    }

    fn end(&mut self, path: &Path, found: &mut impl FnMut(Extent)) -> Result<()> {
        if self.has_text {
            let bytes = u32::try_from(self.bytes).map_err(|_| {
                Error::invalid(format!("reading {}: a line of {} bytes", path.display(), self.bytes))
                    .hint("a sample has less than 4 GiB")
            })?;
            found(Extent { offset: self.offset, bytes });
        }
        *self = Line { offset: self.offset + self.bytes + 1, ..Line::default() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    proptest! {
        #[test]
        fn every_line_with_text_is_found_once(text in "[a\\n\\r ]{0,60}", padding in 0usize..3) {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("a.jsonl");
            // Lines that lie over the border between two pieces, too.
            let text = match padding {
                0 => text,
                more => "x".repeat(PIECE - more) + &text,
            };
            std::fs::write(&path, &text).unwrap();
            let expected: Vec<&str> = text.split('\n').filter(|line| !line.trim().is_empty()).collect();
            let found = index(&path, &File::open(&path).unwrap()).unwrap();
            let found: Vec<&str> = found
                .iter()
                .map(|line| &text[line.offset as usize..][..line.bytes as usize])
                .collect();
            prop_assert_eq!(found, expected.clone());
            prop_assert_eq!(scan(&path, &File::open(&path).unwrap()).unwrap().samples, expected.len() as u64);
        }
    }
}

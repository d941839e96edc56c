//! The ranks' output: shown line by line with the rank in front, kept as it came in `rank-<rank>.<attempt>.log`.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use crate::error::{Doing, Result};

/// Longest piece of a line that is held back until its end comes: a progress bar never sends one.
const LONGEST_LINE: usize = 64 * 1024;

/// The log file of one rank in one attempt; its two streams share it. Without a folder nothing is kept.
#[derive(Clone)]
pub struct Log(Option<Arc<Mutex<std::fs::File>>>);

impl Log {
    pub fn open(folder: Option<&Path>, rank: u32, attempt: u32) -> Result<Log> {
        let Some(folder) = folder else { return Ok(Log(None)) };
        let path = folder.join(format!("rank-{rank}.{attempt}.log"));
        let file = std::fs::File::create(&path).doing(|| format!("making the log {}", path.display()))?;
        Ok(Log(Some(Arc::new(Mutex::new(file)))))
    }

    fn write(&self, bytes: &[u8]) -> std::io::Result<()> {
        match &self.0 {
            Some(file) => std::io::Write::write_all(&mut *file.lock(), bytes),
            None => Ok(()),
        }
    }
}

/// Copies a stream until its end. A log or a terminal that can't be written is said once; the rank goes on.
pub async fn forward(
    stream: Option<impl AsyncRead + Unpin>,
    mut shown: impl AsyncWrite + Unpin,
    rank: u32,
    log: Log,
) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    let mut complained = false;
    while let Ok(true) = next_line(&mut reader, &mut line).await {
        let kept = log.write(&line);
        let prefixed = [format!("[rank {rank}] ").as_bytes(), &line].concat();
        let displayed = async {
            shown.write_all(&prefixed).await?;
            shown.flush().await
        };
        if let Err(error) = kept.and(displayed.await)
            && !complained
        {
            complained = true;
            tracing::warn!("writing the output of rank {rank}: {error}");
        }
        line.clear();
    }
}

/// Reads up to the next line's end, or `LONGEST_LINE` bytes of it; what lacks an end gets one. False at the end.
async fn next_line(reader: &mut (impl AsyncBufReadExt + Unpin), line: &mut Vec<u8>) -> std::io::Result<bool> {
    while line.len() < LONGEST_LINE {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            break;
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(available.len(), |at| at + 1);
        line.extend_from_slice(&available[..taken]);
        reader.consume(taken);
        if end.is_some() {
            return Ok(true);
        }
    }
    if line.is_empty() {
        return Ok(false);
    }
    line.push(b'\n');
    Ok(true)
}

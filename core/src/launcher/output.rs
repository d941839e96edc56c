//! The ranks' output: shown line by line with the rank in front, kept as it came in `rank-<rank>.<attempt>.log`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::time::{Instant, timeout_at};

use crate::error::{Doing, Result};

/// Longest piece of a line that is held back until its end comes.
const LONGEST_PIECE: usize = 64 * 1024;
/// How long the beginning of a line is held back: a progress bar or a question never sends its end.
const PATIENCE: Duration = Duration::from_millis(200);

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

/// A terminal or pipe that several ranks write to. A newline is added only where one rank's unended line would run into
/// another rank's, or into the end.
pub struct Screen<W>(Arc<tokio::sync::Mutex<Shown<W>>>);

struct Shown<W> {
    to: W,
    /// Whose line has not ended yet.
    open: Option<u32>,
    /// Who went back to its line's beginning last: a newline from it belongs to that.
    returned: Option<u32>,
}

impl<W> Clone for Screen<W> {
    fn clone(&self) -> Screen<W> {
        Screen(self.0.clone())
    }
}

impl<W: AsyncWrite + Unpin> Screen<W> {
    pub fn new(to: W) -> Screen<W> {
        Screen(Arc::new(tokio::sync::Mutex::new(Shown { to, open: None, returned: None })))
    }

    async fn show(&self, rank: u32, bytes: &[u8]) -> std::io::Result<()> {
        let mut shown = self.0.lock().await;
        let text = shown.prefixed(rank, bytes);
        shown.to.write_all(&text).await?;
        shown.to.flush().await
    }

    /// The rank says no more.
    async fn end(&self, rank: u32) -> std::io::Result<()> {
        let mut shown = self.0.lock().await;
        if shown.open != Some(rank) {
            return Ok(());
        }
        shown.open = None;
        shown.to.write_all(b"\n").await?;
        shown.to.flush().await
    }
}

impl<W> Shown<W> {
    fn prefixed(&mut self, rank: u32, bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::with_capacity(bytes.len() + 16);
        if self.open.is_some_and(|other| other != rank) {
            text.push(b'\n');
            self.open = None;
        }
        for piece in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let goes_on = self.open == Some(rank) || (piece == b"\n" && self.returned == Some(rank));
            if !goes_on {
                text.extend_from_slice(format!("[rank {rank}] ").as_bytes());
            }
            text.extend_from_slice(piece);
            (self.open, self.returned) = match piece.last() {
                Some(b'\n') => (None, None),
                Some(b'\r') => (None, Some(rank)),
                _ => (Some(rank), None),
            };
        }
        text
    }
}

/// Copies a stream until its end. A log or a terminal that can't be written is said once; the rank goes on.
pub async fn forward<W: AsyncWrite + Unpin>(
    stream: Option<impl AsyncRead + Unpin>,
    screen: Screen<W>,
    rank: u32,
    log: Log,
) {
    let Some(stream) = stream else { return };
    let mut reader = BufReader::new(stream);
    let mut piece = Vec::new();
    let mut complained = false;
    let mut complain = |outcome: std::io::Result<()>| {
        if let Err(error) = outcome
            && !complained
        {
            complained = true;
            tracing::warn!("writing the output of rank {rank}: {error}");
        }
    };
    while let Ok(true) = next_piece(&mut reader, &mut piece).await {
        let kept = log.write(&piece);
        let shown = screen.show(rank, &piece).await;
        complain(kept.and(shown));
        piece.clear();
    }
    complain(screen.end(rank).await);
}

/// Reads whole lines, or what ends in a carriage return, or as much of a line as has come within `PATIENCE` or fills
/// `LONGEST_PIECE`. False at the end.
async fn next_piece(
    reader: &mut (impl AsyncBufReadExt + Unpin),
    piece: &mut Vec<u8>,
) -> std::io::Result<bool> {
    let mut until = None;
    loop {
        let read = match until {
            None => reader.fill_buf().await?,
            Some(until) => match timeout_at(until, reader.fill_buf()).await {
                Ok(read) => read?,
                Err(_) => return Ok(true),
            },
        };
        if read.is_empty() {
            return Ok(!piece.is_empty());
        }
        let end = read.iter().rposition(|byte| matches!(byte, b'\n' | b'\r'));
        let taken = end.map_or(read.len(), |at| at + 1);
        piece.extend_from_slice(&read[..taken]);
        reader.consume(taken);
        let until = *until.get_or_insert_with(|| Instant::now() + PATIENCE);
        if end.is_some() || piece.len() >= LONGEST_PIECE || Instant::now() >= until {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all_of(said: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(Some(folder.path()), 3, 0).unwrap();
        let screen = Screen::new(Vec::new());
        forward(Some(said), screen.clone(), 3, log).await;
        let shown = screen.0.lock().await.to.clone();
        (shown, std::fs::read(folder.path().join("rank-3.0.log")).unwrap())
    }

    #[tokio::test]
    async fn log_is_what_the_rank_wrote_to_the_byte() {
        let said = [&[b'x'; 10_000_000][..], b"\nbar\rbar\r\nno end"].concat();
        let (shown, kept) = all_of(&said).await;
        assert!(kept == said);
        let expected =
            [b"[rank 3] ", &said[..10_000_001], b"[rank 3] bar\r[rank 3] bar\r\n[rank 3] no end\n"];
        assert!(shown == expected.concat());
    }

    #[tokio::test]
    async fn what_waits_for_its_lines_end_is_shown_meanwhile() {
        for said in ["10%\r", "continue? "] {
            let (mut rank, stream) = tokio::io::duplex(64);
            let screen = Screen::new(Vec::new());
            let task = tokio::spawn(forward(Some(stream), screen.clone(), 0, Log(None)));
            rank.write_all(said.as_bytes()).await.unwrap();
            while screen.0.lock().await.to != format!("[rank 0] {said}").into_bytes() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(rank);
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn unended_lines_of_two_ranks_stay_apart() {
        let screen = Screen::new(Vec::new());
        for (rank, said) in [(0, "loading"), (1, "here\n"), (0, " done\n")] {
            screen.show(rank, said.as_bytes()).await.unwrap();
        }
        let shown = screen.0.lock().await.to.clone();
        assert_eq!(String::from_utf8(shown).unwrap(), "[rank 0] loading\n[rank 1] here\n[rank 0]  done\n");
    }
}

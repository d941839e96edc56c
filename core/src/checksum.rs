//! CRC32C (Castagnoli, RFC 3720 appendix B.4), which guards bytes in arenas and packs, and what this process has spent on
//! it: checking is always on, so what it costs is told (`strata_checksum_seconds_total`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crc_fast::{CrcAlgorithm, checksum, checksum_combine};
use rustix::time::{ClockId, clock_gettime};

/// Reading the thread's clock takes 0.3 µs, as long as summing 8 KiB: shorter bytes are counted without their time.
const TIMED_FROM: usize = 64 << 10;

static BYTES: AtomicU64 = AtomicU64::new(0);
static NANOS: AtomicU64 = AtomicU64::new(0);

/// All that this process has summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    pub bytes: u64,
    /// Of the processor, by all threads together; of chunks, which are nearly all of it.
    pub cpu: Duration,
}

pub fn crc32c(bytes: &[u8]) -> u32 {
    BYTES.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    if bytes.len() < TIMED_FROM {
        return sum(bytes);
    }
    let before = thread_cpu();
    let sum = sum(bytes);
    let took = thread_cpu().saturating_sub(before);
    NANOS.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    sum
}

/// Of bytes that lie in pieces.
pub fn crc32c_of(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> u32 {
    let sums = pieces.into_iter().map(|piece| (crc32c(piece.as_ref()), piece.as_ref().len() as u64));
    let append = |before, (sum, length)| {
        checksum_combine(CrcAlgorithm::Crc32Iscsi, u64::from(before), u64::from(sum), length) as u32
    };
    sums.fold(0, append)
}

pub fn spent() -> Spent {
    let cpu = Duration::from_nanos(NANOS.load(Ordering::Relaxed));
    Spent { bytes: BYTES.load(Ordering::Relaxed), cpu }
}

fn sum(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Not the wall's: a thread that waits for a core spends nothing.
fn thread_cpu() -> Duration {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(used.tv_sec as u64, used.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_castagnoli_sum_and_what_it_takes_is_counted() {
        let before = spent();
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_of([&b"123"[..], b"", b"456789"]), 0xe306_9283);
        assert_eq!(crc32c_of([b""; 0]), crc32c(b""));
        crc32c(&vec![7; 16 << 20]);
        let after = spent();
        // Other tests of this process sum too.
        assert!(after.bytes - before.bytes >= 18 + (16 << 20));
        assert!(after.cpu > before.cpu);
    }
}

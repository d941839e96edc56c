//! CRC32C (Castagnoli, RFC 3720 appendix B.4), which guards bytes in arenas and packs.

use crc_fast::{CrcAlgorithm, checksum};

pub fn crc32c(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_castagnoli_sum() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}

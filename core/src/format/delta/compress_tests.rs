use super::super::estimate::of_planes;
use super::*;
use crate::error::Kind;

const WIDTHS: [Width; 4] = [Width::One, Width::Two, Width::Four, Width::Eight];

fn hashed(number: u32) -> u32 {
    let mixed = (number ^ (number >> 15)).wrapping_mul(0x2c1b_3c6d);
    (mixed ^ (mixed >> 12)).wrapping_mul(0x297a_2d39) ^ (mixed >> 15)
}

fn skewed(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (hashed(n) >> 28) as u8).collect()
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32).map(|n| (hashed(n) >> 21) as u8).collect()
}

/// For the frames of so many bytes of planes, whatever they hold.
fn room(bytes: usize) -> usize {
    bytes + bytes / 64 + 16 * 1024
}

fn sampled(width: Width, planes: &[u8]) -> Estimate {
    of_planes(width, std::iter::once(planes))
}

fn framed(width: Width, planes: &[u8]) -> Vec<u8> {
    let mut target = vec![0; room(planes.len())];
    let length = compress(width, planes, &sampled(width, planes), &mut target).unwrap().unwrap();
    target.truncate(length);
    target
}

fn joined(width: Width, planes: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; planes.len()];
    planes::join(width, planes, &mut bytes);
    bytes
}

#[test]
fn what_is_skewed_gets_smaller_and_comes_back_and_does_not_fit_into_less() {
    for width in WIDTHS {
        for bytes in [1usize << 20, (1 << 20) + 3, 40, 3] {
            let planes = skewed(bytes);
            let frames = framed(width, &planes);
            assert!(bytes < 1 << 20 || frames.len() < bytes * 6 / 10, "{} of {bytes}", frames.len());
            let mut found = vec![1; bytes];
            decompress(width, &frames, Onto::Nothing, &mut found).unwrap();
            assert!(found == joined(width, &planes));
            let mut small = vec![0; frames.len() - 1];
            assert_eq!(compress(width, &planes, &sampled(width, &planes), &mut small).unwrap(), None);
        }
    }
}

#[test]
fn each_plane_has_the_coder_that_its_sample_asks_for_and_whatever_it_holds_comes_back() {
    let plane = FRAME + 100;
    let mostly_zero: Vec<u8> = (0..plane as u32).map(|n| u8::from(hashed(n).is_multiple_of(100))).collect();
    let planes = [noise(plane), skewed(plane), mostly_zero, vec![0; plane]].concat();
    let estimate = sampled(Width::Four, &planes);
    assert_eq!(estimate.coders[..4], [Coder::Noise, Coder::Skewed, Coder::Runs, Coder::Runs]);
    assert!((estimate.part - (8.0 + 4.0 + 0.08) / 32.0).abs() < 0.01, "{}", estimate.part);
    // A sample may be wrong about the rest: that costs bytes, and nothing else.
    for other in [&planes, &noise(planes.len()), &vec![7; planes.len()]] {
        let mut frames = vec![0; room(other.len())];
        let length = compress(Width::Four, other, &estimate, &mut frames).unwrap().unwrap();
        let mut found = vec![9; other.len()];
        decompress(Width::Four, &frames[..length], Onto::Nothing, &mut found).unwrap();
        assert!(found == joined(Width::Four, other));
    }
}

#[test]
fn a_row_of_zeros_in_a_plane_of_noise_is_not_stored() {
    let mut planes = noise(8 * FRAME);
    planes[FRAME + 5000..2 * FRAME].fill(0);
    assert_eq!(sampled(Width::One, &planes).coders[0], Coder::Noise);
    let frames = framed(Width::One, &planes);
    assert!(frames.len() < planes.len() - FRAME + 6000, "{} of {}", frames.len(), planes.len());
}

#[test]
fn a_frame_for_a_whole_plane_as_older_versions_wrote_comes_back() {
    for width in WIDTHS {
        let planes = skewed(1 << 20);
        let plane = planes.len() / width.bytes();
        let frames: Vec<u8> =
            planes.chunks(plane).flat_map(|plane| zstd::bulk::compress(plane, 1).unwrap()).collect();
        let base = noise(planes.len());
        let mut found = base.clone();
        decompress(width, &frames, Onto::Base, &mut found).unwrap();
        let (mut wanted, mut new) = (base.clone(), base);
        planes::join_difference(width, &planes, &mut wanted);
        assert!(found == wanted);
        decompress(width, &framed(width, &planes), Onto::Base, &mut new).unwrap();
        assert!(new == wanted);
    }
}

#[test]
fn nonsense_is_corrupt_and_never_a_panic() {
    for width in WIDTHS {
        let planes = skewed(300_000);
        let frames = framed(width, &planes);
        let cut = &frames[..frames.len() - 1];
        let twice = [&frames[..], &frames[..]].concat();
        let cases = [
            (cut, 300_000),
            (&frames[..], 299_992),
            (&frames, 300_008),
            (&[][..], 300_000),
            (&twice, 300_000),
        ];
        for (frames, wanted) in cases {
            let error = decompress(width, frames, Onto::Nothing, &mut vec![0; wanted]).unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{wanted}");
        }
        for at in (0..frames.len()).step_by(997) {
            let mut flipped = frames.clone();
            flipped[at] ^= 0x55;
            let mut found = vec![0; planes.len()];
            if let Err(error) = decompress(width, &flipped, Onto::Nothing, &mut found) {
                assert_eq!(error.kind, Kind::Corrupt);
            }
        }
        let mut found = vec![0; planes.len()];
        decompress(width, &frames, Onto::Nothing, &mut found).unwrap();
        assert!(found == joined(width, &planes), "and the next one is none the worse");
    }
}

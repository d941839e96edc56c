//! Ranged reads of a large object: several requests at once, each body straight to its place as it comes.

use std::collections::VecDeque;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta};

use super::Large;
use super::runtime::wait;
use crate::error::{Error, Result};
use crate::storage::{Part, Reader};

pub struct BucketReader {
    large: Large,
    bytes: u64,
    /// As it was found.
    about: ObjectMeta,
    is_pinned: bool,
}

/// Requests that one call makes at once, where it wants so much.
const AT_ONCE: u64 = 8;

impl Reader for BucketReader {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    /// By the ETag, which every request then asks for; a store without them has the time of the last change.
    fn pin(&mut self) -> Option<String> {
        self.is_pinned = true;
        let ObjectMeta { e_tag, version, last_modified, .. } = &self.about;
        let told = e_tag.clone().or_else(|| version.clone());
        Some(told.unwrap_or_else(|| last_modified.to_rfc3339()))
    }

    fn read_at(&self, offset: u64, target: &mut [u8]) -> Result<()> {
        self.read_together(&mut [Part { offset, target }])
    }

    fn together(&self) -> u64 {
        AT_ONCE * self.large.part_bytes
    }

    fn read_together(&self, parts: &mut [Part<'_>]) -> Result<()> {
        if let Some(beyond) = parts.iter().find(|part| end(part) > self.bytes) {
            return Err(self.ends_early(&(beyond.offset..end(beyond)), self.bytes));
        }
        let bodies = bodies(parts, self.large.part_bytes);
        wait(async {
            let bring = |body| self.bring(body);
            let brought = futures::stream::iter(bodies).map(bring).buffer_unordered(AT_ONCE as usize);
            brought.try_collect::<()>().await
        })?
    }
}

impl BucketReader {
    pub fn new(large: Large, about: ObjectMeta) -> BucketReader {
        BucketReader { large, bytes: about.size, about, is_pinned: false }
    }

    async fn bring(&self, mut body: Body<'_>) -> Result<()> {
        let large = &self.large;
        let pass = large.lane.enter().await;
        let failed = |error| large.failed("reading", &error);
        let range = Some(GetRange::Bounded(body.range.clone()));
        let if_match = self.about.e_tag.clone().filter(|_| self.is_pinned);
        let options = GetOptions { range, if_match, ..GetOptions::default() };
        let answer = large.objects.get_opts(&large.location, options).await.map_err(failed)?;
        let mut stream = answer.into_stream();
        let mut at = body.range.start;
        while let Some(bytes) = stream.try_next().await.map_err(failed)? {
            body.fill(at, &bytes);
            at += bytes.len() as u64;
        }
        if at != body.range.end {
            return Err(self.ends_early(&body.range, at));
        }
        pass.carried(at - body.range.start);
        Ok(())
    }

    fn ends_early(&self, range: &Range<u64>, end: u64) -> Error {
        let (wanted, start) = (range.end - range.start, range.start);
        Error::corrupt(format!("reading {wanted} bytes at {start} of {}: it ends at {end}", self.large.name))
    }
}

/// What one request brings.
struct Body<'a> {
    range: Range<u64>,
    /// By ascending offset, all within the range.
    parts: VecDeque<Part<'a>>,
}

fn end(part: &Part<'_>) -> u64 {
    part.offset.saturating_add(part.target.len() as u64)
}

impl Body<'_> {
    /// `bytes` lie at `at` of the object, behind those of the last call; what is between the parts goes nowhere.
    fn fill(&mut self, at: u64, bytes: &[u8]) {
        let (start, stop) = (at, at + bytes.len() as u64);
        while self.parts.front().is_some_and(|part| end(part) <= start) {
            self.parts.pop_front();
        }
        for part in self.parts.iter_mut().take_while(|part| part.offset < stop) {
            let (from, to) = (part.offset.max(start), end(part).min(stop));
            let target = &mut part.target[(from - part.offset) as usize..(to - part.offset) as usize];
            target.copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
        }
    }
}

/// Cuts what is wanted into requests of about equal length, none longer than `most`.
fn bodies<'a>(parts: &'a mut [Part<'_>], most: u64) -> Vec<Body<'a>> {
    let wanted = parts.iter().map(end).max().unwrap_or(0) - parts.first().map_or(0, |part| part.offset);
    let most = wanted.div_ceil(wanted.div_ceil(most).max(1)).max(1);
    let mut bodies: Vec<Body<'a>> = Vec::new();
    for part in parts {
        let (mut offset, mut target) = (part.offset, &mut *part.target);
        while !target.is_empty() {
            let start = match bodies.last() {
                Some(last) if offset < last.range.start + most => last.range.start,
                _ => {
                    bodies.push(Body { range: offset..offset, parts: VecDeque::new() });
                    offset
                }
            };
            let (now, later) = target.split_at_mut(target.len().min((start + most - offset) as usize));
            let body = bodies.last_mut().expect("there is one by now");
            body.range.end = offset + now.len() as u64;
            offset = body.range.end;
            body.parts.push_back(Part { offset: offset - now.len() as u64, target: now });
            target = later;
        }
    }
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Offset and length of each part.
    type Places = Vec<(u64, usize)>;

    fn cut(parts: &[(u64, usize)], most: u64) -> Vec<(Range<u64>, Places)> {
        let mut memory: Vec<Vec<u8>> = parts.iter().map(|&(_, length)| vec![0; length]).collect();
        let mut parts: Vec<Part<'_>> =
            parts.iter().zip(&mut memory).map(|(&(offset, _), target)| Part { offset, target }).collect();
        let shape = |body: Body<'_>| {
            (body.range, body.parts.iter().map(|part| (part.offset, part.target.len())).collect())
        };
        bodies(&mut parts, most).into_iter().map(shape).collect()
    }

    #[test]
    fn requests_are_about_as_long_as_each_other_and_bring_every_part() {
        assert_eq!(cut(&[(0, 0)], 10), []);
        assert_eq!(cut(&[(5, 10)], 10), [(5..15, vec![(5, 10)])]);
        assert_eq!(cut(&[(0, 3), (8, 4)], 20), [(0..12, vec![(0, 3), (8, 4)])]);
        assert_eq!(cut(&[(0, 11)], 10), [(0..6, vec![(0, 6)]), (6..11, vec![(6, 5)])]);
        assert_eq!(
            cut(&[(0, 5), (8, 8)], 10),
            [(0..5, vec![(0, 5)]), (8..16, vec![(8, 8)])],
            "nothing is brought that nobody wants"
        );
    }

    #[test]
    fn a_body_goes_to_its_parts_however_it_comes() {
        let whole: Vec<u8> = (0..100).collect();
        for step in [1, 3, 7, 100] {
            let (mut first, mut second) = ([0; 20], [0; 37]);
            let parts = [Part { offset: 10, target: &mut first }, Part { offset: 40, target: &mut second }];
            let mut body = Body { range: 10..77, parts: parts.into() };
            for start in (10..77).step_by(step) {
                body.fill(start as u64, &whole[start..77.min(start + step)]);
            }
            assert_eq!((&first[..], &second[..]), (&whole[10..30], &whole[40..77]));
        }
    }
}

//! The parts of two files that need comparing.

use std::{iter::Peekable, ops::Range};

use super::{SideResult, in_a, in_b};
use crate::{
    Result,
    source::{Extents, SourceFile},
};

/// The parts in which at least one of two files of one size holds data, in order. All others are
/// zeros in both.
pub(super) struct DataOfEither<'a> {
    a: Peekable<Extents<'a>>,
    b: Peekable<Extents<'a>>,
    done: u64,
}

impl<'a> DataOfEither<'a> {
    pub(super) fn new(a: &'a SourceFile, b: &'a SourceFile, size: u64) -> Self {
        Self { a: a.extents(0..size).peekable(), b: b.extents(0..size).peekable(), done: 0 }
    }
}

impl Iterator for DataOfEither<'_> {
    type Item = SideResult<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        // Nothing left comes last, an error at once.
        let start = |extent: Option<&Result<Range<u64>>>| {
            extent.map_or(u64::MAX, |extent| extent.as_ref().map_or(0, |range| range.start))
        };
        loop {
            let extent = if start(self.a.peek()) <= start(self.b.peek()) && self.a.peek().is_some()
            {
                self.a.next().map(|extent| extent.map_err(in_a))
            } else {
                self.b.next().map(|extent| extent.map_err(in_b))
            };
            match extent? {
                Err(failure) => return Some(Err(failure)),
                Ok(range) if range.end <= self.done => {}
                Ok(range) => {
                    let part = range.start.max(self.done)..range.end;
                    self.done = range.end;
                    return Some(Ok(part));
                }
            }
        }
    }
}

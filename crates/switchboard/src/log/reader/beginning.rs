//! Where a reader begins in a lane: at a message, at a time, with the oldest, at the end.

use std::sync::Arc;

use super::{LaneReader, Step, segment};
use crate::error::Error;

impl LaneReader {
    /// Passes over messages before this one.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        if sequence <= self.expected {
            return;
        }
        let far = sequence - self.expected > 100_000;
        self.expected = sequence;
        if far {
            // Whole segments are passed over by their headers.
            self.open = None;
            self.batch.clear();
            self.searched = None;
        }
    }

    /// Begins with the oldest message there is, wherever the numbers begin.
    pub(crate) fn begin_at_oldest(&mut self) -> Result<(), Error> {
        let oldest = self.folder.segments()?.into_iter().find(|(lane, _)| *lane == self.lane);
        self.from_segment = oldest.map(|(_, number)| number);
        Ok(())
    }

    /// Begins with the oldest segment that may have a message of this time or a later one, ns since 1970. Segments
    /// before it are not read.
    pub(crate) fn begin_at_time(&mut self, since_ns: u64) -> Result<(), Error> {
        let segments = self.folder.segments()?.into_iter().filter(|(lane, _)| *lane == self.lane);
        let headers = segments.map(|(_, number)| (number, self.peek(number)));
        self.from_segment = segment::first_since(headers, since_ns);
        Ok(())
    }

    /// Passes over everything there is.
    pub(crate) fn go_to_end(&mut self) -> Result<(), Error> {
        let newest = self.folder.segments()?.into_iter().rfind(|(lane, _)| *lane == self.lane);
        self.from_segment = newest.map(|(_, number)| number);
        let mut bytes = Vec::new();
        while self.next(&mut bytes)? != Step::Nothing {
            bytes.clear();
        }
        Ok(())
    }

    /// Opens the segment in which the next message is, or would be.
    pub(super) fn open_first(&mut self) -> Result<Option<Step>, Error> {
        let generation = self.folder.generation();
        if self.searched == Some(generation) {
            return Ok(None);
        }
        self.searched = Some(generation);
        let numbers: Vec<u64> = self
            .folder
            .segments()?
            .into_iter()
            .filter_map(|(lane, number)| (lane == self.lane).then_some(number))
            .collect();
        let Some(oldest) = numbers.first() else { return Ok(None) };
        if let Some(number) = self.from_segment.take() {
            let problem = self.open_segment(number)?;
            let first = self.header().map(|header| header.first_sequence);
            self.expected = match first {
                Some(first) => first,
                None => self.first_in_segment(&numbers)?,
            };
            self.reached = self.reached.max(self.expected);
            return Ok(problem);
        }
        // The last one that begins at or before it; a header that does not hold cannot tell.
        for number in numbers.iter().rev() {
            let begins = self.peek(*number).map(|header| header.first_sequence);
            if begins.is_some_and(|first| first <= self.expected) {
                return self.open_segment(*number);
            }
        }
        self.open_segment(*oldest)
    }

    /// The number of the first message that holds in the open segment; where there is none, what
    /// the segments before it lead to. What follows says nothing of it: there a sender began who knew no
    /// more than this.
    fn first_in_segment(&mut self, numbers: &[u64]) -> Result<u64, Error> {
        let Some(open) = &self.open else { return Ok(1) };
        let number = open.number;
        let part = self.written_from(open, open.offset);
        if let Some((_, header)) = open.next_that_holds(self.lane, part, 0) {
            return Ok(header.sequence);
        }
        // From the last one before it that says where it begins; from the oldest, where none does.
        let before: Vec<u64> = numbers.iter().copied().filter(|of| *of < number).collect();
        let says = before.iter().rev().find(|of| self.peek(**of).is_some());
        let Some(from) = says.or(before.first()) else { return Ok(1) };
        let mut reader = Self::at_segment(Arc::clone(&self.folder), self.lane, *from);
        let mut bytes = Vec::new();
        while reader.next(&mut bytes)? != Step::Nothing {
            bytes.clear();
            if reader.segment().is_none_or(|of| of >= number) {
                break;
            }
        }
        Ok(reader.expected)
    }
}

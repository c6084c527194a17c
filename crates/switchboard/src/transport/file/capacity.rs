//! How full the log of a queue is (`?capacity=`): what a sender asks before it makes a segment.
//!
//! A lane whose messages are all settled counts for nothing, although its newest segment stays: the next sender
//! goes on in it. Otherwise as many senders as the capacity has segments would leave an empty queue that is full.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::CAPACITY_BYTES;
use super::shared_table::{prune_settled, read_unlocked};
use crate::address::Query;
use crate::error::Error;
use crate::log::folder::Folder;
use crate::log::reader::{LaneReader, Step};

/// What a queue holds at most, and what a sender knows of it.
#[derive(Debug)]
pub(super) struct Capacity {
    folder: Arc<Folder>,
    most_bytes: u64,
    /// What a new segment takes.
    segment_bytes: u64,
    /// The length of each segment there is. It is fixed from when the segment has its name.
    lengths: BTreeMap<(u32, u64), u64>,
    /// How far lanes were looked at, while there is no room.
    lanes: BTreeMap<u32, Looked>,
}

/// How far a lane was looked at.
#[derive(Debug)]
struct Looked {
    reader: LaneReader,
    /// The number after the last message that was seen.
    seen: u64,
}

impl Capacity {
    pub(super) fn new(folder: &Arc<Folder>, query: &Query, segment_bytes: u64) -> Self {
        let asked = query.capacity_bytes.map_or(CAPACITY_BYTES, u64::from);
        Self {
            folder: Arc::clone(folder),
            most_bytes: asked.max(segment_bytes.saturating_mul(2)),
            segment_bytes,
            lengths: BTreeMap::new(),
            lanes: BTreeMap::new(),
        }
    }

    /// Whether a segment more fits, with all that are there.
    pub(super) fn has_free_room(&mut self) -> Result<bool, Error> {
        let segments = self.folder.segments()?;
        let known = std::mem::take(&mut self.lengths);
        for (lane, number) in segments {
            let length = known.get(&(lane, number)).copied();
            // One that was removed meanwhile takes no room.
            let length = length.or_else(|| self.folder.segment_bytes(lane, number)).unwrap_or(0);
            self.lengths.insert((lane, number), length);
        }
        Ok(self.fits(self.lengths.values().copied()))
    }

    /// Whether a segment more fits once what is settled is removed, or may be. A sender says which lane is its
    /// own, and the number of its next message.
    pub(super) fn has_room(&mut self, own: Option<(u32, u64)>) -> Result<bool, Error> {
        let table = read_unlocked(&self.folder)?;
        prune_settled(&self.folder, &table)?;
        if self.has_free_room()? {
            self.lanes.clear();
            return Ok(true);
        }
        let mut lanes: BTreeMap<u32, u64> = BTreeMap::new();
        for ((lane, _), length) in &self.lengths {
            let bytes = lanes.entry(*lane).or_default();
            *bytes = bytes.saturating_add(*length);
        }
        self.lanes.retain(|lane, _| lanes.contains_key(lane));
        let mut used = Vec::new();
        for (lane, bytes) in lanes {
            let before = table.settled_before(lane);
            let is_settled = match own {
                Some((own, next)) if own == lane => before >= next,
                _ => self.is_settled(lane, before)?,
            };
            if !is_settled {
                used.push(bytes);
            }
        }
        let fits = self.fits(used.into_iter());
        if fits {
            // They keep files mapped.
            self.lanes.clear();
        }
        Ok(fits)
    }

    fn fits(&self, used: impl Iterator<Item = u64>) -> bool {
        used.fold(self.segment_bytes, u64::saturating_add) <= self.most_bytes
    }

    /// Whether a lane has no message from this one on, before which all are settled.
    fn is_settled(&mut self, lane: u32, before: u64) -> Result<bool, Error> {
        let looked = self.lanes.entry(lane).or_insert_with(|| {
            let reader = LaneReader::at_message(Arc::clone(&self.folder), lane, before);
            Looked { reader, seen: 0 }
        });
        let mut bytes = Vec::new();
        while looked.seen <= before {
            looked.reader.skip_to(before);
            match looked.reader.next(&mut bytes)? {
                Step::Message { sequence, .. } => looked.seen = sequence.saturating_add(1),
                // What is damaged is no message that anybody settles.
                Step::Damage { .. } => {}
                Step::Nothing => return Ok(true),
            }
            bytes.clear();
        }
        Ok(false)
    }
}

//! How a sender takes a lane: it finds its last message, and what a predecessor left unfinished or somebody removed.

use std::sync::Arc;

use switchboard_kernel::folder_file::Access;

use super::new_segment::map;
use super::{Batch, Durability, End, Folder, LaneWriter, Manner, segment};
use crate::error::{Error, ErrorKind};
use crate::log::MOST_NUMBER;
use crate::log::reader::{LaneReader, Step};

/// What is noted of a lane's end counts up to this: what is beyond is a lie, and there are numbers left
/// after it.
const MOST_NOTED: u64 = MOST_NUMBER / 4;
/// No sender begins after this: it never comes to the end of the numbers.
const MOST_BEGUN: u64 = MOST_NUMBER / 2;

impl LaneWriter {
    /// Takes a free lane and goes on after its last message, with no number below what `least` says
    /// of the lane: so far it was read, although segments may have been removed since. Where it needs a
    /// segment it asks whether there may be one; if not, it begins with one that holds no message.
    pub(crate) fn open(
        folder: Arc<Folder>,
        manner: Manner,
        least: impl FnOnce(u32) -> Result<u64, Error>,
        has_room: impl FnOnce() -> Result<bool, Error>,
    ) -> Result<Self, Error> {
        let lane = folder.take_lane()?;
        folder.sweep();
        // What is beyond every number is a lie.
        let End { segment: noted_segment, sequence: noted } = folder.noted_end(lane);
        let noted_segment = if noted_segment <= MOST_NOTED { noted_segment } else { 0 };
        let least = [least(lane)?, noted].into_iter().filter(|least| *least <= MOST_NOTED);
        let least = least.fold(1, u64::max);
        // Every segment that was ever made was counted: this number is a new one, also for readers
        // that still have a removed segment.
        folder.begin_count()?;
        let unused = Some(folder.generation()).filter(|made| *made <= MOST_NOTED).unwrap_or(0) + 1;
        let last = folder.segments()?.into_iter().rev().find(|(of, _)| *of == lane);
        let Some((_, number)) = last else {
            // Where there was a segment, or a message, it was removed.
            let removed = noted_segment > 0 || least > 1;
            let recovered = removed.then(|| messages_are_gone(lane, least));
            let place = (lane, unused, least);
            return Self::start(folder, manner, has_room()?, place, recovered);
        };
        // Everything after the last message that holds is looked at, once.
        let mut reader = LaneReader::at_segment(Arc::clone(&folder), lane, number);
        let mut bytes = Vec::new();
        let (mut problem, mut last_ns) = (None, None);
        loop {
            let step = match reader.next(&mut bytes)? {
                Step::Nothing => reader.past_hole().unwrap_or(Step::Nothing),
                step => step,
            };
            match step {
                Step::Message { time_ns, .. } => {
                    last_ns = Some(time_ns);
                    bytes.clear();
                }
                Step::Damage { problem: found, .. } => {
                    problem.get_or_insert(found);
                }
                Step::Nothing => break,
            }
        }
        let mut sequence = reader.expected().max(least);
        if sequence > MOST_BEGUN || number > MOST_BEGUN {
            let problem = format!(
                "lane {lane} has a message {} in a segment {number}, which no sender wrote",
                sequence.saturating_sub(1)
            );
            return Err(Error::new(ErrorKind::Mismatch, &folder.address, problem)
                .hint("remove that segment: it is no log's"));
        }
        let removed = sequence > reader.expected() || noted_segment > number;
        let name = segment::file_name(lane, number);
        let whole = reader
            .header()
            .filter(|header| folder.segment_bytes(lane, number) == Some(header.file_bytes));
        // Where the bell knows the end, damage there is counted.
        let is_counted = reader.expected() > least || noted >= least;
        if reader.may_have_ended_later() || reader.ends_in_damage() && !is_counted {
            // Nobody knows how many are lost with it. One is left out, so that readers look at it, and are
            // told that some are missing.
            sequence += 1;
        }
        match whole {
            Some(header) if problem.is_none() && !removed => {
                let file = folder
                    .open_segment(lane, number, Access::ReadWrite)
                    .map_err(|error| folder.cannot_open(&name, error))?;
                if manner.durability == Durability::Synced {
                    // Who made it may not have asked for that.
                    folder.sync_names()?;
                }
                let mapping = map(&folder, &file, header.file_bytes)?;
                let offset = reader.offset();
                // The one that made it may have died before it told anybody.
                folder.changed();
                Ok(Self {
                    manner,
                    folder,
                    lane,
                    file,
                    mapping,
                    segment: number,
                    file_bytes: header.file_bytes,
                    offset,
                    reserved: offset,
                    sequence,
                    durable: offset,
                    made_ns: header.made_ns,
                    last_ns,
                    ended: None,
                    recovered: None,
                    frame: Vec::new(),
                    batch: Batch::default(),
                    is_stuck: false,
                    syncs: 0,
                    unsynced: None,
                })
            }
            _ => {
                let recovered = problem.unwrap_or_else(|| match removed {
                    true => messages_are_gone(lane, sequence),
                    false => format!("{name} is damaged; a new one was started"),
                });
                let number = unused.max(number + 1);
                let place = (lane, number, sequence);
                Self::start(folder, manner, has_room()?, place, Some(recovered))
            }
        }
    }
}

/// What is said of a lane of which segments were removed.
fn messages_are_gone(lane: u32, sequence: u64) -> String {
    format!(
        "messages of lane {lane} before {sequence} are not there any more; a new segment was started"
    )
}

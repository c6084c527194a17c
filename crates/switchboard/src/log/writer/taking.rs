//! How a sender takes a lane: it finds its last message, and what a predecessor left unfinished or somebody removed.

use std::sync::Arc;

use switchboard_kernel::folder_file::Access;

use super::new_segment::{Next, Opened, map};
use super::{Durability, End, Folder, LaneWriter, Manner, segment};
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
        if manner.durability == Durability::Synced {
            // The names that are there, and that of the log, whoever made them.
            folder.sync_names()?;
        }
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
            let next = Next { lane, segment: unused, sequence: least, newest_ns: Some(0) };
            return Self::start(folder, manner, has_room()?, next, recovered);
        };
        // Everything after the last message that holds is looked at, once.
        let mut reader = LaneReader::at_segment(Arc::clone(&folder), lane, number);
        let Passed { problem, times } = pass(&mut reader)?;
        let newest_ns = newest_ns(&folder, &reader, number, times)?;
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
                let mapping = map(&folder, &file, header.file_bytes)?;
                let (offset, file_bytes) = (reader.offset(), header.file_bytes);
                // The one that made it may have died before it told anybody.
                folder.changed();
                // A clock that was ahead then does not make it younger than its messages.
                let made_ns =
                    times.map_or(header.made_ns, |times| header.made_ns.min(times.oldest));
                // Its name was, with those that were there.
                let is_name_synced = true;
                let (reserved, blocks) = (offset, offset);
                let opened = Opened {
                    file,
                    mapping,
                    file_bytes,
                    offset,
                    reserved,
                    blocks,
                    made_ns,
                    is_name_synced,
                };
                let next = Next { lane, segment: number, sequence, newest_ns };
                let mut writer = Self::in_segment(folder, manner, next, opened);
                writer.last_ns = times.map(|times| times.last);
                Ok(writer)
            }
            _ => {
                let recovered = problem.unwrap_or_else(|| match removed {
                    true => messages_are_gone(lane, sequence),
                    false => format!("{name} is damaged; a new one was started"),
                });
                let next = Next { lane, segment: unused.max(number + 1), sequence, newest_ns };
                Self::start(folder, manner, has_room()?, next, Some(recovered))
            }
        }
    }
}

/// What a reader found on its way to the end.
struct Passed {
    /// The first thing that did not hold.
    problem: Option<String>,
    times: Option<Times>,
}

/// When messages were sent, ns since 1970.
#[derive(Clone, Copy)]
struct Times {
    oldest: u64,
    newest: u64,
    last: u64,
}

/// Passes over everything there is, also behind a hole.
fn pass(reader: &mut LaneReader) -> Result<Passed, Error> {
    let mut passed = Passed { problem: None, times: None };
    let mut bytes = Vec::new();
    loop {
        let step = match reader.next(&mut bytes)? {
            Step::Nothing => reader.past_hole().unwrap_or(Step::Nothing),
            step => step,
        };
        match step {
            Step::Message { time_ns, .. } => {
                bytes.clear();
                let before = passed.times.unwrap_or(Times { oldest: time_ns, newest: 0, last: 0 });
                let (oldest, newest) = (before.oldest.min(time_ns), before.newest.max(time_ns));
                passed.times = Some(Times { oldest, newest, last: time_ns });
            }
            Step::Damage { problem, .. } => {
                passed.problem.get_or_insert(problem);
            }
            Step::Nothing => return Ok(passed),
        }
    }
}

/// The latest time of a message of the lane, whose newest segment was read; `None` where that is not known, because an
/// older version made segments.
fn newest_ns(
    folder: &Arc<Folder>,
    reader: &LaneReader,
    number: u64,
    times: Option<Times>,
) -> Result<Option<u64>, Error> {
    let newest_ns = times.map_or(0, |times| times.newest);
    let says = |header: segment::Header| header.until.as_ns();
    if let Some(until_ns) = reader.header().and_then(says) {
        return Ok(Some(until_ns.max(newest_ns)));
    }
    let lane = reader.lane();
    let segments = folder.segments()?.into_iter();
    let earlier: Vec<u64> = segments
        .filter_map(|(of, earlier)| (of == lane && earlier < number).then_some(earlier))
        .collect();
    if earlier.is_empty() {
        return Ok(Some(newest_ns));
    }
    if reader.header().is_some() {
        return Ok(None);
    }
    // Its header does not hold. The one before says it of all before that, which is read once more.
    let known = |of: &u64| Some((*of, folder.header(lane, *of).and_then(says)?));
    let Some((from, until_ns)) = earlier.iter().rev().find_map(known) else { return Ok(None) };
    let passed = pass(&mut LaneReader::at_segment(Arc::clone(folder), lane, from))?;
    Ok(Some(passed.times.map_or(0, |times| times.newest).max(newest_ns).max(until_ns)))
}

/// What is said of a lane of which segments were removed.
fn messages_are_gone(lane: u32, sequence: u64) -> String {
    format!(
        "messages of lane {lane} before {sequence} are not there any more; a new segment was started"
    )
}

//! How long a topic's log keeps messages (`?retain=`, `?retain-bytes=`): which segments a publisher
//! removes, and when it looks. `docs/design/log.md` says what that means for a message.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use switchboard_kernel::io::coarse_time_ns;

use crate::address::Query;
use crate::error::Error;
use crate::log::folder::Folder;
use crate::log::reader::LaneReader;
use crate::log::writer::LaneWriter;

/// How often it is looked at, at most, besides opening and each new segment.
const EVERY: Duration = Duration::from_secs(1);

/// What a topic's log keeps.
#[derive(Debug)]
pub(super) struct Retention {
    longest_ns: Option<u64>,
    most_bytes: Option<u64>,
    looked_at: Instant,
    /// Nothing is to be removed meanwhile, ns since 1970, while the folder is of this generation.
    quiet: Option<(u64, Range<u64>)>,
}

impl Retention {
    /// What an address asks for; `None` where everything is kept.
    pub(super) fn of(query: &Query) -> Option<Self> {
        let in_ns = |retain: Duration| u64::try_from(retain.as_nanos()).unwrap_or(u64::MAX);
        let (longest_ns, most_bytes) = (query.retain.map(in_ns), query.retain_bytes);
        let looked_at = Instant::now();
        (longest_ns.is_some() || most_bytes.is_some()).then_some(Self {
            longest_ns,
            most_bytes,
            looked_at,
            quiet: None,
        })
    }

    /// Whether it is time to look again.
    pub(super) fn is_due(&self) -> bool {
        self.looked_at.elapsed() >= EVERY
    }

    /// Begins a new segment where the one that is written is older than messages are kept, and removes
    /// the oldest segments of all lanes that are too old or too many. The newest of each lane stays.
    pub(super) fn apply(
        &mut self,
        folder: &Arc<Folder>,
        writer: &mut LaneWriter,
    ) -> Result<(), Error> {
        self.looked_at = Instant::now();
        let now_ns = coarse_time_ns();
        let is_too_old = |then_ns: u64| {
            self.longest_ns.is_some_and(|most| now_ns.saturating_sub(then_ns) > most)
        };
        if writer.began_ns(now_ns).is_some_and(is_too_old) {
            writer.rotate()?;
        }
        let generation = folder.generation();
        let is_quiet =
            |(known, range): &(u64, Range<u64>)| *known == generation && range.contains(&now_ns);
        if self.quiet.as_ref().is_some_and(is_quiet) {
            return Ok(());
        }
        let mut lanes: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut total = 0;
        for (lane, number) in folder.segments()? {
            lanes.entry(lane).or_default().push(number);
            if self.most_bytes.is_some() {
                // One that was removed meanwhile takes no room.
                total += folder.segment_bytes(lane, number).unwrap_or(0);
            }
        }
        // What was just listed was made before this moment, if its maker's clock is right.
        let now_ns = coarse_time_ns();
        let mut oldest: Vec<Oldest> = lanes
            .into_iter()
            .filter_map(|(lane, numbers)| Oldest::of(folder, writer, lane, numbers, now_ns))
            .collect();
        let mut removed = false;
        while let Some(at) = (0..oldest.len()).min_by_key(|at| oldest[*at].ended_ns) {
            let first = &oldest[at];
            let is_too_much = self.most_bytes.is_some_and(|most| total > most);
            if !(is_too_old(first.ended_ns) || is_too_much) {
                break;
            }
            let bytes = folder.segment_bytes(first.lane, first.numbers[0]).unwrap_or(0);
            total = total.saturating_sub(bytes);
            removed |= folder.remove_segment(first.lane, first.numbers[0])?;
            let Oldest { lane, mut numbers, .. } = oldest.swap_remove(at);
            numbers.remove(0);
            oldest.extend(Oldest::of(folder, writer, lane, numbers, now_ns));
        }
        if removed {
            folder.changed();
        }
        let next_ns = oldest.iter().map(|first| first.ended_ns).min();
        let until = next_ns.zip(self.longest_ns).map(|(ended, most)| ended.saturating_add(most));
        self.quiet = Some((folder.generation(), now_ns..until.unwrap_or(u64::MAX)));
        Ok(())
    }
}

/// The oldest segment of a lane, which takes no more messages.
#[derive(Debug)]
struct Oldest {
    lane: u32,
    /// It, and those that follow it.
    numbers: Vec<u64>,
    /// Its last message is not newer.
    ended_ns: u64,
}

impl Oldest {
    /// `None` where the only segment is the newest, or nothing says when it ended. A time that has not come yet says
    /// nothing; where there are only such, it counts as ended now, until there is another.
    fn of(
        folder: &Arc<Folder>,
        writer: &LaneWriter,
        lane: u32,
        numbers: Vec<u64>,
        now_ns: u64,
    ) -> Option<Self> {
        let (first, rest) = numbers.split_first()?;
        let known = writer.ended_ns(lane, *first).filter(|ended_ns| *ended_ns <= now_ns);
        let ended_ns = match known {
            Some(ended_ns) if !rest.is_empty() => ended_ns,
            _ => {
                // When a later one was made, the last message of this one was there.
                let reader = LaneReader::at_message(Arc::clone(folder), lane, 1);
                let mut later = rest.iter().filter_map(|number| reader.peek(*number)).peekable();
                later.peek()?;
                let ended_ns = later.find_map(|header| header.begun_ns(now_ns)).unwrap_or(now_ns);
                // By a clock that was behind it may have ended before it was made.
                let made_ns = reader.peek(*first).map_or(0, |header| header.made_ns);
                if made_ns <= now_ns { ended_ns.max(made_ns) } else { ended_ns }
            }
        };
        Some(Self { lane, numbers, ended_ns })
    }
}

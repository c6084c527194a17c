//! The listening end of an event: how often each id happened since it was looked at, of all notifiers together.

use std::sync::atomic::Ordering::Relaxed;

use switchboard_kernel::io::Deadline;
use switchboard_shm::feed::Changed;
use switchboard_shm::{Misbehaved, Words};

use super::ends::End;
use super::following::{Followed, FollowerCore, Following};
use super::hello::Pattern;
use super::memory::Theirs;
use crate::error::{Error, WaitError};
use crate::pattern::event::Occurrence;
use crate::transport::counts::Counts;

pub(crate) type ShmListener = End<FollowerCore<Notified>>;

/// What was taken, and not given to the program.
#[derive(Debug, Default)]
pub(crate) struct Notified(Counts);

/// The counts of a notifier that were taken, by entry.
#[derive(Debug)]
pub(crate) struct Totals(Vec<u64>);

impl Following for Notified {
    const PATTERN: Pattern = Pattern::Event;
    const NEEDS_PEER: bool = false;

    type Each = Totals;

    fn begin(welcome: Option<Theirs>) -> Result<Totals, Misbehaved> {
        let Some(memory) = welcome else { return Err(Misbehaved("a welcome without counts")) };
        let words = memory.words();
        let count = usize::try_from(words[0].load(Relaxed)).ok();
        let counts = count.and_then(|count| words[1..].get(..count));
        let counts = counts.ok_or(Misbehaved("more counts than there is room for"))?;
        Ok(Totals(counts.iter().map(|word| word.load(Relaxed)).collect()))
    }

    fn take(&mut self, one: &mut Followed<Totals>) -> Result<(), Misbehaved> {
        let mut changed = [0_u64; switchboard_shm::layout::feed::RECENT as usize];
        let mut count = 0;
        let found = one.feed.take(|at| {
            changed[count] = at;
            count += 1;
        })?;
        let entries = one.feed.count()?;
        if found == Changed::Any {
            return (0..entries).try_for_each(|at| self.count(one, at));
        }
        changed[..count].iter().try_for_each(|at| self.count(one, *at))
    }

    fn holds(&self) -> bool {
        !self.0.is_empty()
    }
}

impl Notified {
    /// Counts what came of an entry since it was looked at last.
    fn count(&mut self, one: &mut Followed<Totals>, at: u64) -> Result<(), Misbehaved> {
        let entry = one.feed.entry(at);
        let totals = &mut one.kept.0;
        if totals.len() <= at as usize {
            totals.resize(at as usize + 1, 0);
        }
        let total = std::mem::replace(&mut totals[at as usize], entry.value);
        match entry.value.checked_sub(total) {
            // Somebody else's may have brought it here.
            Some(0) => Ok(()),
            Some(more) => {
                self.0.add(entry.name, more);
                Ok(())
            }
            None => Err(Misbehaved("it counts notifications back")),
        }
    }
}

impl ShmListener {
    pub(crate) fn try_wait(&mut self) -> Result<Option<Occurrence>, Error> {
        match self.take() {
            Ok(Some(occurrence)) => Ok(Some(occurrence)),
            Err(WaitError::Failed(error)) => Err(error),
            // Something may have come meanwhile.
            _ if self.arm_descriptor() => match self.take() {
                Err(WaitError::Failed(error)) => Err(error),
                result => Ok(result.unwrap_or_default()),
            },
            _ => Ok(None),
        }
    }

    pub(crate) fn wait_for_event(&mut self, deadline: Deadline) -> Result<Occurrence, WaitError> {
        loop {
            if let Some(occurrence) = self.take()? {
                return Ok(occurrence);
            }
            if deadline.passed() {
                return Err(WaitError::TimedOut);
            }
            self.sleep(deadline)?;
        }
    }

    fn take(&mut self) -> Result<Option<Occurrence>, WaitError> {
        self.look_now_and_then();
        self.call(|core, ()| {
            if !core.kept.holds() {
                core.gather();
            }
            if let Some((id, count)) = core.kept.0.pop() {
                return Ok(Some(Occurrence::of(id, count)));
            }
            core.check().map(|()| None)
        })
    }
}

//! The notifying end of an event: an entry for each id, which counts. `docs/design/event.md` has the rules.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use switchboard_kernel::io::Deadline;
use switchboard_shm::Words;
use switchboard_shm::feed::{Entry, FeedWriter};

use super::ends::End;
use super::feeding::{FeedCore, Feeding, gift_of};
use super::hello::Pattern;
use super::memory::Own;
use crate::error::{Error, ErrorKind, SendError, WaitError};
use crate::transport::Setup;

pub(crate) type ShmNotifier = End<FeedCore<Notifications>>;

/// How often each id happened.
#[derive(Debug)]
pub(crate) struct Notifications {
    setup: Setup,
    index: HashMap<u64, u32>,
    counts: Vec<u64>,
    /// The counts when the last listener went: the next one has what came since.
    at_departure: Vec<u64>,
}

impl Feeding for Notifications {
    const PATTERN: Pattern = Pattern::Event;
    const NEEDS_PEER: bool = true;

    fn open(setup: &Setup) -> Result<Self, Error> {
        Ok(Self {
            setup: setup.again(),
            index: HashMap::new(),
            counts: Vec::new(),
            at_departure: Vec::new(),
        })
    }

    /// From which counts a listener begins: those of now, or, if nobody was there, of then.
    fn gift(&mut self, _: &FeedWriter<Own>, first: bool) -> Result<Option<Own>, Error> {
        let begin = if first { &self.at_departure } else { &self.counts };
        let memory = Own(gift_of(&self.setup, 1 + begin.len())?);
        let words = memory.words();
        words[0].store(begin.len() as u64, Relaxed);
        for (word, count) in words[1..].iter().zip(begin) {
            word.store(*count, Relaxed);
        }
        Ok(Some(memory))
    }

    fn left_alone(&mut self, _: &FeedWriter<Own>) {
        self.at_departure = self.counts.clone();
    }
}

impl FeedCore<Notifications> {
    /// Counts so many more of an id.
    #[inline]
    fn notify(&mut self, id: u64, count: u64) -> Result<(), Error> {
        let at = match self.kept.index.get(&id) {
            Some(at) => u64::from(*at),
            None => self.add(id)?,
        };
        let total = &mut self.kept.counts[at as usize];
        *total = total.saturating_add(count);
        let total = *total;
        self.change(at, total, 0);
        Ok(())
    }

    fn add(&mut self, id: u64) -> Result<u64, Error> {
        let Some(at) = self.feed.add(Entry { name: id, value: 0 }) else {
            let problem = format!("it has notified of {} different ids already", self.feed.count());
            return Err(Error::new(ErrorKind::LimitReached, &self.kept.setup.address, problem)
                .hint("say how many there may be: ?keys="));
        };
        self.kept.index.insert(id, at as u32);
        self.kept.counts.push(0);
        Ok(at)
    }

    /// Whether somebody is there, or nothing waits for anybody.
    fn is_taken(&self) -> bool {
        self.has_readers() || self.kept.counts == self.kept.at_departure
    }
}

impl ShmNotifier {
    pub(crate) fn notify(&mut self, id: u64, count: u64) -> Result<(), Error> {
        self.look_now_and_then();
        self.call(|core, ()| core.notify(id, count))
    }

    /// Whether what was notified is in memory that a listener has.
    pub(crate) fn drive(&mut self) -> Result<bool, Error> {
        self.look_now();
        self.call(|core, ()| {
            match core.check() {
                Ok(()) | Err(SendError::Interrupted) => {}
                Err(SendError::Failed(error)) => return Err(error),
                Err(other) => {
                    let address = &core.kept.setup.address;
                    return Err(Error::new(ErrorKind::System, address, other.to_string()));
                }
            }
            Ok(core.is_taken())
        })
    }

    pub(crate) fn wait_for_listeners(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        if self.is_cancelled() {
            return Err(WaitError::Interrupted);
        }
        self.sleep(deadline).map_err(WaitError::Failed)
    }
}

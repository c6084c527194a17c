//! The reading end of a state: values are copied out of their writer's memory when the program asks for them.

use std::collections::{HashMap, HashSet, VecDeque};

use switchboard_kernel::io::Deadline;
use switchboard_shm::Misbehaved;
use switchboard_shm::feed::{Changed, FeedReader};
use switchboard_shm::values::{self, MOST_SEGMENTS, Read};

use super::control::LinkId;
use super::ends::End;
use super::following::{Followed, FollowerCore, Following};
use super::hello::Pattern;
use super::memory::Theirs;
use crate::error::{Error, WaitError};
use crate::link::LONGEST_KEY;
use crate::link::news::is_key;
use crate::transport::Setup;

pub(crate) type ShmStateReader = End<FollowerCore<Watched>>;

/// Which keys have changed, of all writers, and were not looked at: in that order.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    changed: VecDeque<(LinkId, u64)>,
    /// Nobody watches all keys: changes need not be noted.
    watches_all: bool,
}

/// What is known of a writer's entries.
#[derive(Debug, Default)]
pub(crate) struct Table {
    keys: Vec<String>,
    index: HashMap<String, u64>,
    /// What each entry said when its value was looked at last.
    looked_at: Vec<u64>,
    /// It is among those that have changed.
    noted: Vec<bool>,
    /// Keys of which another writer has set a value since.
    past: HashSet<u64>,
}

impl Following for Watched {
    const PATTERN: Pattern = Pattern::State;
    const NEEDS_PEER: bool = true;

    type Each = Table;

    fn begin(welcome: Option<Theirs>) -> Result<Table, Misbehaved> {
        match welcome {
            None => Ok(Table::default()),
            Some(_) => Err(Misbehaved("a welcome with memory")),
        }
    }

    fn take(&mut self, one: &mut Followed<Table>) -> Result<(), Misbehaved> {
        let mut changed = Vec::new();
        let watches_all = self.watches_all;
        let found = one.feed.take(|at| {
            if watches_all {
                changed.push(at);
            }
        })?;
        if !watches_all {
            return Ok(());
        }
        if found == Changed::Any {
            changed = (0..one.feed.count()?).collect();
        }
        changed.into_iter().for_each(|at| self.note(one, at));
        Ok(())
    }

    fn holds(&self) -> bool {
        false
    }

    fn left(&mut self, link: LinkId) {
        self.changed.retain(|(of, _)| *of != link);
    }
}

impl Watched {
    fn note(&mut self, one: &mut Followed<Table>, at: u64) {
        one.kept.make_room(at);
        let is_new = one.feed.entry(at).value != one.kept.looked_at[at as usize];
        if is_new && !std::mem::replace(&mut one.kept.noted[at as usize], true) {
            self.changed.push_back((one.link, at));
        }
    }
}

impl Table {
    fn make_room(&mut self, at: u64) {
        let count = at as usize + 1;
        if self.looked_at.len() < count {
            self.looked_at.resize(count, 0);
            self.noted.resize(count, false);
        }
    }
}

/// Why a value was not read.
enum Trouble {
    Lie(Misbehaved),
    /// It lies in this segment, which is still on the way, or never comes.
    NoSegment(u32),
}

impl From<Misbehaved> for Trouble {
    fn from(what: Misbehaved) -> Self {
        Self::Lie(what)
    }
}

/// Reads a block that an entry names.
fn read(
    feed: &FeedReader<Theirs>,
    segments: &[Theirs],
    at: u64,
    is_key: bool,
    largest: usize,
) -> Result<Option<(Vec<u8>, u64)>, Trouble> {
    let name = || {
        let entry = feed.entry(at);
        if is_key { entry.name } else { entry.value }
    };
    let mut bytes = Vec::new();
    match values::read(at, name, |index| segments.get(index as usize), largest, &mut bytes)? {
        Read::Value(version) => Ok(Some((bytes, version))),
        Read::Nothing => Ok(None),
        Read::NoSegment(index) => Err(Trouble::NoSegment(index)),
    }
}

impl Followed<Table> {
    /// Learns the keys that were added.
    fn learn(&mut self) -> Result<(), Trouble> {
        let count = self.feed.count()?;
        while (self.kept.keys.len() as u64) < count {
            let at = self.kept.keys.len() as u64;
            let name = read(&self.feed, &self.segments, at, true, LONGEST_KEY)?;
            let key = name.and_then(|(bytes, _)| String::from_utf8(bytes).ok());
            let Some(key) = key.filter(|key| is_key(key)) else {
                return Err(Misbehaved("a key that cannot be").into());
            };
            if self.kept.index.insert(key.clone(), at).is_some() {
                return Err(Misbehaved("a key that is there twice").into());
            }
            self.kept.keys.push(key);
            self.kept.make_room(at);
        }
        Ok(())
    }

    fn find(&mut self, key: &str) -> Result<Option<u64>, Trouble> {
        if let Some(at) = self.kept.index.get(key) {
            return Ok(Some(*at));
        }
        self.learn()?;
        Ok(self.kept.index.get(key).copied())
    }

    fn get(&mut self, key: &str, largest: usize) -> Result<Option<(Vec<u8>, u64)>, Trouble> {
        let Some(at) = self.find(key)? else { return Ok(None) };
        // Before the value: if another is set meanwhile, it counts as not seen.
        let said = self.feed.entry(at).value;
        let value = read(&self.feed, &self.segments, at, false, largest)?;
        self.kept.looked_at[at as usize] = said;
        self.kept.noted[at as usize] = false;
        if !self.kept.past.is_empty() {
            self.kept.past.remove(&at);
        }
        Ok(value)
    }

    /// Another writer has set this key since.
    fn put_past(&mut self, key: &str) -> Result<(), Trouble> {
        if let Some(at) = self.find(key)? {
            self.kept.past.insert(at);
        }
        Ok(())
    }

    fn is_past(&mut self, key: &str) -> Result<bool, Trouble> {
        let at = self.find(key)?;
        Ok(at.is_some_and(|at| self.kept.past.contains(&at)))
    }

    fn is_new(&mut self, key: &str) -> Result<bool, Trouble> {
        let Some(at) = self.find(key)? else { return Ok(false) };
        Ok(self.feed.entry(at).value != self.kept.looked_at[at as usize])
    }

    fn look_at_all(&mut self) -> Result<(), Trouble> {
        self.learn()?;
        for at in 0..self.kept.keys.len() {
            self.kept.looked_at[at] = self.feed.entry(at as u64).value;
            self.kept.noted[at] = false;
        }
        Ok(())
    }
}

impl FollowerCore<Watched> {
    /// Does something with each writer until it gives a result. One that lies is gone.
    fn each<R>(
        &mut self,
        mut with: impl FnMut(&mut Followed<Table>, &Setup) -> Result<Option<R>, Trouble>,
    ) -> Option<R> {
        let (mut at, mut fetched, mut fetches) = (0, None, 0);
        while let Some(one) = self.writers.get_mut(at) {
            let link = one.link;
            match with(one, &self.setup) {
                Ok(Some(found)) => return Some(found),
                Ok(None) => at += 1,
                Err(Trouble::Lie(what)) => self.turn_away(at, what.0),
                // It was sent before the value, so it waits on the control path, or never comes. Meanwhile the value
                // may have gone on to another one.
                Err(Trouble::NoSegment(index))
                    if fetched != Some((link, index)) && fetches < MOST_SEGMENTS =>
                {
                    fetched = Some((link, index));
                    fetches += 1;
                    for event in self.control.hear(link) {
                        self.note(event);
                    }
                }
                Err(Trouble::NoSegment(_)) => {
                    self.turn_away(at, "a value in a segment that never came");
                }
            }
        }
        None
    }

    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u64)> {
        if self.writers.len() > 1
            && let Some(newest) = self.get_newest(key)
        {
            return Some(newest);
        }
        self.each(|one, setup| one.get(key, setup.largest_message_bytes() as usize))
    }

    /// The value that was set last, where there are several writers. A key has one; but when that is gone, another can have set the key
    /// before this end hears of it.
    fn get_newest(&mut self, key: &str) -> Option<(Vec<u8>, u64)> {
        let mut holders = 0;
        let changed = self.each(|one, _| {
            holders += u32::from(one.find(key)?.is_some());
            Ok(one.is_new(key)?.then_some(one.link))
        });
        if holders < 2 && changed.is_none() {
            return None;
        }
        if let Some(link) = changed {
            self.each(|one, _| -> Result<Option<()>, Trouble> {
                if one.link != link {
                    one.put_past(key)?;
                }
                Ok(None)
            });
        }
        self.each(|one, setup| match changed == Some(one.link) || !one.is_past(key)? {
            true => one.get(key, setup.largest_message_bytes() as usize),
            false => Ok(None),
        })
    }

    fn is_new(&mut self, key: &str) -> bool {
        self.each(|one, _| Ok(one.is_new(key)?.then_some(()))).is_some()
    }

    fn keys(&mut self) -> Vec<String> {
        let mut keys = Vec::new();
        self.each(|one, _| -> Result<Option<()>, Trouble> {
            one.learn()?;
            let there = |(at, _): &(usize, &String)| one.feed.entry(*at as u64).value != 0;
            keys.extend(one.kept.keys.iter().enumerate().filter(there).map(|(_, key)| key.clone()));
            Ok(None)
        });
        keys
    }

    fn look_at_all(&mut self) {
        self.each(|one, _| -> Result<Option<()>, Trouble> {
            one.look_at_all()?;
            Ok(None)
        });
        self.kept.changed.clear();
    }

    /// The key that changed longest ago of those that were not looked at.
    fn next_changed(&mut self) -> Option<String> {
        if !std::mem::replace(&mut self.kept.watches_all, true) {
            // From here on changes are noted; those that were there are found by looking.
            for one in &mut self.writers {
                for at in 0..one.feed.count().unwrap_or_default() {
                    self.kept.note(one, at);
                }
            }
        }
        self.gather();
        while let Some((link, at)) = self.kept.changed.pop_front() {
            let key = self.each(|one, _| {
                if one.link != link {
                    return Ok(None);
                }
                one.learn()?;
                let is_noted = one.kept.noted.get(at as usize).copied().unwrap_or_default();
                Ok(one.kept.keys.get(at as usize).filter(|_| is_noted).cloned())
            });
            if key.is_some() {
                return key;
            }
        }
        None
    }
}

impl ShmStateReader {
    /// What is there when it is opened is known.
    pub(crate) fn begin(mut self) -> Result<Self, Error> {
        self.call(|core, ()| -> Result<(), Error> {
            core.gather();
            core.look_at_all();
            Ok(())
        })?;
        Ok(self)
    }

    pub(crate) fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, u64)>, Error> {
        self.look_now_and_then();
        self.call(|core, ()| match core.get(key) {
            Some(value) => Ok(Some(value)),
            None => match core.check() {
                Err(WaitError::Failed(error)) => Err(error),
                _ => Ok(None),
            },
        })
    }

    pub(crate) fn keys(&mut self) -> Result<Vec<String>, Error> {
        self.look_now_and_then();
        self.call(|core, ()| Ok(core.keys()))
    }

    pub(crate) fn watch(&mut self, key: &str, deadline: Deadline) -> Result<(), WaitError> {
        self.until(deadline, |core| core.is_new(key).then_some(()))
    }

    pub(crate) fn watch_any(&mut self, deadline: Deadline) -> Result<String, WaitError> {
        self.until(deadline, FollowerCore::next_changed)
    }

    pub(crate) fn wait_for_writer(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        self.until(deadline, |core| (!core.writers.is_empty()).then_some(()))
    }

    fn until<R>(
        &mut self,
        deadline: Deadline,
        mut found: impl FnMut(&mut FollowerCore<Watched>) -> Option<R>,
    ) -> Result<R, WaitError> {
        loop {
            self.look_now_and_then();
            let result = self.call(|core, ()| {
                core.gather();
                match found(core) {
                    Some(found) => Ok(Some(found)),
                    None => core.check().map(|()| None),
                }
            })?;
            if let Some(found) = result {
                return Ok(found);
            }
            if self.arm_descriptor() {
                continue;
            }
            if deadline.passed() {
                return Err(WaitError::TimedOut);
            }
            self.sleep(deadline)?;
        }
    }
}

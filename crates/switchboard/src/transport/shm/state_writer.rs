//! The writing end of a state: an entry for each key, and its newest value in a block of its own.
//! `docs/design/state-links.md` has the rules.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;
use switchboard_kernel::shared_memory::OwnMemory;
use switchboard_shm::feed::{Entry, FeedWriter};
use switchboard_shm::values::{Spot, Values};

use super::ends::End;
use super::feeding::{FeedCore, Feeding};
use super::hello::Pattern;
use super::key_locks::KeyLocks;
use super::memory::Own;
use crate::error::{Error, ErrorKind, SendError, WaitError};
use crate::transport::Setup;

pub(crate) type ShmStateWriter = End<FeedCore<Keys>>;

/// What the values of a writer take at most, in bytes, unless one alone is larger.
const MOST_BYTES: u64 = 1 << 30;

/// The keys of a writer, and where their values are.
#[derive(Debug)]
pub(crate) struct Keys {
    setup: Setup,
    locks: KeyLocks,
    index: HashMap<String, u32>,
    /// Where the newest value of each is, and how long it is.
    newest: Vec<(Spot, u64)>,
    values: Values<Own>,
    version: u64,
    largest: usize,
}

impl Feeding for Keys {
    const PATTERN: Pattern = Pattern::State;
    const NEEDS_PEER: bool = false;

    fn open(setup: &Setup) -> Result<Self, Error> {
        Ok(Self {
            setup: setup.again(),
            locks: KeyLocks::new(&setup.address)?,
            index: HashMap::new(),
            newest: Vec::new(),
            values: Values::default(),
            version: 0,
            largest: setup.largest_message_bytes() as usize,
        })
    }

    fn gift(&mut self, _: &FeedWriter<Own>, _: bool) -> Result<Option<Own>, Error> {
        Ok(None)
    }

    fn segments(&self) -> Vec<&Own> {
        self.values.segments().collect()
    }
}

impl FeedCore<Keys> {
    fn set(&mut self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > self.kept.largest {
            let problem = format!("a value has {} bytes at most here", self.kept.largest);
            return Err(Error::new(ErrorKind::LimitReached, &self.kept.setup.address, problem));
        }
        let known = self.kept.index.get(key).copied();
        if known.is_none() {
            self.kept.locks.take(key)?;
        }
        let len = bytes.len() as u64;
        let spot = self.block(len)?;
        let at = match known {
            Some(at) => u64::from(at),
            None => match self.add(key) {
                Ok(at) => at,
                Err(error) => {
                    self.kept.values.give_back(spot, len);
                    return Err(error);
                }
            },
        };
        self.kept.version += 1;
        let name = self.kept.values.write(spot, at, self.kept.version, bytes);
        self.change(at, name, len);
        let kept = &mut self.kept;
        match known {
            Some(at) => {
                let (spot, len) = std::mem::replace(&mut kept.newest[at as usize], (spot, len));
                kept.values.give_back(spot, len);
            }
            None => kept.newest.push((spot, len)),
        }
        Ok(())
    }

    /// Adds an entry for a key: its name is a block, too, which stays as it is.
    fn add(&mut self, key: &str) -> Result<u64, Error> {
        let spot = self.block(key.len() as u64)?;
        let at = self.feed.count();
        self.kept.version += 1;
        let name = self.kept.values.write(spot, at, self.kept.version, key.as_bytes());
        let Some(at) = self.feed.add(Entry { name, value: 0 }) else {
            self.kept.values.give_back(spot, key.len() as u64);
            let problem = format!("it has {at} keys already");
            return Err(Error::new(ErrorKind::LimitReached, &self.kept.setup.address, problem)
                .hint("say how many there may be: ?keys="));
        };
        self.kept.index.insert(key.to_owned(), at as u32);
        // Its version is that of a value: the values' are counted from here on.
        self.kept.version -= 1;
        Ok(at)
    }

    fn block(&mut self, len: u64) -> Result<Spot, Error> {
        if let Some(spot) = self.kept.values.take(len) {
            return Ok(spot);
        }
        let Some(bytes) = self.kept.values.next_segment_bytes(len, MOST_BYTES) else {
            return self.kept.values.take_again(len).ok_or_else(|| {
                let problem = format!("its values take {MOST_BYTES} bytes already");
                Error::new(ErrorKind::LimitReached, &self.kept.setup.address, problem)
            });
        };
        let memory = OwnMemory::create("switchboard-values", bytes as usize)
            .map_err(|error| self.kept.setup.system("no memory for a value", error))?;
        let memory = Own(memory);
        let index = self.kept.values.add(memory.clone());
        self.give_segment(index, &memory);
        self.kept.values.take(len).ok_or_else(|| {
            Error::new(ErrorKind::System, &self.kept.setup.address, "a segment that is too small")
        })
    }
}

impl ShmStateWriter {
    pub(crate) fn set(&mut self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        self.look_now_and_then();
        self.call(|core, ()| core.set(key, bytes))
    }

    pub(crate) fn drive(&mut self) -> Result<bool, Error> {
        self.look_now();
        self.call(|core, ()| match core.check() {
            Ok(()) | Err(SendError::Interrupted) => Ok(true),
            Err(SendError::Failed(error)) => Err(error),
            Err(other) => {
                let address = &core.kept.setup.address;
                Err(Error::new(ErrorKind::System, address, other.to_string()))
            }
        })
    }

    pub(crate) fn wait_for_readers(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        if self.is_cancelled() {
            return Err(WaitError::Interrupted);
        }
        self.sleep(deadline).map_err(WaitError::Failed)
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.ask_core(|core| core.kept.largest).unwrap_or_default()
    }

    pub(crate) fn version(&self) -> u64 {
        self.ask_core(|core| core.kept.version).unwrap_or_default()
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

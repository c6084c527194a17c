//! The reading end of a state.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::in_memory::MemoryReader;
use super::{State, Value};
use crate::address::Address;
use crate::error::{Error, WaitError};
use crate::transport::LiveReader;

/// Reads values. It cannot change them.
#[derive(Debug)]
pub struct Reader {
    pub(super) state: State,
    pub(super) end: End,
}

#[derive(Debug)]
pub(super) enum End {
    InMemory(Box<MemoryReader>),
    Live(LiveReader),
}

impl Reader {
    /// The value that is there now. In memory (`shm:` too) this makes no system call; it never waits for the
    /// writer. Version 0: nothing is set, or the writer of a value that lives with it is not there (yet, or
    /// any more): see [`wait_for_writer`](Self::wait_for_writer).
    ///
    /// # Errors
    /// `Mismatch`: both slots are damaged, or the memory holds something else; `PeerMisbehaved`; `System`: the
    /// file was cut short.
    pub fn get(&mut self) -> Result<Value, Error> {
        match &mut self.end {
            End::InMemory(end) => end.get(),
            End::Live(_) => Ok(self.get_key("")?.unwrap_or_else(|| Value::of(Vec::new(), 0))),
        }
    }

    /// The value of a key that is there now; `None` if there is none.
    ///
    /// # Errors
    /// `NotSupported`: the address has one value and no keys; else as [`get`](Self::get).
    pub fn get_key(&mut self, key: &str) -> Result<Option<Value>, Error> {
        self.state.check_key(key)?;
        match &mut self.end {
            End::InMemory(end) if key.is_empty() => {
                Ok(Some(end.get()?).filter(|value| value.version > 0))
            }
            End::InMemory(_) => Err(self.state.without_keys()),
            End::Live(end) => Ok(end.get(key)?.map(|(bytes, version)| Value::of(bytes, version))),
        }
    }

    /// The keys that have a value now, in no order.
    ///
    /// # Errors
    /// As [`get_key`](Self::get_key).
    pub fn keys(&mut self) -> Result<Vec<String>, Error> {
        match &mut self.end {
            End::InMemory(_) => Err(self.state.without_keys()),
            End::Live(end) => end.keys(),
        }
    }

    /// Waits until another value is set than this reader knows (by `get`, `watch`, or when it was
    /// opened), and gives it. Values in between may be missed.
    ///
    /// Watchers are woken at once. In memory that outlives its writer they sleep on a futex and look again every
    /// 50 ms, also for `cancel`; with [`Layout::Bare`](super::Layout::Bare) they look every 0.2 to 10 ms.
    /// Nothing tells that the writer died, or that somebody unlinked the memory.
    ///
    /// # Errors
    /// `Interrupted`; else as [`get`](Self::get).
    pub fn watch(&mut self) -> Result<Value, WaitError> {
        self.watch_until("", Deadline::NEVER)
    }

    /// As [`watch`](Self::watch), for at most `timeout`.
    ///
    /// # Errors
    /// `TimedOut`; else as [`watch`](Self::watch).
    pub fn watch_timeout(&mut self, timeout: Duration) -> Result<Value, WaitError> {
        self.watch_until("", Deadline::after(timeout))
    }

    /// As [`watch`](Self::watch), of a key; `None` waits as long as it takes.
    ///
    /// # Errors
    /// As [`get_key`](Self::get_key) and [`watch_timeout`](Self::watch_timeout).
    pub fn watch_key(&mut self, key: &str, timeout: Option<Duration>) -> Result<Value, WaitError> {
        self.state.check_key(key)?;
        self.watch_until(key, Deadline::from_timeout(timeout))
    }

    /// As [`watch`](Self::watch), of all keys: the one that changed longest ago of those of which this reader does
    /// not know the newest value.
    ///
    /// # Errors
    /// As [`watch_key`](Self::watch_key).
    pub fn watch_any(&mut self, timeout: Option<Duration>) -> Result<(String, Value), WaitError> {
        let deadline = Deadline::from_timeout(timeout);
        let End::Live(end) = &mut self.end else { return Err(self.state.without_keys().into()) };
        loop {
            let key = end.watch_any(deadline)?;
            if let Some((bytes, version)) = end.get(&key)? {
                return Ok((key, Value::of(bytes, version)));
            }
        }
    }

    /// Waits until a writer is there and what it has set is known; `None` waits as long as it takes. Memory
    /// that outlives its writer is there already.
    ///
    /// # Errors
    /// `TimedOut`; `Interrupted`; `Failed`.
    pub fn wait_for_writer(&mut self, timeout: Option<Duration>) -> Result<(), WaitError> {
        match &mut self.end {
            End::InMemory(_) => Ok(()),
            End::Live(end) => end.wait_for_writer(Deadline::from_timeout(timeout)),
        }
    }

    /// Whether a writer is there, as far as is known; `None` where that cannot be known.
    #[must_use]
    pub fn has_writer(&self) -> Option<bool> {
        match &self.end {
            End::InMemory(_) => None,
            End::Live(end) => Some(end.has_writer()),
        }
    }

    /// How many writers are connected now; `None` where that cannot be known.
    #[must_use]
    pub fn peers(&self) -> Option<usize> {
        match &self.end {
            End::InMemory(_) => None,
            End::Live(end) => Some(end.peers()),
        }
    }

    /// Readable when something may have changed: then look (`get`, `watch_timeout` with 0) until nothing is new,
    /// first once before waiting for it. `None` where there is no such descriptor.
    #[must_use]
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.end {
            End::InMemory(_) => None,
            End::Live(end) => Some(end.fd()),
        }
    }

    /// The address it reads.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.state.address
    }

    fn watch_until(&mut self, key: &str, deadline: Deadline) -> Result<Value, WaitError> {
        let end = match &mut self.end {
            End::InMemory(end) if key.is_empty() => return end.watch_until(deadline),
            End::InMemory(_) => return Err(self.state.without_keys().into()),
            End::Live(end) => end,
        };
        loop {
            end.watch(key, deadline)?;
            if let Some((bytes, version)) = end.get(key)? {
                return Ok(Value::of(bytes, version));
            }
        }
    }
}

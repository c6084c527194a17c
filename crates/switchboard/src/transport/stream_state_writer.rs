//! The writing end of a state over links: it has the newest value of each key, and says it to every reader.
//!
//! What a reader does not take now is not said again in between: it is noted that the key has changed, and
//! the value that is newest when there is room goes out. `docs/design/state-links.md` has the rules.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::connection::{Connection, Read, Wire};
use super::hub::Hub;
use super::stream_peers::StreamPeers;
use crate::error::{Error, ErrorKind, WaitError};

/// Keys of a writer at most.
pub(crate) const MOST_KEYS: usize = 1 << 20;
/// Bytes that may wait to be written to a reader, and a value.
const MOST_UNWRITTEN_BYTES: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct StreamStateWriter {
    peers: StreamPeers,
    values: Values,
    desks: BTreeMap<u64, Desk>,
    cancelled: bool,
}

/// The newest values.
#[derive(Debug, Default)]
struct Values {
    entries: Vec<Entry>,
    index: HashMap<String, u32>,
    version: u64,
}

#[derive(Debug)]
struct Entry {
    key: String,
    version: u64,
    bytes: Vec<u8>,
}

/// What a reader has not been told.
#[derive(Debug, Default)]
struct Desk {
    queue: VecDeque<u32>,
    /// Which of them are in the queue.
    waits: Vec<bool>,
    /// So many are to be said until it knows all that there was when it joined; `None`: that was said.
    until_known: Option<usize>,
}

impl Desk {
    fn for_all(count: usize) -> Self {
        Self {
            queue: (0..count as u32).collect(),
            waits: vec![true; count],
            until_known: Some(count),
        }
    }

    fn note(&mut self, at: u32) {
        let index = at as usize;
        if self.waits.len() <= index {
            self.waits.resize(index + 1, false);
        }
        if !std::mem::replace(&mut self.waits[index], true) {
            self.queue.push_back(at);
        }
    }

    fn next(&mut self) -> Option<u32> {
        let at = self.queue.pop_front()?;
        self.waits[at as usize] = false;
        Some(at)
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.until_known.is_none()
    }
}

impl StreamStateWriter {
    pub(crate) fn new(hub: Hub) -> Self {
        Self {
            peers: StreamPeers::new(hub),
            values: Values::default(),
            desks: BTreeMap::new(),
            cancelled: false,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.peers.fd()
    }

    pub(crate) fn peers(&self) -> usize {
        self.desks.len()
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.peers.hub.hello.max_message_bytes as usize
    }

    pub(crate) fn version(&self) -> u64 {
        self.values.version
    }

    pub(crate) fn set(&mut self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        let limit = self.capacity_bytes();
        if bytes.len() > limit {
            let problem = format!("a value has {limit} bytes at most here");
            return Err(Error::new(
                ErrorKind::LimitReached,
                &self.peers.hub.setup.address,
                problem,
            ));
        }
        let Some(at) = self.values.set(key, bytes) else {
            let problem = format!("it has {MOST_KEYS} keys already");
            return Err(Error::new(
                ErrorKind::LimitReached,
                &self.peers.hub.setup.address,
                problem,
            ));
        };
        self.desks.values_mut().for_each(|desk| desk.note(at));
        self.drive().map(drop)
    }

    /// Lets readers in, and says what there is room for. Whether all is with the kernel.
    pub(crate) fn drive(&mut self) -> Result<bool, Error> {
        let found = self.peers.look().map_err(|error| self.peers.as_error(error))?;
        self.cancelled |= found.cancelled;
        for id in found.ready {
            let Some(connection) = self.peers.hub.connection(id) else { continue };
            let read = connection.read();
            // A reader that does not fit, or lies, is told so and is gone; others go on.
            let spoke = self.peers.hear(id, |_| {});
            if spoke.is_err() || read == Read::Closed {
                self.lose(id);
            }
        }
        for connection in &self.peers.hub.connections {
            if connection.is_open() && !self.desks.contains_key(&connection.id) {
                self.desks.insert(connection.id, Desk::for_all(self.values.entries.len()));
            }
        }
        Ok(self.pump())
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        if std::mem::take(&mut self.cancelled) {
            return Err(WaitError::Interrupted);
        }
        self.peers.hub.wait(deadline)?;
        Ok(())
    }

    fn lose(&mut self, id: u64) {
        self.desks.remove(&id);
        let spoke = self.peers.hub.connection(id).is_some_and(|connection| connection.is_open());
        if spoke {
            self.peers.hub.remove(id);
        } else {
            self.peers.hub.forget(id);
        }
    }

    fn pump(&mut self) -> bool {
        let (mut done, mut lost) = (true, Vec::new());
        for connection in &mut self.peers.hub.connections {
            let Some(desk) = self.desks.get_mut(&connection.id) else { continue };
            if write(connection, desk, &self.values) {
                done &= desk.is_done() && connection.unwritten_bytes() == 0;
            } else {
                lost.push(connection.id);
            }
        }
        for id in lost {
            self.lose(id);
        }
        done
    }
}

impl Values {
    /// Sets a value: where it is. `None` where there is no room for another key.
    fn set(&mut self, key: &str, bytes: &[u8]) -> Option<u32> {
        let at = match self.index.get(key) {
            Some(at) => *at,
            None if self.entries.len() >= MOST_KEYS => return None,
            None => {
                let at = self.entries.len() as u32;
                self.index.insert(key.to_owned(), at);
                self.entries.push(Entry { key: key.to_owned(), version: 0, bytes: Vec::new() });
                at
            }
        };
        self.version += 1;
        let entry = &mut self.entries[at as usize];
        entry.version = self.version;
        entry.bytes.clear();
        entry.bytes.extend_from_slice(bytes);
        Some(at)
    }
}

/// Writes what a reader has not been told, as far as there is room. `false`: it is gone.
fn write(connection: &mut Connection, desk: &mut Desk, values: &Values) -> bool {
    loop {
        let Wire::Link(link) = &mut connection.wire else { return true };
        while link.unwritten_bytes() < MOST_UNWRITTEN_BYTES {
            if desk.until_known == Some(0) {
                desk.until_known = None;
                link.known();
            }
            let Some(at) = desk.next() else { break };
            let entry = &values.entries[at as usize];
            if entry.bytes.len() <= link.largest_message_bytes() {
                link.value(&entry.key, entry.version, &entry.bytes);
            }
            desk.until_known = desk.until_known.map(|left| left.saturating_sub(1));
        }
        if !connection.flush() {
            return false;
        }
        if desk.is_done() || connection.unwritten_bytes() > 0 {
            return true;
        }
    }
}

impl Drop for StreamStateWriter {
    fn drop(&mut self) {
        if self.peers.hub.setup.is_here() {
            self.pump();
        }
    }
}

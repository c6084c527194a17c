//! The two ends of a state whose writer lives, over any transport: enums, as in `flavor.rs`. Those in memory
//! that outlives its writer are `pattern/state/in_memory.rs`.

use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::hub::Hub;
use super::shm::{ShmStateReader, ShmStateWriter};
use super::stream_state_reader::StreamStateReader;
use super::stream_state_writer::StreamStateWriter;
use crate::error::{Error, WaitError};

/// The writing end.
#[derive(Debug)]
pub(crate) enum LiveWriter {
    Stream(Box<StreamStateWriter>),
    Shm(Box<ShmStateWriter>),
}

/// The reading end.
#[derive(Debug)]
pub(crate) enum LiveReader {
    Stream(Box<StreamStateReader>),
    Shm(Box<ShmStateReader>),
}

impl LiveWriter {
    pub(crate) fn over_links(hub: Hub) -> Self {
        Self::Stream(Box::new(StreamStateWriter::new(hub)))
    }

    pub(crate) fn set(&mut self, key: &str, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Stream(end) => end.set(key, bytes),
            Self::Shm(end) => end.set(key, bytes),
        }
    }

    pub(crate) fn drive(&mut self) -> Result<bool, Error> {
        match self {
            Self::Stream(end) => end.drive(),
            Self::Shm(end) => end.drive(),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        match self {
            Self::Stream(end) => end.wait(deadline),
            Self::Shm(end) => end.wait_for_readers(deadline),
        }
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        match self {
            Self::Stream(end) => end.capacity_bytes(),
            Self::Shm(end) => end.capacity_bytes(),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        match self {
            Self::Stream(end) => end.version(),
            Self::Shm(end) => end.version(),
        }
    }

    pub(crate) fn peers(&self) -> usize {
        match self {
            Self::Stream(end) => end.peers(),
            Self::Shm(end) => end.peers(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(end) => end.fd(),
            Self::Shm(end) => end.descriptor(),
        }
    }
}

impl LiveReader {
    pub(crate) fn over_links(hub: Hub) -> Result<Self, Error> {
        StreamStateReader::new(hub).map(Box::new).map(Self::Stream)
    }

    /// The newest value of a key and its version.
    pub(crate) fn get(&mut self, key: &str) -> Result<Option<(Vec<u8>, u64)>, Error> {
        match self {
            Self::Stream(end) => {
                Ok(end.get(key)?.map(|known| (known.bytes.clone(), known.version)))
            }
            Self::Shm(end) => end.get(key),
        }
    }

    pub(crate) fn keys(&mut self) -> Result<Vec<String>, Error> {
        match self {
            Self::Stream(end) => end.keys(),
            Self::Shm(end) => end.keys(),
        }
    }

    /// Waits until the value of a key is one that was not looked at.
    pub(crate) fn watch(&mut self, key: &str, deadline: Deadline) -> Result<(), WaitError> {
        match self {
            Self::Stream(end) => end.watch(key, deadline),
            Self::Shm(end) => end.watch(key, deadline),
        }
    }

    /// Waits until the value of some key is one that was not looked at: which.
    pub(crate) fn watch_any(&mut self, deadline: Deadline) -> Result<String, WaitError> {
        match self {
            Self::Stream(end) => end.watch_any(deadline),
            Self::Shm(end) => end.watch_any(deadline),
        }
    }

    pub(crate) fn wait_for_writer(&mut self, deadline: Deadline) -> Result<(), WaitError> {
        match self {
            Self::Stream(end) => end.wait_for_writer(deadline),
            Self::Shm(end) => end.wait_for_writer(deadline),
        }
    }

    pub(crate) fn has_writer(&self) -> bool {
        match self {
            Self::Stream(end) => end.is_known(),
            Self::Shm(end) => end.peers() > 0,
        }
    }

    pub(crate) fn peers(&self) -> usize {
        match self {
            Self::Stream(end) => end.peers(),
            Self::Shm(end) => end.peers(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(end) => end.fd(),
            Self::Shm(end) => end.descriptor(),
        }
    }
}

//! The memory that a state is in, wherever it comes from, and the lock that its one writer has.
//!
//! Source: `mmap(2)`, `msync(2)`, `flock(2)`, `shmat(2)`, `semop(2)` (`SEM_UNDO`).

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use switchboard_kernel as kernel;
use switchboard_kernel::file_lock::{Lock, Mode};
use switchboard_kernel::fork::Opener;
use switchboard_kernel::mmap::{Mapping, Memory, Missing, Sync};
use switchboard_kernel::sysv_shm::Attachment;

use super::row::OfAddress;
use super::sysv_shm::UndoLock;
use crate::address::Address;
use crate::error::{Error, ErrorKind};
use crate::pattern::state::writer_of;

/// The largest value.
pub(crate) const LARGEST_VALUE_BYTES: u32 = 1 << 30;

/// Memory that is mapped until this is dropped.
#[derive(Debug)]
pub(crate) enum StateMemory {
    /// Of a file, on a disk or in memory, which tells why a page of it is missing.
    Mapped(Mapping, Arc<OwnedFd>),
    /// Of System V.
    Attached(Attachment),
}

impl StateMemory {
    /// Waits until it is on the disk.
    pub(crate) fn sync(&self) -> kernel::Result<()> {
        match self {
            Self::Mapped(mapping, _) => mapping.sync(0..mapping.len(), Sync::Wait),
            Self::Attached(_) => Ok(()),
        }
    }

    /// Why a page of it was found missing, if one was.
    pub(crate) fn missing(&self) -> Option<Missing> {
        match self {
            Self::Mapped(mapping, file) => mapping.missing(file),
            Self::Attached(_) => None,
        }
    }
}

impl Deref for StateMemory {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        match self {
            Self::Mapped(mapping, _) => mapping,
            Self::Attached(attachment) => attachment,
        }
    }
}

/// The error of a second writer.
pub(crate) fn has_a_writer(address: &Address, memory: &StateMemory) -> Error {
    let problem = match writer_of(memory) {
        Some(pid) => format!("process {pid} is its writer"),
        None => "it has a writer".to_owned(),
    };
    Error::new(ErrorKind::AddressInUse, address, problem)
        .hint("only one process sets a state at a time; stop the other, or let it set the value")
}

/// What became of getting memory ready. Where that failed and the memory was made for it just now, it is
/// removed again, unless another process has begun to use it.
pub(crate) fn or_unlink<T>(
    address: &Address,
    unlink: OfAddress,
    made: bool,
    result: Result<T, Error>,
) -> Result<T, Error> {
    if let Err(error) = &result
        && made
        && error.kind() != ErrorKind::AddressInUse
    {
        // If it cannot be removed, the error that is told is the one that matters.
        let _ = unlink(address);
    }
    result
}

/// What keeps other writers out, until this is dropped or the process dies.
#[derive(Debug)]
pub(crate) enum WriterLock {
    /// The lock of the memory's file.
    File(#[allow(dead_code)] FileLock),
    /// A semaphore that the kernel puts back.
    Undo(#[allow(dead_code)] UndoLock),
    /// Nothing: the programs agree on it.
    Agreed,
}

/// Takes the lock of the memory's file: that of `flock(2)`, which flock(1) takes too.
pub(crate) fn lock_file(
    address: &Address,
    file: Arc<OwnedFd>,
    memory: &StateMemory,
) -> Result<WriterLock, Error> {
    let opener = Opener::this()
        .map_err(|error| Error::system(address, "cannot lock it for writing", error))?;
    match Lock::flock(Mode::Exclusive).try_lock(&file) {
        Ok(Some(guard)) => guard.keep(),
        Ok(None) => return Err(has_a_writer(address, memory)),
        Err(error) => return Err(Error::system(address, "cannot lock it for writing", error)),
    }
    Ok(WriterLock::File(FileLock { file, opener }))
}

/// A file whose lock is taken, and given back on drop or by the kernel.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: Arc<OwnedFd>,
    opener: Opener,
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // A child of fork would let go of its parent's.
        if !self.opener.is_here() {
            return;
        }
        // A child that another thread is just about to start has a copy of the descriptor: closing
        // ours would not let go. Who asks again for what it has gets it, to be unlocked.
        if let Ok(Some(guard)) = Lock::flock(Mode::Exclusive).try_lock(&self.file) {
            drop(guard);
        }
    }
}

/// An error of the standard library as one of the call that failed.
pub(crate) fn of_io(call: &'static str, error: &std::io::Error) -> kernel::Error {
    kernel::Error::from_raw(call, error.raw_os_error().unwrap_or_default())
}

//! `sysv-shm:PATH`, `sysv-shm:PATH#ID`, `sysv-shm:0xKEY`: System V shared memory, which carries a
//! state.
//!
//! Source: `sysvipc(7)`, `shmop(2)`, `semop(2)` (`SEM_UNDO`). The segment is made by its first writer,
//! and stays until it is removed: it outlives its processes, not a reboot.
//!
//! One writer at a time: with the layout `slots` it has taken a semaphore of a set of its own, with
//! undo, so that the kernel puts it back when it dies. The set's key is the segment's, with
//! [`LOCK_KEY`] mixed in: programs often use one key for a segment and a set of their own. A bare
//! segment has no such set, and its writers have to agree.

use switchboard_kernel as kernel;
use switchboard_kernel::fork::Opener;
use switchboard_kernel::sysv_sem::{self, Operation, SemaphoreSet};
use switchboard_kernel::sysv_shm::{Access, CreateOptions, Key, Segment, key_from_path, limits};

use super::state_memory::{has_a_writer, or_unlink};
use super::{Setup, StateMemory, WriterLock};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::object::{cannot_unlink, no_name};
use crate::pattern::state::{Layout, object_bytes, prepare_new};

/// Mixed into a segment's key, it gives that of the lock: `"SWlk"`.
const LOCK_KEY: i32 = 0x5357_6c6b;

pub(crate) fn open_writer(setup: &Setup) -> Result<(StateMemory, WriterLock), Error> {
    let address = &setup.address;
    let mut made = false;
    let segment = match open(address) {
        Err(error) if error.kind() == ErrorKind::NotFound && setup.options.wait => {
            match make(address) {
                // Somebody else was faster.
                Err(error) if error.kind() == ErrorKind::AddressInUse => open(address)?,
                result => {
                    made = true;
                    result?
                }
            }
        }
        result => result?,
    };
    or_unlink(address, unlink, made, ready(address, segment, made))
}

fn ready(
    address: &Address,
    segment: Segment,
    made: bool,
) -> Result<(StateMemory, WriterLock), Error> {
    let memory = attach(address, segment, Access::ReadWrite)?;
    let lock = lock(address, &memory)?;
    if made {
        prepare_new(address, &memory)?;
    }
    Ok((memory, lock))
}

pub(crate) fn open_reader(setup: &Setup) -> Result<StateMemory, Error> {
    attach(&setup.address, open(&setup.address)?, Access::ReadOnly)
}

/// Makes the segment, to stay until it is removed.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    let segment = make(address)?;
    or_unlink(address, unlink, true, ready(address, segment, true)).map(drop)
}

/// Removes the segment, and the set that is its lock. Who has it attached keeps it.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::SysvKey(key) = &address.target else { return Err(no_name(address)) };
    let removed = Segment::open(key).and_then(|segment| segment.remove());
    if let Ok(set) = lock_key(key).and_then(|key| SemaphoreSet::open(&key)) {
        // Somebody else may have removed it just now.
        let _ = set.remove();
    }
    removed.map_err(|error| cannot_unlink(address, error))
}

fn make(address: &Address) -> Result<Segment, Error> {
    let len = usize::try_from(object_bytes(address)).unwrap_or(usize::MAX);
    let options = CreateOptions::new().permissions(address.query.permissions()).exclusive(true);
    Segment::create(key(address)?, len, &options).map_err(|error| {
        let failed = Error::system(address, "cannot make the segment", error);
        let limits = limits();
        match error.call() {
            "shmget over shmmax" => failed.kinded(ErrorKind::LimitReached).hint(format!(
                "a segment has {} bytes at most: raise it with sysctl kernel.shmmax",
                limits.max_segment_bytes
            )),
            "shmget over shmall" => failed
                .kinded(ErrorKind::LimitReached)
                .hint("the pages of all segments are limited: raise it with sysctl kernel.shmall"),
            "shmget over shmmni" => failed.kinded(ErrorKind::LimitReached).hint(
                "the system has no more segments: raise it with sysctl kernel.shmmni, or remove \
                 some (ipcs -m shows them)",
            ),
            _ if error.kind() == kernel::ErrorKind::NotFound => {
                failed.hint("the path of a key has to exist: it is only a name, any file will do")
            }
            _ => failed,
        }
    })
}

fn open(address: &Address) -> Result<Segment, Error> {
    Segment::open(key(address)?).map_err(|error| match error.kind() {
        kernel::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, address, "there is no segment of this key")
        }
        _ => Error::system(address, "cannot open the segment", error),
    })
}

fn attach(address: &Address, segment: Segment, access: Access) -> Result<StateMemory, Error> {
    let attached = segment.attach(access).map(StateMemory::Attached);
    attached.map_err(|error| Error::system(address, "cannot attach the segment", error))
}

fn lock(address: &Address, memory: &StateMemory) -> Result<WriterLock, Error> {
    if address.query.layout == Some(Layout::Bare) {
        return Ok(WriterLock::Agreed);
    }
    let failed = |error| Error::system(address, "cannot lock it for writing", error);
    let options =
        sysv_sem::CreateOptions::new().values([1]).permissions(address.query.permissions());
    let key = lock_key(key(address)?).map_err(failed)?;
    let set = SemaphoreSet::create(&key, &options).map_err(failed)?;
    let opener = Opener::this().map_err(failed)?;
    match set.try_operate(&[Operation::take_one(0).undo()]) {
        Ok(()) => Ok(WriterLock::Undo(UndoLock { set, opener })),
        Err(error) if error.kind() == kernel::ErrorKind::WouldBlock => {
            Err(has_a_writer(address, memory))
        }
        Err(error) => Err(failed(error)),
    }
}

/// A semaphore that is taken, and put back on drop or by the kernel.
#[derive(Debug)]
pub(crate) struct UndoLock {
    set: SemaphoreSet,
    opener: Opener,
}

impl Drop for UndoLock {
    fn drop(&mut self) {
        // A child of fork would put back its parent's.
        if !self.opener.is_here() {
            return;
        }
        // If somebody removed the set, nothing is left to be put back.
        let _ = self.set.try_operate(&[Operation::add_one(0).undo()]);
    }
}

fn lock_key(key: &Key) -> kernel::Result<Key> {
    let number = match key {
        Key::Path { path, id } => key_from_path(path, *id)?,
        Key::Value(number) => *number,
        Key::Private => 0,
    };
    // 0 would be nobody's.
    Ok(Key::Value(match number ^ LOCK_KEY {
        0 => LOCK_KEY,
        mixed => mixed,
    }))
}

fn key(address: &Address) -> Result<&Key, Error> {
    match &address.target {
        Target::SysvKey(key) => Ok(key),
        _ => Err(Error::new(ErrorKind::BadAddress, address, "no key")),
    }
}

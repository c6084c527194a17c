//! `posix-shm:/NAME`: POSIX shared memory, which carries a state.
//!
//! Source: `shm_overview(7)`, `flock(2)`. The segment is made by its first writer, and stays until it
//! is unlinked: it outlives its processes, not a reboot.
//!
//! One writer at a time: it holds the lock of the segment's file, which the kernel releases when it
//! dies.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use switchboard_kernel as kernel;
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::posix_shm::{self, Access, Segment};

use super::state_memory::{lock_file, or_unlink};
use super::{Setup, StateMemory, WriterLock};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::object::{cannot_unlink, no_name};
use crate::pattern::state::{object_bytes, prepare_new};

pub(crate) fn open_writer(setup: &Setup) -> Result<(StateMemory, WriterLock), Error> {
    let address = &setup.address;
    let mut made = false;
    let segment = match open(address, Access::ReadWrite) {
        Err(error) if error.kind() == ErrorKind::NotFound && setup.options.wait => {
            match make(address) {
                // Somebody else was faster.
                Err(error) if error.kind() == ErrorKind::AddressInUse => {
                    open(address, Access::ReadWrite)?
                }
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
    let (memory, file) = map(address, segment, Mode::ReadWrite)?;
    let lock = lock_file(address, file, &memory)?;
    if made {
        prepare_new(address, &memory)?;
    }
    Ok((memory, lock))
}

pub(crate) fn open_reader(setup: &Setup) -> Result<StateMemory, Error> {
    let segment = open(&setup.address, Access::ReadOnly)?;
    map(&setup.address, segment, Mode::ReadOnly).map(|(memory, _)| memory)
}

/// Makes the segment, to stay until it is unlinked.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    let segment = make(address)?;
    or_unlink(address, unlink, true, ready(address, segment, true)).map(drop)
}

/// Removes its name. Who has it mapped keeps it.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::QueueName(name) = &address.target else { return Err(no_name(address)) };
    posix_shm::unlink(name).map_err(|error| cannot_unlink(address, error))
}

fn make(address: &Address) -> Result<Segment, Error> {
    let made = Segment::create(name(address)?, object_bytes(address), address.query.permissions());
    made.map_err(|error| {
        let failed = Error::system(address, "cannot make the segment", error);
        match error.name() {
            "ENOSPC" => failed
                .hint("/dev/shm is full: see df /dev/shm, and its size in mount(8) and fstab(5)"),
            "EFBIG" => failed.kinded(ErrorKind::LimitReached).hint(
                "files of this process may not be so long (RLIMIT_FSIZE): raise it with ulimit -f",
            ),
            _ => failed,
        }
    })
}

fn open(address: &Address, access: Access) -> Result<Segment, Error> {
    Segment::open(name(address)?, access).map_err(|error| match error.kind() {
        kernel::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, address, "there is no segment of this name")
        }
        _ => Error::system(address, "cannot open the segment", error),
    })
}

fn map(
    address: &Address,
    segment: Segment,
    mode: Mode,
) -> Result<(StateMemory, Arc<OwnedFd>), Error> {
    if segment.status().is_ok_and(|status| status.len_bytes == 0) {
        return Err(Error::new(ErrorKind::Mismatch, address, "the segment is empty")
            .hint("its size is fixed when it is created: unlink it, and create it with ?size="));
    }
    let mapping = segment
        .map(mode)
        .map_err(|error| Error::system(address, "cannot map the segment", error))?;
    let file = Arc::new(OwnedFd::from(segment));
    Ok((StateMemory::Mapped(mapping, Arc::clone(&file)), file))
}

fn name(address: &Address) -> Result<&str, Error> {
    match &address.target {
        Target::QueueName(name) => Ok(name),
        _ => Err(Error::new(ErrorKind::BadAddress, address, "no segment's name")),
    }
}

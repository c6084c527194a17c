//! `mmap:PATH`: a mapped file, which carries a state.
//!
//! Source: `mmap(2)`, `fallocate(2)`, `flock(2)`. The file is made by its first writer, and stays
//! until it is removed: it outlives processes and reboots. What is set reaches the disk within half a
//! minute or so, or when the writer says `sync`.
//!
//! One writer at a time: it holds the file's lock, which the kernel releases when it dies.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use switchboard_kernel as kernel;
use switchboard_kernel::mmap::{Mapping, Mode, create_file};

use super::state_memory::{lock_file, of_io, or_unlink};
use super::{Setup, StateMemory, WriterLock};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind};
use crate::object::{cannot_unlink, no_name};
use crate::pattern::state::{Layout, object_bytes, prepare_new, slots};

pub(crate) fn open_writer(setup: &Setup) -> Result<(StateMemory, WriterLock), Error> {
    let address = &setup.address;
    let mut made = false;
    let file = match open(path(address)?, true) {
        Err(error) if error.kind() == kernel::ErrorKind::NotFound && setup.options.wait => {
            match make(address) {
                // Somebody else was faster.
                Err(error) if error.kind() == kernel::ErrorKind::AlreadyExists => {
                    open(path(address)?, true)
                }
                result => {
                    made = true;
                    result
                }
            }
        }
        result => result,
    };
    let file = file.map_err(|error| explain(address, "cannot open the file", error))?;
    or_unlink(address, remove, made, ready(address, file, made))
}

fn ready(address: &Address, file: OwnedFd, made: bool) -> Result<(StateMemory, WriterLock), Error> {
    let file = Arc::new(file);
    let memory = map(address, &file, Mode::ReadWrite)?;
    let lock = lock_file(address, file, &memory)?;
    if made {
        prepare_new(address, &memory)?;
    }
    Ok((memory, lock))
}

pub(crate) fn open_reader(setup: &Setup) -> Result<StateMemory, Error> {
    let address = &setup.address;
    let file = open(path(address)?, false)
        .map_err(|error| explain(address, "cannot open the file", error))?;
    map(address, &Arc::new(file), Mode::ReadOnly)
}

/// Makes the file, to stay until it is removed.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    let file = make(address).map_err(|error| explain(address, "cannot make the file", error))?;
    or_unlink(address, remove, true, ready(address, file, true)).map(drop)
}

/// Removes the file's name, if a state is in the file. Who has it mapped keeps it.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::Path(path) = &address.target else { return Err(no_name(address)) };
    let failed = |error| cannot_unlink(address, of_io("open", &error));
    if let Some(problem) = foreign(address, path).map_err(failed)? {
        let hint = match address.query.layout {
            Some(Layout::Bare) => "if you mean this file, remove it with rm",
            _ => {
                "if you mean this file, remove it with rm, or with ?layout=bare if it is a state \
                 without versions"
            }
        };
        return Err(Error::new(ErrorKind::Mismatch, address, problem).hint(hint));
    }
    remove(address)
}

fn remove(address: &Address) -> Result<(), Error> {
    let removed = std::fs::remove_file(path(address)?);
    removed.map_err(|error| cannot_unlink(address, of_io("unlink", &error)))
}

/// Why what has this name is not a state of this address, if it is none.
fn foreign(address: &Address, path: &Path) -> std::io::Result<Option<&'static str>> {
    let kind = std::fs::symlink_metadata(path)?.file_type();
    if kind.is_symlink() {
        return Ok(Some("it is a symbolic link, not a state; it was not removed"));
    }
    if !kind.is_file() {
        return Ok(Some("it is not a file, so it is no state; it was not removed"));
    }
    // Every file can hold one without versions.
    if address.query.layout == Some(Layout::Bare) {
        return Ok(None);
    }
    let mut file = File::options().read(true).custom_flags(kernel::io::NONBLOCK).open(path)?;
    Ok((!slots::is_state(&mut file)?).then_some("the file holds no state; it was not removed"))
}

fn make(address: &Address) -> kernel::Result<OwnedFd> {
    let Target::Path(path) = &address.target else {
        return Err(kernel::Error::from_raw("open", 22));
    };
    create_file(path, object_bytes(address), address.query.permissions())
}

fn open(path: &Path, writable: bool) -> kernel::Result<OwnedFd> {
    let mut options = File::options();
    // A FIFO or a device is not waited for.
    options.read(true).write(writable).custom_flags(kernel::io::NONBLOCK);
    options.open(path).map(OwnedFd::from).map_err(|error| of_io("open", &error))
}

fn map(address: &Address, file: &Arc<OwnedFd>, mode: Mode) -> Result<StateMemory, Error> {
    let metadata = kernel::io::duplicate(file.as_fd())
        .map(File::from)
        .and_then(|file| file.metadata().map_err(|error| of_io("fstat", &error)))
        .map_err(|error| Error::system(address, "cannot look at the file", error))?;
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::Mismatch, address, "it is not a file"));
    }
    if metadata.len() == 0 {
        return Err(Error::new(ErrorKind::Mismatch, address, "the file is empty")
            .hint("its size is fixed when it is created: remove it, and create it with ?size="));
    }
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let mapping = Mapping::of_file(file, mode, 0, len);
    mapping
        .map(|mapping| StateMemory::Mapped(mapping, Arc::clone(file)))
        .map_err(|error| Error::system(address, "cannot map the file", error))
}

fn path(address: &Address) -> Result<&Path, Error> {
    match &address.target {
        Target::Path(path) => Ok(path),
        _ => Err(Error::new(ErrorKind::BadAddress, address, "no path")),
    }
}

fn explain(address: &Address, doing: &str, error: kernel::Error) -> Error {
    let failed = Error::system(address, doing, error);
    match error.kind() {
        kernel::ErrorKind::NotFound => {
            let folder = address.path().and_then(Path::parent);
            let no_folder =
                folder.is_some_and(|folder| !folder.as_os_str().is_empty() && !folder.exists());
            let problem =
                if no_folder { "there is no folder for it" } else { "there is no such file" };
            Error::new(ErrorKind::NotFound, address, problem)
        }
        _ if error.name() == "EFBIG" => failed.kinded(ErrorKind::LimitReached).hint(
            "files of this process may not be so long (RLIMIT_FSIZE): raise it with ulimit -f",
        ),
        _ => failed,
    }
}

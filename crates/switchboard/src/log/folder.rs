//! The folder of a log: its files and its locks. What the words of its bell say is in `bell`.

mod bell;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use switchboard_kernel::file_lock::{self, Guard, Lock, Range};
use switchboard_kernel::folder_file::{self as files, Access};
use switchboard_kernel::fork::Opener;
use switchboard_kernel::mmap::{Mapping, Mode};
use switchboard_kernel::{self as kernel, Permissions, process};

use super::content::{check_is_bell, check_is_log, hidden_pid, is_ours, is_readers};
use super::ends;
use super::making::{Hidden, make_log, make_long, of_folder, open_or_make};
use super::segment;
use super::table::LANES;
use crate::address::Address;
use crate::error::{Error, ErrorKind};

pub(crate) const LOCK: &str = "lock";
pub(crate) const BELL: &str = "bell";
/// Who has what, in a queue.
pub(crate) const TABLE: &str = "queue";
/// The places of named subscribers.
pub(crate) const READERS: &str = "readers";

pub(super) const BELL_BYTES: usize = 4096;
/// Somebody may wait.
pub(super) const FLAG_AT: usize = 8;
/// Messages of a queue were received: there was a table.
pub(super) const RECEIVED_AT: usize = 16;
/// A sender waits for room: it is told when messages are settled.
pub(super) const ROOM_AT: usize = 24;
/// Where the bell is written to.
pub(super) const RING_AT: usize = 64;
/// For each lane, what is known of its end, so that it is missed when it is removed.
pub(super) const ENDS_AT: usize = 1024;
const NAMES: &str = "cannot write the log's names to the disk";
const END_BYTES: usize = 8 * ends::WORDS;
pub(super) const ENDS_BYTES: usize = END_BYTES * LANES;
const _: () = assert!(ENDS_AT + ENDS_BYTES <= BELL_BYTES);

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) address: Address,
    path: PathBuf,
    /// Whatever has the path later, files are found here. Links in it are not followed.
    this: OwnedFd,
    permissions: Permissions,
    lock: File,
    bell: File,
    page: Mapping,
    /// A child of `fork` has copies of its locks, which are one with its parent's.
    opener: Opener,
    /// Counts looks at a bell whose page is gone: it says nothing any more, and anything may have changed.
    looks: AtomicU64,
}

impl Folder {
    /// Opens the folder of a log. With `make` it is made where it is not there.
    ///
    /// # Errors
    /// `NotFound` without `make`; `Mismatch`: the folder holds something else, and nothing was changed; what the
    /// system says.
    pub(crate) fn open(address: &Address, make: bool) -> Result<Self, Error> {
        let path =
            address.path().ok_or_else(|| Error::new(ErrorKind::BadAddress, address, "no path"))?;
        let permissions = address.query.permissions();
        let this = match files::open_folder(path) {
            Ok(this) => this,
            Err(error) if error.name() == "ENOTDIR" && path.symlink_metadata().is_ok() => {
                let problem = "something that is not a folder has this name";
                return Err(Error::new(ErrorKind::AddressInUse, address, problem)
                    .hint("a log is a folder; choose another name"));
            }
            Err(error) if error.name() == "ENOENT" && make => make_log(path, permissions)
                .map_err(|error| Error::system(address, "cannot make the log", error))?,
            Err(error) if error.name() == "ENOENT" => {
                let problem = "there is no log of this name";
                return Err(Error::new(ErrorKind::NotFound, address, problem));
            }
            Err(error) => return Err(Error::system(address, "cannot open the log", error)),
        };
        check_is_log(&this, path, address, make)?;
        let open = |name: &str, bytes: u64| {
            open_or_make(this.as_fd(), name, &permissions, bytes)
                .map_err(|error| cannot_open(address, name, error))
        };
        let (lock, bell) = (open(LOCK, 0)?, open(BELL, BELL_BYTES as u64)?);
        check_is_bell(&bell, path, address)?;
        let found = bell.metadata().map_err(|error| system(address, "fstat", BELL, error))?;
        if found.len() < BELL_BYTES as u64 {
            // What a power cut left, or somebody who cut it: it is as good as a new one.
            make_long(&bell, BELL_BYTES as u64)
                .map_err(|error| Error::system(address, "cannot repair the log's bell", error))?;
        }
        let page = Mapping::of_file(&bell, Mode::ReadWrite, 0, BELL_BYTES)
            .map_err(|error| Error::system(address, "cannot map the log's bell", error))?;
        let permissions = permissions_like(&found, address);
        let (address, path, looks) = (address.clone(), path.to_owned(), AtomicU64::new(0));
        let opener = Opener::this()
            .map_err(|error| Error::system(&address, "cannot open the log", error))?;
        Ok(Self { address, path, this, permissions, lock, bell, page, opener, looks })
    }

    /// Opens the folder of a log that is there, to read it: without its locks, and without asking to be
    /// woken. What waits looks by itself.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open_to_read(address: &Address) -> Result<Self, Error> {
        let path =
            address.path().ok_or_else(|| Error::new(ErrorKind::BadAddress, address, "no path"))?;
        let this = files::open_folder(path)
            .map_err(|error| Error::system(address, "cannot open the log", error))?;
        let open = |name: &str| {
            let opened = files::open(&this, OsStr::new(name), Access::Read);
            opened.map(File::from).map_err(|error| cannot_open(address, name, error))
        };
        let (lock, bell) = (open(LOCK)?, open(BELL)?);
        check_is_bell(&bell, path, address)?;
        if bell.metadata().is_ok_and(|found| found.len() < BELL_BYTES as u64) {
            let problem = "the log's bell is cut off";
            return Err(Error::new(ErrorKind::Mismatch, address, problem)
                .hint("who may write to the log repairs it by opening it"));
        }
        let page = Mapping::of_file(&bell, Mode::ReadOnly, 0, BELL_BYTES)
            .map_err(|error| Error::system(address, "cannot map the log's bell", error))?;
        let permissions = address.query.permissions();
        let (address, path, looks) = (address.clone(), path.to_owned(), AtomicU64::new(0));
        let opener = Opener::this()
            .map_err(|error| Error::system(&address, "cannot open the log", error))?;
        Ok(Self { address, path, this, permissions, lock, bell, page, opener, looks })
    }

    /// Whether this is the process that opened it, and no child of `fork`.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.opener.is_here()
    }

    /// # Errors
    /// This is a child of `fork`: what it wrote, its parent would write over, and what it took, its parent has too.
    #[inline]
    pub(crate) fn here(&self) -> Result<(), Error> {
        if self.is_here() { Ok(()) } else { Err(Error::of_parent(&self.address)) }
    }

    /// The path of the file to watch.
    pub(crate) fn bell_path(&self) -> PathBuf {
        self.path.join(BELL)
    }

    /// Opens a file of the log: a plain one, whatever somebody put there.
    pub(crate) fn open_file(&self, name: &str, access: Access) -> kernel::Result<File> {
        files::open(&self.this, OsStr::new(name), access).map(File::from)
    }

    /// The error of [`open_file`](Self::open_file).
    pub(crate) fn cannot_open(&self, name: &str, error: kernel::Error) -> Error {
        cannot_open(&self.address, name, error)
    }

    /// Opens the file of a segment.
    pub(crate) fn open_segment(
        &self,
        lane: u32,
        number: u64,
        access: Access,
    ) -> kernel::Result<File> {
        self.open_file(&segment::file_name(lane, number), access)
    }

    /// The header of a segment, if it holds.
    pub(crate) fn header(&self, lane: u32, number: u64) -> Option<segment::Header> {
        let file = self.open_segment(lane, number, Access::Read).ok()?;
        let mut bytes = [0; segment::HEADER_BYTES];
        file.read_exact_at(&mut bytes, 0).ok()?;
        let header = segment::Header::parse(&bytes).ok()?;
        (header.lane == lane && header.segment == number).then_some(header)
    }

    /// The length of a segment's file, if it is one.
    pub(crate) fn segment_bytes(&self, lane: u32, number: u64) -> Option<u64> {
        let file = self.open_segment(lane, number, Access::Read).ok()?;
        file.metadata().ok().map(|found| found.len())
    }

    /// An error of a system call that was made with an open file of this log.
    pub(crate) fn system(&self, call: &'static str, doing: &str, error: io::Error) -> Error {
        system(&self.address, call, doing, error)
    }

    pub(crate) fn kernel(&self, doing: &str, error: kernel::Error) -> Error {
        Error::system(&self.address, doing, error)
    }

    /// A lane that nobody writes, locked until it is [left](Self::leave_lane).
    ///
    /// # Errors
    /// `LimitReached` when all are taken.
    pub(crate) fn take_lane(&self) -> Result<u32, Error> {
        for lane in 0..LANES as u32 {
            if self.try_lock(&self.lock, lane.into())? {
                return Ok(lane);
            }
        }
        let problem = format!("{LANES} senders use this log at the same time; it takes no more");
        Err(Error::new(ErrorKind::LimitReached, &self.address, problem))
    }

    /// Whether somebody writes a lane now.
    pub(crate) fn is_written(&self, lane: u32) -> bool {
        byte_lock(lane.into()).holder(&self.lock).is_ok_and(|holder| holder.is_some())
    }

    /// Locks a byte of a file until the file is closed, if nobody else has it.
    pub(crate) fn try_lock(&self, file: &File, byte: u64) -> Result<bool, Error> {
        match byte_lock(byte).try_lock(file) {
            Ok(guard) => Ok(guard.map(Guard::keep).is_some()),
            Err(error) => Err(self.kernel("cannot lock the log", error)),
        }
    }

    /// Lets go of a byte that is locked by this file. Closing the file might not: a child that another
    /// thread is just about to start has a copy of the descriptor.
    pub(crate) fn unlock(file: &File, byte: u64) {
        // Who asks again for what it has gets it, to be unlocked.
        if let Ok(Some(guard)) = byte_lock(byte).try_lock(file) {
            drop(guard);
        }
    }

    /// Lets go of a lane.
    pub(crate) fn leave_lane(&self, lane: u32) {
        Self::unlock(&self.lock, lane.into());
    }

    /// Every segment, by lane and number.
    pub(crate) fn segments(&self) -> Result<Vec<(u32, u64)>, Error> {
        let entries = files::entries(&self.this)
            .map_err(|error| self.kernel("cannot list the log", error))?;
        let mut found: Vec<(u32, u64)> = entries
            .iter()
            .filter_map(|(name, _)| name.to_str().and_then(segment::parse_name))
            .filter(|(lane, _)| (*lane as usize) < LANES)
            .collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Makes a file with its content, owner and mode, under a name that is free or replaced.
    pub(crate) fn make_file(
        &self,
        name: &str,
        bytes: u64,
        prepare: impl FnOnce(&File),
        content: &[u8],
    ) -> Result<File, Error> {
        let failed = |error| self.kernel("cannot make a file of the log", error);
        let hidden = Hidden::make(self.this.as_fd(), &self.permissions, bytes).map_err(failed)?;
        prepare(&hidden.file);
        kernel::io::write_all_at(&hidden.file, content, 0).map_err(failed)?;
        hidden.replace(&self.this, name).map_err(failed)
    }

    /// Makes a file that nobody finds until it is [shown](Self::show).
    pub(crate) fn make_hidden(&self, bytes: u64) -> Result<Hidden<'_>, Error> {
        Hidden::make(self.this.as_fd(), &self.permissions, bytes)
            .map_err(|error| self.kernel("cannot make a file of the log", error))
    }

    /// Opens the folder `readers`, if it is there.
    pub(crate) fn readers(&self) -> kernel::Result<OwnedFd> {
        files::open_folder_at(&self.this, OsStr::new(READERS))
    }

    /// Opens the folder `readers`, and makes it where it is not there.
    pub(crate) fn make_readers(&self) -> Result<OwnedFd, Error> {
        loop {
            match self.readers() {
                Err(error) if error.name() == "ENOENT" => {}
                opened => return opened.map_err(|error| self.cannot_open(READERS, error)),
            }
            let permissions = of_folder(self.permissions);
            match files::make_folder_at(&self.this, OsStr::new(READERS), permissions) {
                // Somebody else was faster.
                Err(error) if error.name() == "EEXIST" => {}
                made => {
                    let failed = |error| self.kernel("cannot make a folder of the log", error);
                    return made.map_err(failed);
                }
            }
        }
    }

    /// Sees to it that the names in the log are on the disk, and its own.
    pub(crate) fn sync_names(&self) -> Result<(), Error> {
        self.sync_names_in()?;
        files::sync_parent(&self.this).map_err(|error| self.kernel(NAMES, error))
    }

    /// The same of the names in the log alone, whose own was synced.
    pub(crate) fn sync_names_in(&self) -> Result<(), Error> {
        files::sync(&self.this).map_err(|error| self.kernel(NAMES, error))
    }

    /// Removes hidden files that a dead sender left, when nobody else makes files.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = files::entries(&self.this) else { return };
        for (name, _) in entries {
            let Some(pid) = name.to_str().and_then(hidden_pid) else { continue };
            if !Path::new("/proc").join(pid.to_string()).exists() {
                let _ = files::remove(&self.this, &name);
            }
        }
    }

    /// Removes a segment. Whether it is gone: a folder of that name stays.
    pub(crate) fn remove_segment(&self, lane: u32, number: u64) -> Result<bool, Error> {
        let name = segment::file_name(lane, number);
        match files::remove(&self.this, OsStr::new(&name)) {
            Err(error) if error.name() == "EISDIR" => Ok(false),
            Err(error) if error.name() != "ENOENT" => {
                Err(self.kernel("cannot remove a segment", error))
            }
            // Two may remove the same one.
            _ => Ok(true),
        }
    }

    /// Removes the files of the log, and nothing else that is in the folder.
    pub(crate) fn remove_files(&self) -> kernel::Result<()> {
        for (name, kind) in files::entries(&self.this)? {
            if is_readers(&name, kind) {
                let readers = self.readers()?;
                for (place, _) in files::entries(&readers)? {
                    files::remove(&readers, &place)?;
                }
                kernel::private_folder::remove_at(&self.this, &name)?;
            } else if is_ours(&name, kind) {
                files::remove(&self.this, &name)?;
            }
        }
        Ok(())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.this.as_fd()
    }
}

pub(super) fn system(
    address: &Address,
    call: &'static str,
    doing: &str,
    error: io::Error,
) -> Error {
    const EIO: i32 = 5;
    let errno = error.raw_os_error().unwrap_or(EIO);
    Error::system(address, doing, kernel::Error::from_raw(call, errno))
}

/// The error of opening a file of a log, which is named.
pub(super) fn cannot_open(address: &Address, name: &str, error: kernel::Error) -> Error {
    if !files::is_no_file(error) && error.name() != "ENOTDIR" {
        return Error::system(address, &format!("cannot open {name} of the log"), error);
    }
    let is = match error.name() {
        "ELOOP" | "ENOTDIR" => "a link, or no folder",
        "EISDIR" => "a folder",
        "EMLINK" => "a file that has another name, too",
        _ => "no file",
    };
    Error::new(ErrorKind::Mismatch, address, format!("{name} of the log is {is}"))
        .hint("no log makes that, and it is not used: look who did, and remove it")
}

/// The exclusive lock of one byte, which belongs to an open file and not to a process.
pub(crate) fn byte_lock(byte: u64) -> Lock {
    Lock::open_file(file_lock::Mode::Exclusive).range(Range { start: byte, len_bytes: 1 })
}

/// Whose new files are: as the address says, or else like the bell, so that those who share a log need not
/// say it again.
fn permissions_like(bell: &std::fs::Metadata, address: &Address) -> Permissions {
    let query = &address.query;
    let mut permissions = query.permissions();
    if query.mode.is_none() {
        permissions = permissions.mode(bell.mode() & 0o666);
    }
    let group = bell.gid();
    let may_give = process::effective_user_id() == 0 || process::is_in_group(group);
    if permissions.group.is_none() && group != process::effective_group_id() && may_give {
        permissions.group = Some(group);
    }
    permissions
}

//! The folder of a log: its files, its locks and its bell.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind as Io};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, fence};

use switchboard_kernel::file_lock::{self, Guard, Lock, Range};
use switchboard_kernel::mmap::{self, Mapping, Mode};
use switchboard_kernel::process;
use switchboard_kernel::{self as kernel, Permissions};

use super::content::{hidden_pid, is_ours, is_readers};
use super::segment;
use super::table::LANES;
use crate::address::Address;
use crate::error::{Error, ErrorKind};

pub(super) const LOCK: &str = "lock";
pub(super) const BELL: &str = "bell";
/// Who has what, in a queue.
pub(crate) const TABLE: &str = "queue";
/// The places of named subscribers.
pub(crate) const READERS: &str = "readers";

pub(super) const BELL_BYTES: usize = 4096;
/// Counts segments made.
const GENERATION_AT: usize = 0;
/// Somebody may wait.
pub(super) const FLAG_AT: usize = 8;
/// Messages of a queue were received: there was a table.
pub(super) const RECEIVED_AT: usize = 16;
/// Where the bell is written to.
pub(super) const RING_AT: usize = 64;
/// For each lane, what is known of its end, so that it is missed when it is removed: the number of its newest
/// segment, and a number that no message there is to have again.
pub(super) const ENDS_AT: usize = 1024;
const END_BYTES: usize = 16;
pub(super) const ENDS_BYTES: usize = END_BYTES * LANES;

/// An open folder.
#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) address: Address,
    path: PathBuf,
    permissions: Permissions,
    lock: File,
    bell: File,
    page: Mapping,
}

impl Folder {
    /// Opens the folder of a log. With `make` it is made where it is not there.
    ///
    /// # Errors
    /// `NotFound` without `make`; what the system says.
    pub(crate) fn open(address: &Address, make: bool) -> Result<Self, Error> {
        let path =
            address.path().ok_or_else(|| Error::new(ErrorKind::BadAddress, address, "no path"))?;
        let permissions = address.query.permissions();
        match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                let problem = "something that is not a folder has this name";
                return Err(Error::new(ErrorKind::AddressInUse, address, problem)
                    .hint("a log is a folder; choose another name"));
            }
            Ok(_) if !make && !holds_log(path) => {
                let problem = "there is no log of this name, but another folder";
                return Err(Error::new(ErrorKind::NotFound, address, problem));
            }
            Ok(_) => {}
            Err(error) if error.kind() == Io::NotFound && make => {
                match make_folder(path, &permissions) {
                    // Somebody else was faster.
                    Err(error) if error.kind() == Io::AlreadyExists => {}
                    made => made.map_err(|error| system(address, "cannot make the log", error))?,
                }
            }
            Err(error) if error.kind() == Io::NotFound => {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    address,
                    "there is no log of this name",
                ));
            }
            Err(error) => return Err(system(address, "cannot open the log", error)),
        }
        let open = |name: &str, bytes: u64| {
            open_or_make(&path.join(name), &permissions, bytes)
                .map_err(|error| system(address, "cannot open the log", error))
        };
        let (lock, bell) = (open(LOCK, 0)?, open(BELL, BELL_BYTES as u64)?);
        let page = Mapping::of_file(&bell, Mode::ReadWrite, 0, BELL_BYTES)
            .map_err(|error| Error::system(address, "cannot map the log's bell", error))?;
        let permissions = permissions_like(&bell, address)
            .map_err(|error| system(address, "cannot open the log", error))?;
        Ok(Self { address: address.clone(), path: path.to_owned(), permissions, lock, bell, page })
    }

    /// Opens the folder of a log that is there, to read it: without its locks, and without asking to be
    /// woken. What waits looks by itself.
    ///
    /// # Errors
    /// What the system says.
    pub(crate) fn open_to_read(address: &Address) -> Result<Self, Error> {
        let path =
            address.path().ok_or_else(|| Error::new(ErrorKind::BadAddress, address, "no path"))?;
        let open = |name: &str| {
            let opened = File::open(path.join(name));
            opened.map_err(|error| system(address, "cannot open the log", error))
        };
        let (lock, bell) = (open(LOCK)?, open(BELL)?);
        let page = Mapping::of_file(&bell, Mode::ReadOnly, 0, BELL_BYTES)
            .map_err(|error| Error::system(address, "cannot map the log's bell", error))?;
        let permissions = address.query.permissions();
        Ok(Self { address: address.clone(), path: path.to_owned(), permissions, lock, bell, page })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the file to watch.
    pub(crate) fn bell_path(&self) -> PathBuf {
        self.path.join(BELL)
    }

    pub(crate) fn segment_path(&self, lane: u32, number: u64) -> PathBuf {
        self.path.join(segment::file_name(lane, number))
    }

    /// An error of a system call made for this log.
    pub(crate) fn system(&self, doing: &str, error: io::Error) -> Error {
        system(&self.address, doing, error)
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
        let failed = |error| self.system("cannot list the log", error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some((lane, number)) = name.to_str().and_then(segment::parse_name)
                && (lane as usize) < LANES
            {
                found.push((lane, number));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Makes a file with its content, owner and mode, under a name that is free or replaced.
    pub(crate) fn make_file(&self, path: &Path, bytes: u64, content: &[u8]) -> Result<File, Error> {
        let failed = |error| self.system("cannot make a file of the log", error);
        let (file, hidden) = hidden_file(path, &self.permissions, bytes).map_err(failed)?;
        let result = file.write_all_at(content, 0).and_then(|()| std::fs::rename(&hidden, path));
        match result {
            Ok(()) => Ok(file),
            Err(error) => {
                let _ = std::fs::remove_file(&hidden);
                Err(failed(error))
            }
        }
    }

    /// Opens a file of the log that is made, empty, where it is not there.
    pub(crate) fn open_or_make(&self, path: &Path) -> Result<File, Error> {
        open_or_make(path, &self.permissions, 0)
            .map_err(|error| self.system("cannot open a file of the log", error))
    }

    /// Makes the folder `readers`.
    pub(crate) fn make_readers(&self) -> Result<PathBuf, Error> {
        let path = self.path.join(READERS);
        match make_folder(&path, &self.permissions) {
            Ok(()) => Ok(path),
            Err(error) if error.kind() == Io::AlreadyExists => Ok(path),
            Err(error) => Err(self.system("cannot make a folder of the log", error)),
        }
    }

    /// Removes hidden files that a dead sender left, when nobody else makes files.
    pub(crate) fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(hidden_pid) else { continue };
            if !Path::new("/proc").join(pid.to_string()).exists() {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Removes a segment.
    pub(crate) fn remove_segment(&self, lane: u32, number: u64) -> Result<(), Error> {
        match std::fs::remove_file(self.segment_path(lane, number)) {
            Err(error) if error.kind() != Io::NotFound => {
                Err(self.system("cannot remove a segment", error))
            }
            // Two may remove the same one.
            _ => Ok(()),
        }
    }

    /// Removes the files of the log, and nothing else that is in the folder.
    pub(crate) fn remove_files(&self) -> io::Result<()> {
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if is_readers(&entry)? {
                for place in std::fs::read_dir(entry.path())? {
                    std::fs::remove_file(place?.path())?;
                }
                std::fs::remove_dir(entry.path())?;
            } else if is_ours(&entry) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// A word of the bell; `None` where it may only be read.
    fn word(&self, at: usize) -> Option<&AtomicU64> {
        self.page.atomic_u64(at).ok()
    }

    /// Changes when there are new segments.
    pub(crate) fn generation(&self) -> u64 {
        // It acquires: pairs with the count of `changed`. The page is as long as the word needs.
        self.page.load_u64(GENERATION_AT).unwrap_or(0)
    }

    /// How far a lane was written, as far as that was noted: its newest segment, and the number of the
    /// next message.
    pub(crate) fn noted_end(&self, lane: u32) -> (u64, u64) {
        // The lane is locked by who asks, so that nobody changes them meanwhile.
        let word = |at| self.page.load_u64(Self::end_at(lane) + at).unwrap_or(0);
        (word(0), word(8))
    }

    /// Notes how far a lane is written: when a segment is made, and when its sender ends.
    pub(crate) fn note_end(&self, lane: u32, segment: u64, sequence: u64) {
        for (at, value) in [(0, segment), (8, sequence)] {
            if let Some(word) = self.word(Self::end_at(lane) + at) {
                word.store(value, Relaxed);
            }
        }
    }

    fn end_at(lane: u32) -> usize {
        ENDS_AT + END_BYTES * lane as usize
    }

    /// Whether somebody received from the queue.
    pub(crate) fn was_received_from(&self) -> bool {
        self.page.load_u64(RECEIVED_AT).unwrap_or(0) != 0
    }

    /// Notes that somebody received from the queue, once the table says so: it is missed if it is removed.
    pub(crate) fn note_received(&self) {
        if !self.was_received_from()
            && let Some(word) = self.word(RECEIVED_AT)
        {
            word.store(1, Relaxed);
        }
    }

    /// There is a new segment, or one less.
    pub(crate) fn changed(&self) {
        if let Some(generation) = self.word(GENERATION_AT) {
            generation.fetch_add(1, SeqCst);
        }
        self.ring();
    }

    /// Wakes whoever waits. After a change; one fence and one load when nobody does.
    #[inline]
    pub(crate) fn ring(&self) {
        // Pairs with the fence of `raise`: either this sees the flag, or the waiter sees the change.
        fence(SeqCst);
        if let Some(flag) = self.word(FLAG_AT)
            && flag.load(Relaxed) != 0
        {
            self.ring_out(flag);
        }
    }

    #[cold]
    fn ring_out(&self, flag: &AtomicU64) {
        flag.store(0, Relaxed);
        // A bell that cannot be written wakes nobody; they look again by themselves.
        let _ = self.bell.write_at(&[1], RING_AT as u64);
    }

    /// Asks to be woken by the next change, where that is allowed. Look once more after it.
    pub(crate) fn raise(&self) {
        if let Some(flag) = self.word(FLAG_AT) {
            flag.store(1, Relaxed);
            fence(SeqCst);
        }
    }
}

fn system(address: &Address, doing: &str, error: io::Error) -> Error {
    const EIO: i32 = 5;
    let errno = error.raw_os_error().unwrap_or(EIO);
    Error::system(address, doing, kernel::Error::from_raw("file", errno))
}

/// The exclusive lock of one byte, which belongs to an open file and not to a process.
pub(crate) fn byte_lock(byte: u64) -> Lock {
    Lock::open_file(file_lock::Mode::Exclusive).range(Range { start: byte, len_bytes: 1 })
}

/// Whether a folder holds a log, or a part of one. Where it cannot be looked into, opening the log says
/// why.
pub(crate) fn holds_log(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return true };
    entries.flatten().any(|entry| is_ours(&entry))
}

/// Whose new files are: as the address says, or else like the bell, so that those who share a log need not
/// say it again.
fn permissions_like(bell: &File, address: &Address) -> io::Result<Permissions> {
    let query = &address.query;
    let mut permissions = query.permissions();
    let found = bell.metadata()?;
    if query.mode.is_none() {
        permissions = permissions.mode(found.mode() & 0o666);
    }
    let group = found.gid();
    let may_give = process::effective_user_id() == 0 || process::is_in_group(group);
    if permissions.group.is_none() && group != process::effective_group_id() && may_give {
        permissions.group = Some(group);
    }
    Ok(permissions)
}

fn make_folder(path: &Path, permissions: &Permissions) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    let mode = permissions.mode;
    // Who may read a file may enter the folder.
    let mode = mode | (mode & 0o444) >> 2;
    let result = std::os::unix::fs::chown(path, permissions.owner, permissions.group)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)));
    if result.is_err() {
        let _ = std::fs::remove_dir(path);
    }
    result
}

fn open_or_make(path: &Path, permissions: &Permissions, bytes: u64) -> io::Result<File> {
    loop {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => return Ok(file),
            Err(error) if error.kind() == Io::NotFound => {}
            Err(error) => return Err(error),
        }
        let (file, hidden) = hidden_file(path, permissions, bytes)?;
        // Of several that make it at the same time one wins.
        let linked = std::fs::hard_link(&hidden, path);
        let _ = std::fs::remove_file(&hidden);
        match linked {
            Ok(()) => return Ok(file),
            Err(error) if error.kind() == Io::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

/// A file that nobody looks for, with owner and mode. Its name is unique while the process lives.
fn hidden_file(path: &Path, permissions: &Permissions, bytes: u64) -> io::Result<(File, PathBuf)> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Relaxed);
    let hidden = path.with_file_name(format!(".new-{}-{count}", std::process::id()));
    let _ = std::fs::remove_file(&hidden);
    let file =
        OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&hidden)?;
    let result = mmap::set_len(&file, bytes)
        .map_err(io::Error::from)
        .and_then(|()| std::os::unix::fs::fchown(&file, permissions.owner, permissions.group))
        .and_then(|()| file.set_permissions(std::fs::Permissions::from_mode(permissions.mode)));
    match result {
        Ok(()) => Ok((file, hidden)),
        Err(error) => {
            let _ = std::fs::remove_file(&hidden);
            Err(error)
        }
    }
}

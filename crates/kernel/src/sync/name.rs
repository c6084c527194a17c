//! Names of synchronisation objects: a file each, that goes with its last user.
//!
//! Source: `fcntl(2)` (open file description locks), `open(2)` (`O_TMPFILE`), `shm_overview(7)`.
//!
//! Who uses an object holds a shared lock on its file, which the kernel releases when the process dies.
//! Who stops using it lets go and then asks for the exclusive lock: only the last one gets it, and
//! removes the file. Who finds a file without any user finds what killed processes left: it removes
//! it and makes a new one.
//!
//! The shared lock is on the bytes before [`FREE_FROM`], the exclusive one on all. So a lock of whoever uses
//! the object on one of the bytes after it, which the file never has, keeps the name and nothing else.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::object::refused;
use crate::error::{Error, OfCall, Result};
use crate::file_lock::{self, Guard, Lock, Range};
use crate::hidden_name::{Place, descriptor_path};
use crate::io::{Deadline, retry};
use crate::mmap::reserve;
use crate::permissions::Permissions;
use crate::shared_words::SharedWords;

/// Longest name, in bytes (`NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// From this byte of a name's file on, a lock of the kind [`Lock::open_file`] keeps the name from being
/// removed, and means nothing else to the library. A descriptor for it is one of the file opened anew
/// (`/proc/self/fd`, by that of [`Shared::memory`](super::Shared::memory)), for copies share their locks.
pub const FREE_FROM: u64 = 1 << 40;

/// How long somebody may keep the exclusive lock before it is taken for somebody who does harm.
const REMOVAL: Duration = Duration::from_secs(1);

/// The name of a synchronisation object, and the permissions of a new one.
///
/// A plain name is of this user alone: a file in `/dev/shm/switchboard-UID`, a folder with mode 0700.
/// A path that begins with `/` is the file itself, for objects that several users share: their
/// permissions are those of the file, and a folder on a tmpfs is the right place.
///
/// ```
/// use switchboard_kernel::Permissions;
/// use switchboard_kernel::sync::Name;
///
/// let mine = Name::new("backup")?;
/// let ours = Name::new("/dev/shm/robots-arm")?.permissions(Permissions::new().mode(0o660));
/// assert!(mine.path().ends_with("backup") && ours.path().ends_with("robots-arm"));
/// assert!(Name::new("a/b").is_err());
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    path: PathBuf,
    permissions: Permissions,
    /// Whether the folder is the user's own, to be made and swept here.
    own_folder: bool,
}

impl Name {
    /// A name, or the path of a file.
    ///
    /// # Errors
    /// `EINVAL`: empty, `.`, `..`, a relative path, or a name that begins with a dot; `ENAMETOOLONG`:
    /// over [`NAME_MAX`] bytes.
    pub fn new(name: &str) -> Result<Self> {
        let last = if name.starts_with('/') { name.rsplit('/').next() } else { Some(name) };
        let last = last.unwrap_or_default();
        if last.is_empty() || last.starts_with('.') || last.contains(['/', '\0']) {
            return Err(refused(Errno::INVAL));
        }
        if last.len() > NAME_MAX {
            return Err(refused(Errno::NAMETOOLONG));
        }
        let own_folder = !name.starts_with('/');
        let path = if own_folder { own_folder_path().join(name) } else { PathBuf::from(name) };
        Ok(Self { path, permissions: Permissions::new(), own_folder })
    }

    /// Owner, group and mode of the object if it is made; 0600 unless said otherwise. Whoever may
    /// use the object may write to the file.
    #[must_use]
    pub fn permissions(mut self, permissions: Permissions) -> Self {
        self.permissions = permissions;
        self
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lets go of an object that this process uses by this name, as dropping the object does: for one that
    /// ends while another of its threads still waits for the object.
    pub fn leave(&self, memory: &SharedWords) {
        leave(&self.path, memory.as_fd());
    }

    /// The object's memory, made by `make` if there is none.
    pub(super) fn open_or_make(
        &self,
        len_bytes: usize,
        mut make: impl FnMut(&SharedWords) -> Result<()>,
    ) -> Result<(SharedWords, Named)> {
        let deadline = Deadline::after(REMOVAL);
        if self.own_folder {
            self.sweep();
        }
        // The last user of another name removes the folder.
        let folder_went =
            |error: &Error| self.own_folder && error.errno() == libc::ENOENT && !deadline.passed();
        let mut made = None;
        loop {
            if self.own_folder {
                make_own_folder()?;
            }
            match self.open_existing(deadline)? {
                Existing::None => {}
                Existing::Used(fd) => {
                    let memory = SharedWords::from_unsealed_fd(&fd)?;
                    return Ok((memory, self.used(fd)));
                }
                Existing::Left(fd) => {
                    let memory = make_anew(&fd, len_bytes, &mut make)?;
                    return Ok((memory, self.used(fd)));
                }
            }
            if made.is_none() {
                made = match self.make_unnamed(len_bytes, &mut make) {
                    Err(error) if folder_went(&error) => continue,
                    other => Some(other?),
                };
            }
            let Some((fd, _)) = &made else { continue };
            match self.show(fd) {
                Ok(()) => {}
                Err(error) if folder_went(&error) => continue,
                // Somebody else was faster, or is removing an old one.
                Err(error) if error.errno() == libc::EEXIST && !deadline.passed() => continue,
                Err(error) => return Err(error),
            }
            if let Some((fd, memory)) = made {
                return Ok((memory, self.used(fd)));
            }
        }
    }

    fn used(&self, fd: OwnedFd) -> Named {
        Named { path: self.path.clone(), fd, process: std::process::id() }
    }

    /// The file, with the lock that goes with its state.
    fn open_existing(&self, deadline: Deadline) -> Result<Existing> {
        loop {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let fd = match rustix::fs::open(&self.path, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => return Ok(Existing::None),
                Err(errno) => return Err(Error::new("open", errno)),
            };
            let stat = rustix::fs::fstat(&fd).of("fstat")?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(refused(Errno::INVAL));
            }
            let exclusive = lock(file_lock::Mode::Exclusive).try_lock(&fd)?.map(Guard::keep);
            if exclusive.is_some() {
                // Nobody uses it: all who did were killed. Closing it lets go of the lock.
                check_ours(&fd)?;
                match remove_if_same(&self.path, &fd) {
                    Ok(()) => continue,
                    // In a folder like /dev/shm only its owner may remove it.
                    Err(error) if [libc::EPERM, libc::EACCES].contains(&error.errno()) => {
                        return Ok(Existing::Left(fd));
                    }
                    Err(error) => return Err(error),
                }
            }
            check_ours(&fd)?;
            match lock(file_lock::Mode::Shared).lock_until(&fd, deadline)? {
                Some(shared) => shared.keep(),
                None => return Err(refused(Errno::BUSY)),
            }
            if rustix::fs::fstat(&fd).of("fstat")?.st_nlink > 0 {
                return Ok(Existing::Used(fd));
            }
        }
    }

    /// A file without a name, with the object in it and the shared lock.
    fn make_unnamed(
        &self,
        len_bytes: usize,
        make: &mut impl FnMut(&SharedWords) -> Result<()>,
    ) -> Result<(OwnedFd, SharedWords)> {
        let place = Place::of(&self.path, OFlags::PATH)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = retry("open", || rustix::fs::openat(place.folder(), c".", flags, Mode::empty()))?;
        reserve(&fd, u64::try_from(len_bytes).unwrap_or(u64::MAX))?;
        let memory = SharedWords::from_unsealed_fd(&fd)?;
        make(&memory)?;
        self.permissions.apply(&fd)?;
        match lock(file_lock::Mode::Shared).try_lock(&fd)? {
            Some(shared) => shared.keep(),
            None => return Err(refused(Errno::BUSY)),
        }
        Ok((fd, memory))
    }

    /// Gives the file its name.
    fn show(&self, fd: &OwnedFd) -> Result<()> {
        let place = Place::of(&self.path, OFlags::PATH)?;
        let unnamed = descriptor_path(fd.as_fd());
        rustix::fs::linkat(CWD, unnamed, place.folder(), place.name(), AtFlags::SYMLINK_FOLLOW)
            .of("linkat")
    }

    /// Removes what killed processes left in the user's own folder. Whatever fails is left.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(own_folder_path()) else { return };
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| *path != self.path) {
            let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
            let Ok(fd) = rustix::fs::open(&path, flags, Mode::empty()) else { continue };
            remove_if_unused(&path, &fd);
        }
    }
}

/// What has a name.
enum Existing {
    /// Nothing.
    None,
    /// An object that others use: with the shared lock.
    Used(OwnedFd),
    /// An object that nobody uses, and that this user may not remove: with the exclusive lock.
    Left(OwnedFd),
}

/// Makes a new object in the file of an old one, and the exclusive lock a shared one. Whoever dies meanwhile
/// leaves a file that nobody uses.
fn make_anew(
    fd: &OwnedFd,
    len_bytes: usize,
    make: &mut impl FnMut(&SharedWords) -> Result<()>,
) -> Result<SharedWords> {
    reserve(fd, u64::try_from(len_bytes).unwrap_or(u64::MAX))?;
    let memory = SharedWords::from_unsealed_fd(fd)?;
    memory.slot(0, memory.len_bytes() / 4 * 4)?.clear();
    make(&memory)?;
    // The same lock, changed in one step; then what only the exclusive one covers.
    match lock(file_lock::Mode::Shared).try_lock(fd)? {
        Some(shared) => shared.keep(),
        None => return Err(refused(Errno::BUSY)),
    }
    let rest = Range { start: FREE_FROM, len_bytes: 0 };
    lock(file_lock::Mode::Exclusive).range(rest).unset(fd.as_fd()).of("fcntl F_OFD_SETLK")?;
    Ok(memory)
}

/// The use of a name by this process. Its drop lets go of it, and removes the name if that was the
/// last use.
#[derive(Debug)]
pub(super) struct Named {
    path: PathBuf,
    fd: OwnedFd,
    /// A forked child has a copy, whose drop would let go of the parent's use.
    process: u32,
}

impl Drop for Named {
    fn drop(&mut self) {
        if self.process == std::process::id() {
            leave(&self.path, self.fd.as_fd());
        }
    }
}

fn leave(path: &Path, fd: BorrowedFd<'_>) {
    // Let go first: of two that leave at a time, the later one then finds nobody.
    if lock(file_lock::Mode::Shared).unset(fd).is_ok() {
        remove_if_unused(path, &fd);
    }
    // Goes only if it is empty.
    let own = own_folder_path();
    if path.parent() == Some(&own) {
        let _ = rustix::fs::rmdir(&own);
    }
}

/// The lock that tells of use, or that there is none.
fn lock(mode: file_lock::Mode) -> Lock {
    let range = match mode {
        file_lock::Mode::Shared => Range { start: 0, len_bytes: FREE_FROM },
        file_lock::Mode::Exclusive => Range::WHOLE,
    };
    Lock::open_file(mode).range(range)
}

fn remove_if_unused(path: &Path, fd: &impl AsFd) {
    if check_ours(fd).is_err() {
        return;
    }
    if let Ok(Some(exclusive)) = lock(file_lock::Mode::Exclusive).try_lock(fd) {
        // Whatever cannot be removed, the next who opens the name will try to.
        let _ = remove_if_same(path, fd);
        drop(exclusive);
    }
}

/// Removes the name if it is still that of the file. With the exclusive lock, nobody else does, and
/// nobody gives the name to another file while this one has it.
fn remove_if_same(path: &Path, fd: &impl AsFd) -> Result<()> {
    let held = rustix::fs::fstat(fd).of("fstat")?;
    match rustix::fs::lstat(path) {
        Ok(found) if (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino) => {
            match rustix::fs::unlink(path) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(Error::new("unlink", errno)),
            }
        }
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::new("lstat", errno)),
    }
}

/// A file that is no object is not removed, whatever path was given.
fn check_ours(fd: &impl AsFd) -> Result<()> {
    let mut head = [0; 4];
    let found = retry("pread", || rustix::io::pread(fd, &mut head, 0))?;
    if found == head.len() && head == *b"SBSY" { Ok(()) } else { Err(refused(Errno::INVAL)) }
}

fn own_folder_path() -> PathBuf {
    PathBuf::from(format!("/dev/shm/switchboard-{}", rustix::process::geteuid().as_raw()))
}

/// Makes the user's folder, and checks that it is nobody else's.
fn make_own_folder() -> Result<()> {
    let path = own_folder_path();
    match rustix::fs::mkdir(&path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::new("mkdir", errno)),
    }
    let stat = match rustix::fs::lstat(&path) {
        // Removed again by the last user of another name; whoever needs it comes back here.
        Err(Errno::NOENT) => return Ok(()),
        other => other.of("lstat")?,
    };
    let is_own = FileType::from_raw_mode(stat.st_mode) == FileType::Directory
        && stat.st_uid == rustix::process::geteuid().as_raw()
        && stat.st_mode & 0o022 == 0;
    if is_own { Ok(()) } else { Err(Error::new("lstat", Errno::PERM)) }
}

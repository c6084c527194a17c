//! Folders of one user, in which what is found can only have been put by that user.
//!
//! Source: `openat2(2)` (`RESOLVE_NO_SYMLINKS`), `mkdir(2)`, `getdents64(2)`, `rmdir(2)`, `acl(5)`.
//!
//! A folder is *private* if it belongs to the effective user of this process, and its mode gives group
//! and others nothing. (What an access control list gives to others counts as the group's there.) Here
//! a folder is a descriptor: whatever happens to its name later, it stays the folder that was checked.
//!
//! What lies above a private folder is for the caller to choose: whoever may write there can move it
//! away and put something else in its place, which the next check refuses.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::io::retry;

/// `openat2(path, O_RDONLY | O_DIRECTORY, RESOLVE_NO_SYMLINKS)`, `fstat()`: a private folder, by a path
/// in which nothing is a symbolic link. Close-on-exec.
///
/// # Errors
/// `ENOENT`; `ENOTDIR`: no folder; `ELOOP`: a part of the path is a link; `EPERM`: it belongs to
/// another user (`fstat st_uid`), or has others let in (`fstat st_mode`); `EACCES`: no right to open it;
/// `EMFILE`, `ENFILE`; `ENOSYS`, `EPERM` of `openat2`: a filter of system calls forbids it.
pub fn open(path: &Path) -> Result<OwnedFd> {
    open_from(CWD, path)
}

/// `openat2(parent, name, …)`: as [`open`], of one name in a folder.
///
/// # Errors
/// As [`open`]; `EINVAL`: not one name, but none, several parts, `.` or `..`.
pub fn open_at(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    check_name("openat2", name)?;
    open_from(parent.as_fd(), Path::new(name))
}

/// `mkdirat(parent, name, 0700)`, `fchmod(0700)`: as [`open_at`]; one that is not there is made.
///
/// Whoever comes at the same time gets the same folder. If the umask takes rights of the owner,
/// another process may meet the folder before it has them (`EACCES`).
///
/// # Errors
/// As [`open_at`]; `ENOENT`: the parent was removed; `EACCES`, `EROFS`: it cannot be written; `ENOSPC`,
/// `EDQUOT`; `ENAMETOOLONG`: over 255 bytes.
///
/// ```
/// use std::ffi::OsStr;
/// use switchboard_kernel::private_folder;
///
/// # let scratch = tempfile::tempdir()?;
/// # let path = scratch.path();
/// let parent = std::fs::File::open(path)?;
/// let folder = private_folder::make_at(&parent, OsStr::new("mine"))?;
/// assert!(private_folder::names(&folder)?.is_empty());
/// assert!(private_folder::remove_at(&parent, OsStr::new("mine"))?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn make_at(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    check_name("mkdirat", name)?;
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(Error::new("mkdirat", errno)),
    }
    let folder = open_at(parent, name)?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&folder).of("fstat")?.st_mode);
    if !mode.contains(Mode::RWXU) {
        rustix::fs::fchmod(&folder, Mode::RWXU).of("fchmod")?;
    }
    Ok(folder)
}

/// `getdents64(folder)`: the names in it, in no order, without `.` and `..`. What is made or removed
/// meanwhile may be there or not.
///
/// # Errors
/// `ENOTDIR`; `EOVERFLOW`: more than [`MOST_NAMES`]; `EACCES`: opened with `O_PATH`, and not to be
/// read; `EMFILE`, `ENFILE`.
pub fn names(folder: impl AsFd) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder).of("getdents64")? {
        let name = entry.of("getdents64")?.file_name().to_bytes().to_vec();
        if name == b"." || name == b".." {
            continue;
        }
        if names.len() == MOST_NAMES {
            return Err(Error::new("getdents64", Errno::OVERFLOW));
        }
        names.push(OsString::from_vec(name));
    }
    Ok(names)
}

/// How many names [`names`] gives at most.
pub const MOST_NAMES: usize = 65_536;

/// `unlinkat(parent, name, AT_REMOVEDIR)`: removes a folder if nothing is in it. `true`: it is gone, or
/// was not there; `false`: something is in it, and it stays.
///
/// # Errors
/// `ENOTDIR`: no folder, or a link to one; `EACCES`, `EPERM`, `EROFS`: no right to remove it; `EBUSY`:
/// something is mounted there; `EINVAL`: not one name.
pub fn remove_at(parent: impl AsFd, name: &OsStr) -> Result<bool> {
    check_name("rmdir", name)?;
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(errno) => Err(Error::new("rmdir", errno)),
    }
}

/// Refuses what leads out of the folder it is to be in.
pub(crate) fn check_name(call: &'static str, name: &OsStr) -> Result<()> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
        return Err(Error::new(call, Errno::INVAL));
    }
    Ok(())
}

fn open_from(folder: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS;
    let opened =
        retry("openat2", || rustix::fs::openat2(folder, path, flags, Mode::empty(), resolve))?;
    check_private(&opened)?;
    Ok(opened)
}

fn check_private(folder: &OwnedFd) -> Result<()> {
    let stat = rustix::fs::fstat(folder).of("fstat")?;
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Error::new("fstat st_uid", Errno::PERM));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        return Err(Error::new("fstat st_mode", Errno::PERM));
    }
    Ok(())
}

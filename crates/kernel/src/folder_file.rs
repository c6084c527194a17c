//! Plain files in a folder that others may write to: what is opened is a file of that folder, and nothing else.
//!
//! Source: `openat(2)` (`O_NOFOLLOW`, `O_NONBLOCK`), `inode(7)`, `renameat2(2)` (`RENAME_NOREPLACE`),
//! `mkdir(2)`, `fsync(2)`, `syncfs(2)`.
//!
//! Who may write to a folder can put a symbolic link, a hard link, or a FIFO under a name that another process is
//! about to open: that would write elsewhere, or wait for ever. Here a folder is a descriptor, names are single
//! ones, links are not followed, and only a regular file with one name counts.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};
use crate::io::retry;
use crate::permissions::Permissions;
use crate::private_folder::check_name;

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    ReadWrite,
}

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A link, a FIFO, a socket, a device.
    Other,
}

/// `open(path, O_RDONLY | O_DIRECTORY)`: a folder, by a path in which links are followed. Close-on-exec.
///
/// # Errors
/// `ENOENT`; `ENOTDIR`: no folder; `EACCES`; `EMFILE`, `ENFILE`.
pub fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry("open", || rustix::fs::openat(CWD, path, flags, Mode::empty()))
}

/// `openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)`: a folder in a folder. Close-on-exec.
///
/// # Errors
/// As [`open_folder`]; `ENOTDIR`, `ELOOP`: a link; `EINVAL`: not one name.
pub fn open_folder_at(parent: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    check_name("openat", name)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry("openat", || rustix::fs::openat(&parent, name, flags, Mode::empty()))
}

/// `mkdirat(parent, name, 0700)`, `openat()`, `fchown()`, `fchmod()`: a new folder with owner and mode. Nothing is
/// left behind on failure.
///
/// # Errors
/// `EEXIST`: the name is taken; `EPERM`: no right to give it that owner or group, or somebody put another folder in
/// its place; `ENOENT`: the parent was removed; `EACCES`, `EROFS`, `ENOSPC`, `EDQUOT`; `EINVAL`: not one name.
pub fn make_folder_at(
    parent: impl AsFd,
    name: &OsStr,
    permissions: Permissions,
) -> Result<OwnedFd> {
    check_name("mkdirat", name)?;
    rustix::fs::mkdirat(&parent, name, Mode::RWXU).of("mkdirat")?;
    let made = open_folder_at(&parent, name).and_then(|folder| {
        if rustix::fs::fstat(&folder).of("fstat")?.st_uid != rustix::process::geteuid().as_raw() {
            return Err(Error::new("mkdirat", Errno::PERM));
        }
        permissions.apply(&folder)?;
        Ok(folder)
    });
    made.inspect_err(|_| {
        let _ = rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR);
    })
}

/// `openat(folder, name, O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)`, `fstat()`: a regular file that has this name and no
/// other one. Never waits. Close-on-exec.
///
/// # Errors
/// `ELOOP`: a symbolic link; `EISDIR`: a folder; `ENXIO`: a FIFO, a socket or a device; `EMLINK`: it has another
/// name, too, perhaps elsewhere; `ENOENT`; `EACCES`; `EROFS`; `EINVAL`: not one name; `EMFILE`, `ENFILE`.
///
/// ```
/// use std::ffi::OsStr;
/// use switchboard_kernel::folder_file::{self, Access};
///
/// # let scratch = tempfile::tempdir()?;
/// # let path = scratch.path();
/// let folder = folder_file::open_folder(path)?;
/// std::os::unix::fs::symlink("/etc/passwd", path.join("link"))?;
/// let refused = folder_file::open(&folder, OsStr::new("link"), Access::Read);
/// assert_eq!(refused.expect_err("a link").name(), "ELOOP");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn open(folder: impl AsFd, name: &OsStr, access: Access) -> Result<OwnedFd> {
    check_name("openat", name)?;
    let access = match access {
        Access::Read => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR,
    };
    let safe = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = retry("openat", || rustix::fs::openat(&folder, name, access | safe, Mode::empty()))?;
    let found = rustix::fs::fstat(&file).of("fstat")?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile if found.st_nlink > 1 => Err(Error::new("openat", Errno::MLINK)),
        FileType::RegularFile => Ok(file),
        FileType::Directory => Err(Error::new("openat", Errno::ISDIR)),
        _ => Err(Error::new("openat", Errno::NXIO)),
    }
}

/// Whether an error of [`open`] says that the name is another thing's than a plain file's.
#[must_use]
pub fn is_no_file(error: Error) -> bool {
    matches!(error.name(), "ELOOP" | "EISDIR" | "ENXIO" | "EMLINK")
}

/// `openat(folder, name, O_CREAT | O_EXCL, 0600)`: a new file, for reading and writing. Close-on-exec.
///
/// # Errors
/// `EEXIST`: the name is taken; `ENOENT`: the folder was removed; `EACCES`, `EROFS`, `ENOSPC`, `EDQUOT`; `EINVAL`:
/// not one name; `EMFILE`, `ENFILE`.
pub fn create(folder: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    check_name("openat", name)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    retry("openat", || rustix::fs::openat(&folder, name, flags, Mode::RUSR | Mode::WUSR))
}

/// `fchown()`, `fchmod()`: owner and mode of what is open.
///
/// # Errors
/// `EPERM`: it is another user's, or no right to give it that owner or group.
pub fn set_permissions(file: impl AsFd, permissions: Permissions) -> Result<()> {
    permissions.apply(file)
}

/// `renameat(folder, from, to_folder, to)`: what had the name is replaced.
///
/// # Errors
/// `ENOENT`; `EACCES`, `EPERM`, `EROFS`; `ENOSPC`; `EISDIR`; `EXDEV`; `EINVAL`: not one name.
pub fn rename(folder: impl AsFd, from: &OsStr, to_folder: impl AsFd, to: &OsStr) -> Result<()> {
    check_name("renameat", from)?;
    check_name("renameat", to)?;
    rustix::fs::renameat(folder, from, to_folder, to).of("renameat")
}

/// `renameat2(folder, from, to_folder, to, RENAME_NOREPLACE)`; where the file system cannot, `linkat()` and
/// `unlinkat()`: between them, and after a death there, the file has two names.
///
/// # Errors
/// `EEXIST`: the name is taken; else as [`rename`].
pub fn rename_new(folder: impl AsFd, from: &OsStr, to_folder: impl AsFd, to: &OsStr) -> Result<()> {
    check_name("renameat2", from)?;
    check_name("renameat2", to)?;
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(&folder, from, &to_folder, to, flags) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            rustix::fs::linkat(&folder, from, &to_folder, to, AtFlags::empty()).of("linkat")?;
            remove(folder, from)
        }
        renamed => renamed.of("renameat2"),
    }
}

/// `unlinkat(folder, name)`: removes a name that is no folder's.
///
/// # Errors
/// `ENOENT`; `EISDIR`, `EPERM`: a folder; `EACCES`, `EPERM`, `EROFS`; `EINVAL`: not one name.
pub fn remove(folder: impl AsFd, name: &OsStr) -> Result<()> {
    check_name("unlinkat", name)?;
    rustix::fs::unlinkat(folder, name, AtFlags::empty()).of("unlinkat")
}

/// `openat(folder, ".")`, `getdents64()`: the names in it and what has them, in no order, without `.` and `..`. What is made or
/// removed meanwhile may be there or not.
///
/// # Errors
/// `ENOTDIR`; `EACCES`; `EMFILE`, `ENFILE`.
pub fn entries(folder: impl AsFd) -> Result<Vec<(OsString, Kind)>> {
    let folder = folder.as_fd();
    let mut entries = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder).of("openat")? {
        let entry = entry.of("getdents64")?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Some file systems do not say.
            FileType::Unknown => {
                match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(found) => FileType::from_raw_mode(found.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(errno) => return Err(Error::new("fstatat", errno)),
                }
            }
            known => known,
        };
        let kind = match kind {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Folder,
            _ => Kind::Other,
        };
        entries.push((OsString::from_vec(name.to_bytes().to_vec()), kind));
    }
    Ok(entries)
}

/// `fsync(folder)`: the names in it are on the disk.
///
/// # Errors
/// `EIO`, `ENOSPC`: writing failed.
pub fn sync(folder: impl AsFd) -> Result<()> {
    retry("fsync", || rustix::fs::fsync(&folder))
}

/// `fsync()` of the folder above, or, where that may not be opened, `syncfs()`: the folder's own name is on the
/// disk.
///
/// # Errors
/// `EIO`, `ENOSPC`: writing failed; `EMFILE`, `ENFILE`.
pub fn sync_parent(folder: impl AsFd) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match retry("openat", || rustix::fs::openat(&folder, "..", flags, Mode::empty())) {
        Ok(parent) => sync(parent),
        Err(error) if error.name() == "EACCES" => retry("syncfs", || rustix::fs::syncfs(&folder)),
        Err(error) => Err(error),
    }
}

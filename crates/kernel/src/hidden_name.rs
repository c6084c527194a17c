//! Objects that are made under a random hidden name, get their owner and mode there, and only then
//! get the name they are known by.
//!
//! Source: `renameat2(2)` (`RENAME_NOREPLACE`), `symlink(7)`, `proc_pid_fd(5)`. Nobody can find the
//! object half-made, whatever the umask, and a name that is taken stays with whoever has it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use rustix::path::DecInt;
use rustix::rand::GetRandomFlags;

use crate::error::{Error, OfCall, Result};
use crate::io::duplicate;
use crate::permissions::Permissions;

/// How much of the real name a hidden one repeats, so that listings of sockets stay readable.
const READABLE_BYTES: usize = 32;

/// Where a path leads: the folder, held open, and the name in it.
#[derive(Debug)]
pub(crate) struct Place {
    folder: OwnedFd,
    folder_path: PathBuf,
    name: OsString,
}

impl Place {
    /// Opens the folder that `path` is in. `access` is `O_PATH`, or `O_RDONLY` to lock it.
    pub(crate) fn of(path: &Path, access: OFlags) -> Result<Self> {
        let name = path.file_name().ok_or(Error::new("open", Errno::INVAL))?.to_owned();
        let folder_path = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&folder_path, flags, Mode::empty()).of("open")?;
        Ok(Self { folder, folder_path, name })
    }

    /// One name in a folder that is open.
    pub(crate) fn within(folder: BorrowedFd<'_>, name: &OsStr) -> Result<Self> {
        let folder = duplicate(folder)?;
        let folder_path = descriptor_path(folder.as_fd());
        Ok(Self { folder, folder_path, name: name.to_owned() })
    }

    /// The folder.
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// The name in it.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// `unlinkat(folder, name)`.
    pub(crate) fn unlink(&self) -> Result<()> {
        rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty()).of("unlink")
    }

    /// The type of what has the name; symbolic links are not followed.
    pub(crate) fn file_type(&self) -> Result<FileType> {
        let stat = rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW)
            .of("fstatat")?;
        Ok(FileType::from_raw_mode(stat.st_mode))
    }

    /// Another place in the same folder: a hidden name that was never used before.
    pub(crate) fn hidden(&self) -> Result<Hidden<'_>> {
        let mut random = [0_u8; 8];
        rustix::rand::getrandom(&mut random, GetRandomFlags::empty()).of("getrandom")?;
        let mut name = vec![b'.'];
        name.extend(self.name.as_bytes().iter().take(READABLE_BYTES));
        name.extend(format!(".{:016x}", u64::from_ne_bytes(random)).bytes());
        Ok(Hidden { place: self, name: OsString::from_vec(name), exists: false })
    }
}

/// A hidden name next to the real one. What has it is removed on drop, unless it was
/// [shown](Self::show).
#[derive(Debug)]
pub(crate) struct Hidden<'a> {
    place: &'a Place,
    name: OsString,
    exists: bool,
}

impl Hidden<'_> {
    /// The real name's place.
    pub(crate) fn place(&self) -> &Place {
        self.place
    }

    /// The hidden name.
    pub(crate) fn name(&self) -> &OsStr {
        &self.name
    }

    /// A path to the hidden name, by the folder's own path.
    pub(crate) fn path(&self) -> PathBuf {
        self.place.folder_path.join(&self.name)
    }

    /// A short path to the hidden name, by the folder's descriptor.
    pub(crate) fn short_path(&self) -> PathBuf {
        descriptor_path(self.place.folder()).join(&self.name)
    }

    /// From now on there is something under the hidden name.
    pub(crate) fn made(&mut self) {
        self.exists = true;
    }

    /// Sets owner, group and mode, in that order: the object is private until the last step.
    pub(crate) fn set_permissions(&self, expected: FileType, wanted: Permissions) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let object = rustix::fs::openat(self.place.folder(), &self.name, flags, Mode::empty())
            .of("openat")?;
        // Whoever may write in the folder could have put something else there.
        let stat = rustix::fs::fstat(&object).of("fstat")?;
        if FileType::from_raw_mode(stat.st_mode) != expected {
            return Err(Error::new("fstat", Errno::STALE));
        }
        if wanted.owner.is_some() || wanted.group.is_some() {
            let owner = wanted.owner.map(known_id).transpose()?.map(Uid::from_raw);
            let group = wanted.group.map(known_id).transpose()?.map(Gid::from_raw);
            rustix::fs::chownat(&object, "", owner, group, AtFlags::EMPTY_PATH).of("fchownat")?;
        }
        // fchmod refuses O_PATH descriptors, and fchmodat2 needs Linux 6.6.
        let mode = Mode::from_raw_mode(wanted.mode);
        rustix::fs::chmod(descriptor_path(object.as_fd()), mode).of("chmod")
    }

    /// `renameat2(RENAME_NOREPLACE)` to the real name.
    pub(crate) fn show(mut self) -> Result<()> {
        let folder = self.place.folder();
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(folder, &self.name, folder, &self.place.name, flags)
            .of("renameat2")?;
        self.exists = false;
        Ok(())
    }

    /// As [`show`](Self::show); if that fails, the object stays under its hidden name.
    pub(crate) fn show_or_keep(mut self) -> Result<()> {
        self.exists = false;
        self.show()
    }

    /// `renameat2(RENAME_NOREPLACE)` of what has the real name to the hidden one.
    pub(crate) fn take_away(&mut self) -> Result<()> {
        let folder = self.place.folder();
        let flags = RenameFlags::NOREPLACE;
        rustix::fs::renameat_with(folder, &self.place.name, folder, &self.name, flags)
            .of("renameat2")?;
        self.exists = true;
        Ok(())
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        if self.exists {
            let _ = rustix::fs::unlinkat(&self.place.folder, &self.name, AtFlags::empty());
        }
    }
}

/// The path by which this process reaches what a descriptor stands for.
pub(crate) fn descriptor_path(fd: BorrowedFd<'_>) -> PathBuf {
    let mut path = OsString::with_capacity(32);
    path.push("/proc/self/fd/");
    path.push(DecInt::from_fd(fd).as_ref());
    path.into()
}

/// `chown` takes the all-ones id for "leave it as it is", which is not what a caller meant.
pub(crate) fn known_id(id: u32) -> Result<u32> {
    if id == u32::MAX { Err(Error::new("fchownat", Errno::INVAL)) } else { Ok(id) }
}

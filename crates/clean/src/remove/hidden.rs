//! A file by its name in a folder, which it gives up for a hidden one while it is decided whether it goes.
//!
//! Source: `renameat2(2)`, `unlinkat(2)`; docs/design/clean.md. Whatever is done by a name is compared with the inode afterwards.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};

use super::{Facts, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Reason, Result};
use crate::journal::Size;
use crate::target::{Target, parts};

/// A file, as it was when it was looked at.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) folder: OwnedFd,
    pub(super) name: OsString,
    pub(super) found: Stat,
    hidden: Option<OsString>,
}

impl Named {
    /// The file that the target's name leads to, opened in its folder: of this type, the one that was meant, with no other name, this user's, and old enough.
    pub(super) fn look(
        target: &Target,
        options: Options,
        expected: FileType,
        open: impl FnOnce(&OwnedFd, &OsStr) -> Result<OwnedFd>,
    ) -> Result<(Self, OwnedFd)> {
        let path = target.place.path()?;
        let (folder, name) = parts(&path);
        let folder = folder_of(folder)?;
        let file = open(&folder, name)?;
        let found = stat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != expected {
            return Err(changed("it is of another type now"));
        }
        is_what_it_was(&found, target)?;
        if found.st_nlink != 1 {
            let why = format!("it has {} names, and goes with the last", found.st_nlink);
            return Err(in_use(why));
        }
        check_owner(&[found.st_uid])?;
        check_age(found.st_ctime.max(found.st_mtime), options.min_age)?;
        Ok((Self { folder, name: name.to_owned(), found, hidden: None }, file))
    }

    pub(super) fn facts(&self, size: Size) -> Facts {
        Facts {
            key: 0,
            identity: self.identity(),
            owner: self.found.st_uid,
            group: self.found.st_gid,
            mode: self.found.st_mode & 0o7777,
            size,
            hides: true,
        }
    }

    /// Its device and inode.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.found.st_dev, self.found.st_ino)
    }

    fn is_at(&self, name: &OsStr) -> Result<()> {
        let now = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW);
        let now = now.map_err(|errno| Error::errno("looking at it", "fstatat", errno))?;
        if (now.st_dev, now.st_ino) == self.identity() {
            return Ok(());
        }
        Err(changed("something else has its name now"))
    }

    /// From now on it has the hidden name, until [`Named::back`].
    pub(super) fn hide(&mut self, hidden: &str) -> Result<()> {
        self.is_at(&self.name)?;
        let hidden = OsString::from(hidden);
        let (folder, keep) = (&self.folder, RenameFlags::NOREPLACE);
        let renamed = rustix::fs::renameat_with(folder, &self.name, folder, &hidden, keep);
        renamed.map_err(|errno| Error::errno("hiding it", "renameat2", errno))?;
        self.hidden = Some(hidden.clone());
        self.is_at(&hidden)
    }

    /// Removes the hidden name.
    pub(super) fn unlink(&mut self) -> Result<()> {
        let hidden = self.hidden.clone().unwrap_or_default();
        rustix::fs::unlinkat(&self.folder, &hidden, AtFlags::empty())
            .map_err(|errno| Error::errno("removing it", "unlinkat", errno))?;
        self.hidden = None;
        Ok(())
    }

    /// Gives it its name back, if it is hidden.
    pub(super) fn back(&mut self) -> Result<()> {
        match self.hidden.take() {
            Some(hidden) => back(&self.folder, &hidden, &self.name),
            None => Ok(()),
        }
    }
}

/// Opens a folder to work in.
pub(crate) fn folder_of(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| Error::errno(&format!("{}", path.display()), "open", errno))
}

pub(super) fn stat(file: impl std::os::fd::AsFd) -> Result<Stat> {
    rustix::fs::fstat(file).map_err(|errno| Error::errno("looking at it", "fstat", errno))
}

/// Whether a file is the one that the snapshot showed.
pub(super) fn is_what_it_was(found: &Stat, target: &Target) -> Result<()> {
    let now = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev), found.st_ino);
    let expected = target.file.map(|(major, minor, inode)| {
        // Of a socket's file the kernel says 32 bits only.
        let same = inode == now.2 || inode == now.2 & u64::from(u32::MAX);
        (major, minor) == (now.0, now.1) && same
    });
    match expected {
        Some(true) => Ok(()),
        _ => Err(Error::new(Reason::Gone, "something else has its name now")),
    }
}

/// Gives a file its name back, unless somebody else has that.
pub(crate) fn back(folder: &OwnedFd, hidden: &OsStr, name: &OsStr) -> Result<()> {
    let renamed = rustix::fs::renameat_with(folder, hidden, folder, name, RenameFlags::NOREPLACE);
    renamed.map_err(|errno| {
        let doing = format!("giving {} its name back", Path::new(hidden).display());
        Error::errno(&doing, "renameat2", errno)
    })
}

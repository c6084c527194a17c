//! POSIX shared memory and semaphores: files in /dev/shm. A lease says exactly whether anybody has one open or mapped.
//!
//! Source: `fcntl(2)` (leases), `renameat2(2)`, `shm_overview(7)`; docs/design/clean.md.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use switchboard_kernel::lease;

use super::{Facts, Object, Options, changed, check_age, check_owner, in_use};
use crate::error::{Error, Reason, Result};
use crate::journal::{Run, Size, copy_memory};
use crate::target::{Target, parts};

pub(super) struct File {
    folder: OwnedFd,
    name: OsString,
    file: std::fs::File,
    found: Stat,
    hidden: Option<OsString>,
    is_leased: bool,
}

/// Who looked the name up before it was hidden has reached the lease by then.
const ON_THE_WAY: Duration = Duration::from_millis(2);

impl File {
    pub(super) fn look(target: &Target, options: Options) -> Result<Self> {
        let path = target.place.path()?;
        let (folder, name) = parts(&path);
        let folder = folder_of(folder)?;
        let file = open(&folder, name)?;
        let found = stat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(changed("it is no file any more"));
        }
        is_what_it_was(&found, target)?;
        if found.st_nlink != 1 {
            let why = format!("it has {} names, and goes with the last", found.st_nlink);
            return Err(in_use(why));
        }
        check_owner(&[found.st_uid])?;
        check_age(found.st_ctime.max(found.st_mtime), options.min_age)?;
        let (name, file) = (name.to_owned(), std::fs::File::from(file));
        Ok(Self { folder, name, file, found, hidden: None, is_leased: false })
    }

    fn still_alone(&self) -> Result<()> {
        let wanted = lease::is_wanted(&self.file);
        if wanted.map_err(|error| Error::call("looking whether somebody wants it", error))? {
            return Err(in_use("somebody opens it this moment"));
        }
        let now = stat(&self.file)?;
        if (now.st_nlink, now.st_size) != (1, self.found.st_size)
            || (now.st_mtime, now.st_mtime_nsec) != (self.found.st_mtime, self.found.st_mtime_nsec)
        {
            return Err(changed("its names, size or time"));
        }
        Ok(())
    }
}

/// Opens a folder to work in.
pub(crate) fn folder_of(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .map_err(|errno| Error::errno(&format!("{}", path.display()), "open", errno))
}

/// Opens a file for reading, without leaving a trace in its times where that is allowed.
fn open(folder: &OwnedFd, name: &std::ffi::OsStr) -> Result<OwnedFd> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(folder, name, flags | OFlags::NOATIME, Mode::empty());
    let opened = match opened {
        Err(Errno::PERM) => rustix::fs::openat(folder, name, flags, Mode::empty()),
        opened => opened,
    };
    opened.map_err(|errno| match errno {
        Errno::WOULDBLOCK => in_use("somebody has a lease on it"),
        Errno::LOOP => changed("it is a link"),
        errno => Error::errno("reading it", "openat", errno),
    })
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
pub(crate) fn back(
    folder: &OwnedFd,
    hidden: &std::ffi::OsStr,
    name: &std::ffi::OsStr,
) -> Result<()> {
    let renamed = rustix::fs::renameat_with(folder, hidden, folder, name, RenameFlags::NOREPLACE);
    renamed.map_err(|errno| {
        let doing = format!("giving {} its name back", Path::new(hidden).display());
        Error::errno(&doing, "renameat2", errno)
    })
}

impl Object for File {
    fn facts(&self) -> Facts {
        Facts {
            key: 0,
            identity: (self.found.st_dev, self.found.st_ino),
            owner: self.found.st_uid,
            group: self.found.st_gid,
            mode: self.found.st_mode & 0o7777,
            size: Size::Bytes(u64::try_from(self.found.st_size).unwrap_or(0)),
            hides: true,
        }
    }

    fn close(&mut self, hidden: &str) -> Result<()> {
        match lease::take(&self.file) {
            Ok(()) => self.is_leased = true,
            Err(error) if error.name() == "EAGAIN" => {
                return Err(in_use(
                    "somebody has it open or mapped, or it is in flight in a socket",
                ));
            }
            Err(error) => return Err(Error::call("a lease on it", error)),
        }
        let hidden = OsString::from(hidden);
        let renamed = rustix::fs::renameat_with(
            &self.folder,
            &self.name,
            &self.folder,
            &hidden,
            RenameFlags::NOREPLACE,
        );
        renamed.map_err(|errno| Error::errno("hiding it", "renameat2", errno))?;
        let moved = rustix::fs::statat(&self.folder, &hidden, AtFlags::SYMLINK_NOFOLLOW);
        self.hidden = Some(hidden);
        let moved = moved.map_err(|errno| Error::errno("looking at it", "fstatat", errno))?;
        if (moved.st_dev, moved.st_ino) != (self.found.st_dev, self.found.st_ino) {
            return Err(changed("something else has its name now"));
        }
        std::thread::sleep(ON_THE_WAY);
        self.still_alone()
    }

    fn save(&mut self, run: &mut Run, number: u32) -> Result<(Option<std::fs::File>, u32)> {
        let len = u64::try_from(self.found.st_size).unwrap_or(0);
        let body = run.body(number, len)?;
        let crc = copy_memory(&body, len, |at, block| {
            let read = self.file.read_exact_at(block, at);
            read.map_err(|error| Error::io("reading it", &error))
        })?;
        Ok((Some(body), crc))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        self.still_alone()?;
        let hidden = self.hidden.clone().unwrap_or_default();
        rustix::fs::unlinkat(&self.folder, &hidden, AtFlags::empty())
            .map_err(|errno| Error::errno("removing it", "unlinkat", errno))?;
        self.hidden = None;
        Ok(None)
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        let named = match self.hidden.take() {
            Some(hidden) => back(&self.folder, &hidden, &self.name),
            None => Ok(()),
        };
        if std::mem::take(&mut self.is_leased) {
            let _ = lease::give_back(&self.file);
        }
        named
    }
}

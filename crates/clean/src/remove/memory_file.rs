//! POSIX shared memory and semaphores: files in /dev/shm. A lease says exactly whether anybody has one open or mapped.
//!
//! Source: `fcntl(2)` (leases), `renameat2(2)`, `shm_overview(7)`; docs/design/clean.md.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use switchboard_kernel::lease;

use super::hidden::{Named, stat};
use super::{Facts, Object, Options, changed, in_use};
use crate::error::{Error, Result};
use crate::journal::{Run, Size, copy_memory};
use crate::target::Target;

pub(super) struct File {
    named: Named,
    file: std::fs::File,
    is_leased: bool,
}

/// Who looked the name up before it was hidden has reached the lease by then.
const ON_THE_WAY: Duration = Duration::from_millis(2);

impl File {
    pub(super) fn look(target: &Target, options: Options) -> Result<Self> {
        let (named, file) = Named::look(target, options, FileType::RegularFile, open)?;
        Ok(Self { named, file: file.into(), is_leased: false })
    }

    fn still_alone(&self) -> Result<()> {
        super::not_wanted(&self.file)?;
        let (now, found) = (stat(&self.file)?, &self.named.found);
        if (now.st_nlink, now.st_size) != (1, found.st_size)
            || (now.st_mtime, now.st_mtime_nsec) != (found.st_mtime, found.st_mtime_nsec)
        {
            return Err(changed("its names, size or time"));
        }
        Ok(())
    }
}

/// Opens a file for reading, without leaving a trace in its times where that is allowed.
fn open(folder: &OwnedFd, name: &OsStr) -> Result<OwnedFd> {
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

impl Object for File {
    fn facts(&self) -> Facts {
        self.named.facts(Size::Bytes(u64::try_from(self.named.found.st_size).unwrap_or(0)))
    }

    fn close(&mut self, hidden: &str) -> Result<()> {
        super::lease(&self.file, "open or mapped")?;
        self.is_leased = true;
        self.named.hide(hidden)?;
        std::thread::sleep(ON_THE_WAY);
        self.still_alone()
    }

    fn save(&mut self, run: &mut Run, number: u32) -> Result<(Option<std::fs::File>, u32)> {
        let len = u64::try_from(self.named.found.st_size).unwrap_or(0);
        let body = run.body(number, len)?;
        let crc = copy_memory(&body, len, |at, block| {
            let read = self.file.read_exact_at(block, at);
            read.map_err(|error| Error::io("reading it", &error))
        })?;
        Ok((Some(body), crc))
    }

    fn remove(&mut self) -> Result<Option<String>> {
        self.still_alone()?;
        self.named.unlink().map(|()| None)
    }

    fn open(&mut self, _: &mut Run, _: u32) -> Result<()> {
        let named = self.named.back();
        if std::mem::take(&mut self.is_leased) {
            let _ = lease::give_back(&self.file);
        }
        named
    }
}

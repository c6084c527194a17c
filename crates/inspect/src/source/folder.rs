//! A process's folder in /proc, held open: when the process ends, and its number goes to another one,
//! what is read through it fails instead of being the other one's.
//!
//! Source: `proc(5)`, `openat(2)`.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::numbers::small;

/// Larger files of /proc are cut.
const LONGEST: usize = 64 << 20;

/// An open folder of /proc.
#[derive(Debug)]
pub struct Folder(OwnedFd);

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

impl Folder {
    /// Opens one.
    ///
    /// # Errors
    /// `ENOENT` when there is none, `EACCES` when it may not be read.
    pub fn open(path: &str) -> Result<Self, Errno> {
        rustix::fs::openat(CWD, path, READ | OFlags::DIRECTORY, Mode::empty()).map(Self)
    }

    /// Opens one inside.
    ///
    /// # Errors
    /// As [`Folder::open`]; `ESRCH` when the process is gone.
    pub fn within(&self, name: &str) -> Result<Self, Errno> {
        rustix::fs::openat(&self.0, name, READ | OFlags::DIRECTORY, Mode::empty()).map(Self)
    }

    /// Reads a file in it, into a buffer that is emptied before.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn read(&self, name: &str, into: &mut Vec<u8>) -> Result<(), Errno> {
        into.clear();
        let file = rustix::fs::openat(&self.0, name, READ, Mode::empty())?;
        loop {
            let filled = into.len();
            if filled >= LONGEST {
                return Ok(());
            }
            into.resize(filled + 4096.max(filled), 0);
            let n = match rustix::io::read(&file, &mut into[filled..]) {
                Ok(n) => n,
                Err(Errno::INTR) => 0,
                Err(error) => {
                    into.clear();
                    return Err(error);
                }
            };
            into.truncate(filled + n);
            if n == 0 {
                return Ok(());
            }
        }
    }

    /// Where a link in it leads.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn link(&self, name: &str) -> Result<Vec<u8>, Errno> {
        rustix::fs::readlinkat(&self.0, name, Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// What it is that a magic link in it leads to; nothing is opened.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn status(&self, name: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.0, name, AtFlags::empty())
    }

    /// What a link in it is itself: the mode of one in `fd` says how it was opened.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn link_status(&self, name: &str) -> Result<Stat, Errno> {
        rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Calls `each` with every name in it that is a number.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn numbers(&self, mut each: impl FnMut(u32)) -> Result<(), Errno> {
        self.names(|name| {
            if let Some(number) = small(name.to_bytes()) {
                each(number);
            }
        })
    }

    /// Calls `each` with every name in it.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn names(&self, mut each: impl FnMut(&CStr)) -> Result<(), Errno> {
        let mut buffer: Vec<u8> = Vec::with_capacity(16 << 10);
        let mut entries = RawDir::new(&self.0, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                each(name);
            }
        }
        Ok(())
    }

    /// The inode of a namespace link: `ipc:[4026531839]`.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<u64> {
        bracketed(&self.link(name).ok()?, name.rsplit('/').next()?.as_bytes())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The number in `NAME:[NUMBER]`.
#[must_use]
pub fn bracketed(link: &[u8], name: &[u8]) -> Option<u64> {
    let number = link.strip_prefix(name)?.strip_prefix(b":[")?.strip_suffix(b"]")?;
    super::numbers::decimal(number)
}

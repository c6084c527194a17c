//! A process's folder in /proc, held open: when the process ends, and its number goes to another one,
//! what is read through it fails instead of being the other one's.
//!
//! Source: `proc(5)`, `openat(2)`.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, SeekFrom, Statx, StatxFlags};
use rustix::io::Errno;
use rustix::path::Arg;

use super::numbers::small;
use crate::times::Times;

/// Larger files of /proc are cut.
const LONGEST: usize = 64 << 20;
/// Longer paths are cut by the kernel itself.
const LONGEST_LINK: usize = 4096;

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

    /// Opens that of a process, if its number is not another one's by now.
    #[must_use]
    pub fn of_process(pid: u32, started_ticks: u64) -> Option<Self> {
        let folder = Self::open(&format!("/proc/{pid}")).ok()?;
        let mut buffer = Vec::new();
        folder.read_record(c"stat", &mut buffer).ok()?;
        let stat = super::process::stat(&buffer)?;
        (stat.started_ticks == started_ticks).then_some(folder)
    }

    /// Opens one inside.
    ///
    /// # Errors
    /// As [`Folder::open`]; `ESRCH` when the process is gone.
    pub fn within(&self, name: impl Arg) -> Result<Self, Errno> {
        rustix::fs::openat(&self.0, name, READ | OFlags::DIRECTORY, Mode::empty()).map(Self)
    }

    /// Which one it is: device and inode.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn identity(&self) -> Result<(u64, u64), Errno> {
        rustix::fs::fstat(&self.0).map(|status| (status.st_dev, status.st_ino))
    }

    /// Reads a file in it, into a buffer that is emptied before.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn read(&self, name: impl Arg, into: &mut Vec<u8>) -> Result<(), Errno> {
        self.fill(name, into, false)
    }

    /// As [`Folder::read`], of a file that the kernel gives as a whole when it is read once: all that have one record, so not
    /// lists like `maps`. What is short of the room is the end.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn read_record(&self, name: impl Arg, into: &mut Vec<u8>) -> Result<(), Errno> {
        self.fill(name, into, true)
    }

    /// Opens a file in it for reading.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn file(&self, name: impl Arg) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.0, name, READ, Mode::empty())
    }

    fn fill(&self, name: impl Arg, into: &mut Vec<u8>, one_record: bool) -> Result<(), Errno> {
        into.clear();
        let file = self.file(name)?;
        loop {
            if into.len() >= LONGEST {
                return Ok(());
            }
            into.reserve(4096.max(into.len()));
            let room = into.capacity() - into.len();
            match rustix::io::read(&file, spare_capacity(into)) {
                Ok(0) => return Ok(()),
                Ok(n) if one_record && n < room => return Ok(()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    into.clear();
                    return Err(error);
                }
            }
        }
    }

    /// Where a link in it leads.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn link(&self, name: impl Arg) -> Result<Vec<u8>, Errno> {
        let mut into = Vec::new();
        self.link_into(name, &mut into)?;
        Ok(into)
    }

    /// As [`Folder::link`], into a buffer that is emptied before.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn link_into(&self, name: impl Arg, into: &mut Vec<u8>) -> Result<(), Errno> {
        into.clear();
        into.reserve(LONGEST_LINK);
        rustix::fs::readlinkat_raw(&self.0, name, spare_capacity(into))?;
        Ok(())
    }

    /// What it is that a magic link in it leads to; nothing is opened, and no server of files is asked.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn status(&self, name: impl Arg) -> Result<Statx, Errno> {
        // A server that does not answer would hold us up.
        self.statx(name, AtFlags::STATX_DONT_SYNC)
    }

    /// What a link in it is itself: the mode of one in `fd` says how it was opened.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn link_status(&self, name: impl Arg) -> Result<Statx, Errno> {
        self.statx(name, AtFlags::STATX_DONT_SYNC | AtFlags::SYMLINK_NOFOLLOW)
    }

    fn statx(&self, name: impl Arg, flags: AtFlags) -> Result<Statx, Errno> {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        rustix::fs::statx(&self.0, name, flags, wanted)
    }

    /// Who owns it: of a process's folder, its effective user and group.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn owner(&self) -> Result<(u32, u32), Errno> {
        rustix::fs::fstat(&self.0).map(|status| (status.st_uid, status.st_gid))
    }

    /// What the kernel says is its size: of `fd`, how many descriptors there are, since Linux 6.2; 0 before.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn size(&self) -> Result<u64, Errno> {
        rustix::fs::fstat(&self.0).map(|status| u64::try_from(status.st_size).unwrap_or(0))
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
    pub fn names(&self, each: impl FnMut(&CStr)) -> Result<(), Errno> {
        self.names_from(0, each)
    }

    /// As [`Folder::names`], from a place on.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn names_from(&self, place: u64, mut each: impl FnMut(&CStr)) -> Result<(), Errno> {
        self.entries_from(place, |name, _| each(name))
    }

    /// As [`Folder::names_from`], with what each is, as far as the file system says that here.
    ///
    /// # Errors
    /// As [`Folder::open`].
    pub fn entries_from(
        &self,
        place: u64,
        mut each: impl FnMut(&CStr, FileType),
    ) -> Result<(), Errno> {
        rustix::fs::seek(&self.0, SeekFrom::Start(place))?;
        let mut buffer: Vec<u8> = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(&self.0, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                each(name, entry.file_type());
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

impl From<OwnedFd> for Folder {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
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

/// The device of a file, in one number.
#[must_use]
pub fn device(status: &Statx) -> u64 {
    rustix::fs::makedev(status.stx_dev_major, status.stx_dev_minor)
}

/// The times of a file: made, changed in any way, used.
#[must_use]
pub fn times(status: &Statx) -> Times {
    let ms = |seconds: i64, nanoseconds: u32| {
        u64::try_from(seconds)
            .ok()
            .map(|s| s.saturating_mul(1000) + u64::from(nanoseconds / 1_000_000))
    };
    let made = status.stx_mask & StatxFlags::BTIME.bits() != 0;
    let (b, c, m, a) = (status.stx_btime, status.stx_ctime, status.stx_mtime, status.stx_atime);
    Times {
        made_ms: if made { ms(b.tv_sec, b.tv_nsec) } else { None },
        changed_ms: ms(c.tv_sec, c.tv_nsec),
        used_ms: ms(m.tv_sec, m.tv_nsec).max(ms(a.tv_sec, a.tv_nsec)),
    }
}

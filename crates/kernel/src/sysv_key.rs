//! The number by which processes find the same System V object: a queue, a segment or a set of
//! semaphores. Each kind has its own numbers.
//!
//! Source: `sysvipc(7)`, `ftok(3)`.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result};

/// The number by which processes find the same object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// `IPC_PRIVATE`: a new object that no key finds; only its id does.
    Private,
    /// A number agreed on; not 0, which is `IPC_PRIVATE`.
    Value(i32),
    /// Made from an existing file or folder, as `ftok(3)` does.
    Path {
        /// The file or folder.
        path: PathBuf,
        /// Tells apart several objects of one path; not 0.
        id: u8,
    },
}

impl Key {
    /// The number for `call`, such as `msgget`; never 0 (`IPC_PRIVATE`) unless that was asked for
    /// by name.
    pub(crate) fn number(&self, call: &'static str) -> Result<i32> {
        let number = match self {
            Self::Private => return Ok(libc::IPC_PRIVATE),
            Self::Value(number) => *number,
            Self::Path { path, id } => key_from_path(path, *id)?,
        };
        if number == libc::IPC_PRIVATE {
            return Err(Error::new(call, Errno::INVAL));
        }
        Ok(number)
    }
}

/// `stat(path)`: the key that `ftok(3)` makes: the low 8 bits of `id`, of the device, and the low
/// 16 of the inode. Two paths may have the same key.
///
/// # Errors
/// `ENOENT`, `EACCES`, `ENOTDIR`, `ELOOP` when the path cannot be looked at.
pub fn key_from_path(path: &Path, id: u8) -> Result<i32> {
    let stat = look_at(path).of("stat")?;
    let low_bits = |number: u64, bits: u32| u32::try_from(number & ((1 << bits) - 1)).unwrap_or(0);
    let key = u32::from(id) << 24 | low_bits(stat.st_dev, 8) << 16 | low_bits(stat.st_ino, 16);
    Ok(key.cast_signed())
}

/// `stat(2)`. A short path is ended with a zero here, which takes half the time that it takes for any path.
fn look_at(path: &Path) -> rustix::io::Result<Stat> {
    const SHORT_BYTES: usize = 64;
    let bytes = path.as_os_str().as_bytes();
    let mut ended = [0; SHORT_BYTES];
    if bytes.len() < SHORT_BYTES {
        ended[..bytes.len()].copy_from_slice(bytes);
        if let Ok(path) = CStr::from_bytes_with_nul(&ended[..=bytes.len()]) {
            return rustix::fs::stat(path);
        }
    }
    rustix::fs::stat(path)
}

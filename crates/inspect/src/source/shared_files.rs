//! POSIX shared memory and named semaphores as files: /dev/shm.
//!
//! Source: `shm_overview(7)`, `sem_overview(7)`. No file is opened. Other mount namespaces are seen through a process's
//! own view of the file system.

use rustix::fs::FileType;

use super::folder::{Folder, device, times};
use super::maps::kind;
use crate::kind::Kind;
use crate::text::escaped;
use crate::times::Times;

/// A file in /dev/shm.
#[derive(Clone, Debug)]
pub struct File {
    /// POSIX shared memory, or a semaphore.
    pub kind: Kind,
    /// Its path, escaped.
    pub name: String,
    /// Its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Permission bits.
    pub mode: u32,
    /// Its size.
    pub size: u64,
    /// When it was made, changed and used.
    pub times: Times,
}

/// The files at the top of a folder that is some process's /dev/shm. What lies in folders below is not the C library's.
#[must_use]
pub fn all(path: &str) -> Vec<File> {
    const MOST: usize = 1 << 20;
    let mut files = Vec::new();
    let Ok(folder) = Folder::open(path) else { return files };
    let _ = folder.names(|name| {
        let Ok(status) = folder.link_status(name) else { return };
        if FileType::from_raw_mode(status.stx_mode.into()) != FileType::RegularFile
            || files.len() >= MOST
        {
            return;
        }
        let path = [b"/dev/shm/", name.to_bytes()].concat();
        files.push(File {
            kind: kind(&path, false),
            name: escaped(&path),
            device: device(&status),
            inode: status.stx_ino,
            uid: status.stx_uid,
            gid: status.stx_gid,
            mode: u32::from(status.stx_mode) & 0o7777,
            size: status.stx_size,
            times: times(&status),
        });
    });
    files
}

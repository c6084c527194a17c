//! What a process maps, asked one mapping at a time: only those of interest, and no text is made of any.
//!
//! Source: `ioctl_procfs_procmap_query` (the kernel's `Documentation/filesystems/proc.rst` and `include/uapi/linux/fs.h`), Linux 6.11. Older
//! kernels answer `ENOTTY`; `/proc/PID/maps` as text says the same there.

#![allow(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Updater, ioctl, opcode};

use crate::error::{Error, Result};

/// A mapping that is shared with whoever maps the same file or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMapping<'a> {
    /// The first address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// It can be read.
    pub reads: bool,
    /// It can be written.
    pub writes: bool,
    /// Where in the file it begins, in bytes.
    pub offset_bytes: u64,
    /// The file's device: major and minor.
    pub device: (u32, u32),
    /// The file's number.
    pub inode: u64,
    /// The file's path, as it is: any bytes but zero.
    pub name: &'a [u8],
}

/// `struct procmap_query`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    found_flags: u64,
    page_size_bytes: u64,
    offset: u64,
    inode: u64,
    device_major: u32,
    device_minor: u32,
    name_size: u32,
    build_id_size: u32,
    name_address: u64,
    build_id_address: u64,
}

const READABLE: u64 = 1;
const WRITABLE: u64 = 2;
const SHARED: u64 = 8;
const COVERING_OR_NEXT: u64 = 0x10;
const FILE_BACKED: u64 = 0x20;
const LONGEST_NAME: usize = 4096;

/// `ioctl(PROCMAP_QUERY)`: calls `each` with every shared mapping of the process whose `/proc/PID/maps` this is, by address.
///
/// Does not block. A process that maps and unmaps meanwhile is seen partly before, partly after that; of one that has ended there is none.
///
/// # Errors
/// `ENOTTY` before Linux 6.11; `ENAMETOOLONG` when a path is longer than 4095 bytes.
pub fn shared(maps: impl AsFd, mut each: impl FnMut(SharedMapping<'_>)) -> Result<()> {
    let mut name = [0_u8; LONGEST_NAME];
    let mut address = 0;
    loop {
        let mut query = Query {
            size: size_of::<Query>() as u64,
            flags: SHARED | FILE_BACKED | COVERING_OR_NEXT,
            address,
            name_size: LONGEST_NAME as u32,
            name_address: name.as_mut_ptr().expose_provenance() as u64,
            ..Query::default()
        };
        // SAFETY: the number is that of PROCMAP_QUERY, which takes a `struct procmap_query`.
        let call =
            unsafe { Updater::<{ opcode::read_write::<Query>(b'f', 17) }, Query>::new(&mut query) };
        // SAFETY: the kernel writes into `query` and at most `name_size` bytes into `name`; both live on.
        match unsafe { ioctl(&maps, call) } {
            Ok(()) => {}
            Err(Errno::NOENT | Errno::SRCH) => return Ok(()),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(Error::new("ioctl PROCMAP_QUERY", errno)),
        }
        let size = usize::try_from(query.name_size).unwrap_or(0).min(LONGEST_NAME);
        let shown = &name[..size];
        each(SharedMapping {
            start: query.start,
            end: query.end,
            reads: query.found_flags & READABLE != 0,
            writes: query.found_flags & WRITABLE != 0,
            offset_bytes: query.offset,
            device: (query.device_major, query.device_minor),
            inode: query.inode,
            name: shown.strip_suffix(b"\0").unwrap_or(shown),
        });
        if query.end <= address {
            return Ok(());
        }
        address = query.end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_laid_out_as_in_c() {
        assert_eq!(size_of::<Query>(), 104);
    }

    #[test]
    fn finds_what_the_text_says() {
        let file = tempfile::tempfile().expect("a file");
        file.set_len(8192).expect("a size");
        // SAFETY: a new mapping at an address that the kernel chooses.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                8192,
                rustix::mm::ProtFlags::READ,
                rustix::mm::MapFlags::SHARED,
                &file,
                0,
            )
        };
        let start = memory.expect("a mapping").addr() as u64;
        let maps = std::fs::File::open("/proc/self/maps").expect("maps");
        let mut found = Vec::new();
        let done = shared(&maps, |one| {
            found.push((one.start, one.end, one.reads, one.writes, one.inode, one.name.to_vec()));
        });
        match done {
            Ok(()) => {}
            Err(error) if error.errno() == Errno::NOTTY.raw_os_error() => {
                return switchboard_testkit::skip::skip(
                    "process_maps",
                    "this kernel has no PROCMAP_QUERY",
                );
            }
            Err(error) => panic!("{error}"),
        }
        let inode = rustix::fs::fstat(&file).expect("a status").st_ino;
        let own = found.iter().find(|one| one.0 == start).expect("the mapping");
        assert_eq!((own.1, own.2, own.3, own.4), (start + 8192, true, false, inode));
        assert!(own.5.ends_with(b" (deleted)"), "{:?}", own.5.escape_ascii().to_string());
        let text = std::fs::read_to_string("/proc/self/maps").expect("maps");
        let line = text.lines().find(|line| line.starts_with(&format!("{start:x}-")));
        assert!(line.is_some_and(|line| line.contains(" r--s ")), "{line:?}");
    }
}

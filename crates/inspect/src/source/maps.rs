//! Memory that a process shares: /proc/PID/maps.
//!
//! Source: `proc_pid_maps(5)`, and its `ioctl(PROCMAP_QUERY)` since Linux 6.11, which leaves out what is private. Line feeds in names are
//! written `\012` in the text. The kind of a mapping is told by
//! its device and its name; names alone can lie.

use rustix::io::Errno;
use switchboard_kernel::process_maps;

use super::folder::Folder;
use super::numbers::{decimal, device_in_text, hexadecimal};
use crate::kind::Kind;
use crate::text::escaped;

/// A shared mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The first address.
    pub start: u64,
    /// The address after the last.
    pub end: u64,
    /// It can be read.
    pub reads: bool,
    /// It can be written.
    pub writes: bool,
    /// Where in the file it begins.
    pub offset: u64,
    /// The file's device.
    pub device: u64,
    /// The file's number.
    pub inode: u64,
    /// What it is.
    pub kind: Kind,
    /// What it is called, escaped.
    pub name: String,
}

/// The most mappings that are kept of a process: Linux allows 65,530 by default.
const MOST: usize = 1 << 20;

/// Reads `maps`; private mappings are left out. `internal` is the device of memory without a file system.
#[must_use]
pub fn shared(text: &[u8], internal: u64) -> Vec<Mapped> {
    text.split(|&byte| byte == b'\n').filter_map(|line| one(line, internal)).take(MOST).collect()
}

/// What a process shares, by `maps` in its folder: asked for mapping by mapping where the kernel can, else read as text.
///
/// # Errors
/// `EACCES` without the right to; `ESRCH`, `ENOENT` when it ended.
pub fn of_process(
    process: &Folder,
    internal: u64,
    buffer: &mut Vec<u8>,
) -> Result<Vec<Mapped>, Errno> {
    let mut found = Vec::new();
    let maps = process.file(c"maps")?;
    let asked = process_maps::shared(&maps, |one| {
        if found.len() < MOST && one.inode != 0 {
            let device = rustix::fs::makedev(one.device.0, one.device.1);
            found.push(Mapped {
                start: one.start,
                end: one.end,
                reads: one.reads,
                writes: one.writes,
                offset: one.offset_bytes,
                device,
                inode: one.inode,
                kind: kind(one.name, device == internal),
                name: escaped(one.name),
            });
        }
    });
    if asked.is_ok() {
        return Ok(found);
    }
    process.read(c"maps", buffer)?;
    Ok(shared(buffer, internal))
}

/// What a process has mapped for itself alone of files in /dev/shm: it reads what others write there until it writes itself.
///
/// # Errors
/// As [`of_process`].
pub fn private_of_shared_files(
    process: &Folder,
    buffer: &mut Vec<u8>,
) -> Result<Vec<Mapped>, Errno> {
    process.read(c"maps", buffer)?;
    Ok(private(buffer))
}

/// As [`private_of_shared_files`], of text.
#[must_use]
pub fn private(text: &[u8]) -> Vec<Mapped> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| contains(line, b"/dev/shm/"));
    let found = lines.filter_map(|line| parsed(line, 0, b'p'));
    found.filter(|one| matches!(one.kind, Kind::PosixShm | Kind::PosixSem)).take(MOST).collect()
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    line.windows(part.len()).any(|window| window == part)
}

fn one(line: &[u8], internal: u64) -> Option<Mapped> {
    parsed(line, internal, b's')
}

/// A line of a mapping that is shared (`s`) or private (`p`).
fn parsed(line: &[u8], internal: u64, sharing: u8) -> Option<Mapped> {
    let mut parts = line.splitn(6, |&byte| byte == b' ');
    let range = parts.next()?;
    let access = parts.next()?;
    if access.get(3) != Some(&sharing) {
        return None;
    }
    let dash = range.iter().position(|&byte| byte == b'-')?;
    let offset = hexadecimal(parts.next()?)?;
    let device = device_in_text(parts.next()?)?;
    let inode = decimal(parts.next()?)?;
    let name = parts.next().unwrap_or_default().trim_ascii_start();
    if inode == 0 {
        return None;
    }
    Some(Mapped {
        start: hexadecimal(&range[..dash])?,
        end: hexadecimal(&range[dash + 1..])?,
        reads: access.first() == Some(&b'r'),
        writes: access.get(1) == Some(&b'w'),
        offset,
        device,
        inode,
        kind: kind(name, device == internal),
        name: escaped(name),
    })
}

/// What a file is in which memory lies.
#[must_use]
pub fn kind(name: &[u8], internal: bool) -> Kind {
    if internal && name.starts_with(b"/SYSV") {
        Kind::SysvShm
    } else if internal && name.starts_with(b"/dev/zero") {
        Kind::Anonymous
    } else if name.starts_with(b"/memfd:") && name.ends_with(b" (deleted)") {
        Kind::Memfd
    } else if let Some(rest) = name.strip_prefix(b"/dev/shm/") {
        if rest.starts_with(b"sem.") { Kind::PosixSem } else { Kind::PosixShm }
    } else {
        Kind::Mapping
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_shared() {
        let text = b"\
7f00-7f10 r--p 00000000 fe:00 12 /lib/x\n\
7f10-7f20 rw-s 00001000 00:01 77 /memfd:a b (deleted)\n\
7f20-7f30 rw-s 00000000 00:01 3 /SYSV00000000 (deleted)\n\
7f30-7f40 r--s 00000000 fe:00 4 /SYSV00000000 (deleted)\n\
7f40-7f50 rw-s 00000000 00:19 5                  /dev/shm/sem.x\n\
7f50-7f60 rw-s 00000000 00:01 6 /dev/zero (deleted)\n\
7f60 rw-s 0\nrw-s\n\n7f70-7f80 rw-s 00000000 00:00 0\n";
        let found = shared(text, rustix::fs::makedev(0, 1));
        let kinds: Vec<Kind> = found.iter().map(|mapped| mapped.kind).collect();
        assert_eq!(
            kinds,
            [Kind::Memfd, Kind::SysvShm, Kind::Mapping, Kind::PosixSem, Kind::Anonymous]
        );
        let text = b"7f10-7f20 r--p 00000000 00:19 5 /dev/shm/x\n7f20-7f30 rw-s 0 00:19 5 /dev/shm/x\n7f30-7f40 r--p 0 fe:1 9 /x\n";
        let kinds: Vec<Kind> = private(text).iter().map(|mapped| mapped.kind).collect();
        assert_eq!(kinds, [Kind::PosixShm]);
        assert_eq!((found[0].start, found[0].end, found[0].offset), (0x7f10, 0x7f20, 0x1000));
        assert_eq!(found[0].name, "/memfd:a b (deleted)");
        assert!(found[2].reads && !found[2].writes);
    }
}

//! What a process has mapped, and which of it is the shared memory of a plan.
//!
//! Source: `proc_pid_maps(5)`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Place;

/// The mappings of a process.
#[derive(Debug, Default)]
pub(super) struct Mappings {
    all: Vec<Mapping>,
    /// Those of the plan's objects.
    shared: Vec<SharedPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    /// In the file.
    offset: u64,
    is_shared: bool,
    is_code: bool,
    device: (u32, u32),
    inode: u64,
    path: Arc<Path>,
}

/// A part of an object, as it is mapped.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SharedPart {
    start: u64,
    end: u64,
    object: usize,
    offset: u64,
    path: Arc<Path>,
}

/// What a plan shares; or, if it does not say, what was found to be shared so far.
#[derive(Debug, Default)]
pub(super) struct Objects {
    known: Vec<Object>,
    any: bool,
}

#[derive(Debug)]
struct Object {
    path: PathBuf,
    device: (u32, u32),
    inode: u64,
}

/// Shared memory at an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) object: usize,
    pub(super) offset: u64,
    pub(super) path: Arc<Path>,
}

impl Objects {
    /// Of files; without any, of everything that is mapped shared.
    pub(super) fn of(paths: &[PathBuf]) -> io::Result<Self> {
        let known = paths.iter().map(|path| {
            let found = std::fs::metadata(path)?;
            let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
            Ok(Object { path: path.clone(), device: (major, minor), inode: found.ino() })
        });
        Ok(Self { known: known.collect::<io::Result<_>>()?, any: paths.is_empty() })
    }

    /// A file system may have another device number in `maps` than in `stat` (overlayfs, btrfs):
    /// then the path tells.
    fn index_of(&mut self, mapping: &Mapping) -> Option<usize> {
        let is_it = |object: &Object| {
            (object.device, object.inode) == (mapping.device, mapping.inode)
                || *object.path == *mapping.path
        };
        let index = self.known.iter().position(is_it);
        if index.is_none() && self.any {
            let (path, device, inode) = (PathBuf::new(), mapping.device, mapping.inode);
            self.known.push(Object { path, device, inode });
            return Some(self.known.len() - 1);
        }
        index
    }
}

impl Mappings {
    pub(super) fn read(process: u32, objects: &mut Objects) -> io::Result<Self> {
        Ok(Self::of(&std::fs::read_to_string(format!("/proc/{process}/maps"))?, objects))
    }

    fn of(text: &str, objects: &mut Objects) -> Self {
        let all: Vec<Mapping> = text.lines().filter_map(mapping).collect();
        let shared = all.iter().filter(|mapping| mapping.is_shared).filter_map(|mapping| {
            let object = objects.index_of(mapping)?;
            let Mapping { start, end, offset, ref path, .. } = *mapping;
            Some(SharedPart { start, end, object, offset, path: Arc::clone(path) })
        });
        Self { shared: shared.collect(), all }
    }

    /// The shared memory that these bytes touch; its offset is that of the first of them.
    pub(super) fn shared_at(&self, address: u64, len_bytes: usize) -> Option<Found> {
        let end = address.saturating_add(len_bytes as u64);
        let part = self.shared.iter().find(|part| address < part.end && end > part.start)?;
        let offset = part.offset + address.saturating_sub(part.start);
        Some(Found { object: part.object, offset, path: Arc::clone(&part.path) })
    }

    /// Where an instruction is.
    pub(super) fn place(&self, address: u64) -> Place {
        match self.all.iter().find(|mapping| (mapping.start..mapping.end).contains(&address)) {
            Some(mapping) => Place {
                module: Arc::clone(&mapping.path),
                offset: mapping.offset + (address - mapping.start),
            },
            None => Place { module: Path::new("[unknown]").into(), offset: address },
        }
    }

    /// Where an instruction of a place is.
    pub(super) fn address(&self, place: &Place) -> Option<u64> {
        let is_there = |mapping: &&Mapping| {
            let len = mapping.end - mapping.start;
            mapping.is_code
                && mapping.path == place.module
                && (mapping.offset..mapping.offset + len).contains(&place.offset)
        };
        let mapping = self.all.iter().find(is_there)?;
        Some(mapping.start + (place.offset - mapping.offset))
    }

    /// Whether the same code is at the same addresses.
    pub(super) fn has_code_of(&self, other: &Self) -> bool {
        let code = |mappings: &Self| -> Vec<Mapping> {
            mappings.all.iter().filter(|mapping| mapping.is_code).cloned().collect()
        };
        code(self) == code(other)
    }
}

/// `55d0-55e0 r-xp 00002000 08:01 1234    /usr/bin/x`.
fn mapping(line: &str) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let (word, left) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = left.trim_start();
        word
    };
    let (range, modes, offset, device, inode) = (word(), word(), word(), word(), word());
    let hex = |digits| u64::from_str_radix(digits, 16).ok();
    let (start, end) = range.split_once('-')?;
    let (major, minor) = device.split_once(':')?;
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        is_shared: modes.ends_with('s'),
        is_code: modes.as_bytes().get(2) == Some(&b'x'),
        device: (hex(major)?.try_into().ok()?, hex(minor)?.try_into().ok()?),
        inode: inode.parse().ok()?,
        path: Path::new(rest).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
555555554000-555555558000 r--p 00000000 08:01 77                         /usr/bin/x y
555555558000-55555555a000 r-xp 00004000 08:01 77                         /usr/bin/x y
7ffff7d00000-7ffff7d02000 rw-s 00001000 00:01 2048                       /memfd:words (deleted)
7ffff7fc1000-7ffff7fc3000 r-xp 00000000 00:00 0                          [vdso]
7ffff7fd0000-7ffff7fd1000 rw-s 00000000 00:01 9                          /dev/zero (deleted)
7ffff7fe0000-7ffff7fe1000 rw-p 00000000 00:00 0
";

    fn found(mappings: &Mappings, address: u64, len_bytes: usize) -> Option<(usize, u64)> {
        mappings.shared_at(address, len_bytes).map(|found| (found.object, found.offset))
    }

    #[test]
    fn places_have_offsets_in_their_files() {
        let mappings = Mappings::of(MAPS, &mut Objects::default());
        let place = mappings.place(0x5555_5555_8010);
        assert_eq!((&*place.module, place.offset), (Path::new("/usr/bin/x y"), 0x4010));
        assert_eq!(mappings.address(&place), Some(0x5555_5555_8010));
        assert_eq!(mappings.place(0x7fff_f7fc_1001).to_string(), "[vdso]+0x1");
        assert_eq!(mappings.place(1).to_string(), "[unknown]+0x1");
        assert!(mappings.has_code_of(&mappings));
    }

    #[test]
    fn shared_memory_is_found_by_its_file() {
        let words = Object { path: "/proc/1/fd/3".into(), device: (0, 1), inode: 2048 };
        let mappings = Mappings::of(MAPS, &mut Objects { known: vec![words], any: false });
        assert_eq!(found(&mappings, 0x7fff_f7d0_0008, 4), Some((0, 0x1008)));
        assert_eq!(found(&mappings, 0x7fff_f7cf_fffc, 8), Some((0, 0x1000)));
        assert_eq!(found(&mappings, 0x7fff_f7d0_2000, 4), None);
        assert_eq!(found(&mappings, 0x7fff_f7fd_0000, 4), None);
    }

    #[test]
    fn without_names_all_that_is_shared_counts_and_keeps_its_number() {
        let mut objects = Objects::of(&[]).expect("no files");
        let mappings = Mappings::of(MAPS, &mut objects);
        assert_eq!(found(&mappings, 0x7fff_f7d0_0008, 4), Some((0, 0x1008)));
        assert_eq!(found(&mappings, 0x7fff_f7fd_0001, 1), Some((1, 1)));
        assert_eq!(found(&mappings, 0x7fff_f7fe_0000, 1), None);
        let before = "7ffff7c00000-7ffff7c01000 rw-s 00000000 00:01 5 /memfd:new (deleted)\n";
        let mappings = Mappings::of(&format!("{before}{MAPS}"), &mut objects);
        assert_eq!(found(&mappings, 0x7fff_f7c0_0000, 1), Some((2, 0)));
        assert_eq!(found(&mappings, 0x7fff_f7fd_0001, 1), Some((1, 1)));
    }
}

//! Files of sockets and FIFOs, in folders where programs make them.
//!
//! Source: `unix(7)`, `fifo(7)`, `statx(2)`, `proc_pid_mountinfo(5)`. Nothing in a folder is opened but folders, and those on local file systems
//! only: a server of files that does not answer would hold us up. Bounded in depth, number and time.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::folder::{Folder, device, times};
use super::numbers::words;
use crate::text::escaped;
use crate::times::Times;

/// The most names that are looked at in all folders together.
pub const MOST_NAMES: u32 = 200_000;
/// How long that may take.
pub const MOST_TIME: Duration = Duration::from_secs(2);
/// How many folders deep.
pub const DEPTH: u32 = 6;

/// A folder to look in.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    /// How many folders below it are looked into.
    pub depth: u32,
}

/// The file of a socket, or a FIFO.
#[derive(Debug)]
pub struct File {
    /// A FIFO, and no socket.
    pub is_fifo: bool,
    /// Its path.
    pub path: PathBuf,
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
    /// When it was made, changed and used.
    pub times: Times,
}

impl File {
    /// Leads to this very file, whatever its name comes to mean; nothing can be read from it.
    #[must_use]
    pub fn handle(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(CWD, &self.path, flags, Mode::empty()).ok()?;
        let found = rustix::fs::fstat(&handle).ok()?;
        ((found.st_dev, found.st_ino) == (self.device, self.inode)).then_some(handle)
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// The files.
    pub files: Vec<File>,
    /// Each folder that was looked at, with how far.
    pub looked: Vec<String>,
}

/// Where programs make them: `/run`, `/var/run`, `/tmp`, `/var/tmp`, `TMPDIR`, `XDG_RUNTIME_DIR`, the current folder itself, and those that
/// are given.
#[must_use]
pub fn usual(more: &[PathBuf]) -> Vec<Place> {
    let deep = |path: PathBuf| Place { path, depth: DEPTH };
    let of_environment = |name| std::env::var_os(name).filter(|path| !path.is_empty());
    let given = more.iter().cloned();
    let fixed = ["/run", "/tmp", "/var/run", "/var/tmp"].map(PathBuf::from);
    let own = ["XDG_RUNTIME_DIR", "TMPDIR"].into_iter().filter_map(of_environment);
    let mut all: Vec<Place> = given.chain(fixed).chain(own.map(PathBuf::from)).map(deep).collect();
    if let Ok(path) = std::env::current_dir() {
        all.push(Place { path, depth: 0 });
    }
    all
}

/// Looks into folders, in their order.
#[must_use]
pub fn all(places: &[Place]) -> Found {
    let mut search = Search {
        local: local_devices(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()),
        seen: HashSet::new(),
        names: 0,
        until: Instant::now() + MOST_TIME,
        found: Found::default(),
    };
    let mut said = HashSet::new();
    for place in places {
        let shown = escaped(place.path.as_os_str().as_encoded_bytes());
        if !said.insert(shown.clone()) {
            continue;
        }
        let result = search.place(place);
        let text = match result {
            Ok(()) if search.is_over() => format!("{shown} (in part: there are too many files)"),
            Ok(()) => shown,
            Err(Errno::NOENT) => continue,
            Err(error) => format!("{shown} (not looked at: {error})"),
        };
        search.found.looked.push(text);
    }
    search.found
}

struct Search {
    /// What a device is, if this kernel alone uses it.
    local: HashMap<u64, String>,
    /// Folders that were looked into.
    seen: HashSet<(u64, u64)>,
    names: u32,
    until: Instant,
    found: Found,
}

impl Search {
    fn is_over(&self) -> bool {
        self.names >= MOST_NAMES || Instant::now() >= self.until
    }

    fn place(&mut self, place: &Place) -> Result<(), Errno> {
        // Where the path leads, whatever links are in it: `/var/run` is one.
        let path = std::fs::canonicalize(&place.path)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let status = rustix::fs::statx(CWD, &path, STAT, WANTED)?;
        if self.seen.contains(&(device(&status), status.stx_ino)) {
            return Ok(());
        }
        if FileType::from_raw_mode(status.stx_mode.into()) != FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        // What lies high comes first, in case it is too much.
        let mut folders = VecDeque::from([(path, status, place.depth)]);
        let mut first = true;
        while let Some((path, status, depth)) = folders.pop_front() {
            if self.is_over() {
                return Ok(());
            }
            if !self.may_enter(&status) {
                if first {
                    return Err(Errno::NOTSUP);
                }
                continue;
            }
            let entered = self.folder(&path, &status, depth, &mut folders);
            if first {
                entered?;
            }
            first = false;
        }
        Ok(())
    }

    /// Whether a folder is new, local, and no door to something that is mounted when it is opened.
    fn may_enter(&mut self, status: &Statx) -> bool {
        !status.stx_attributes.contains(StatxAttributes::AUTOMOUNT)
            && self.local.contains_key(&device(status))
            && self.seen.insert((device(status), status.stx_ino))
    }

    fn folder(
        &mut self,
        path: &Path,
        status: &Statx,
        depth: u32,
        below: &mut VecDeque<(PathBuf, Statx, u32)>,
    ) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Who owns it, or may do everything, can leave its time of last use as it is.
        let quiet = rustix::fs::openat(CWD, path, flags | OFlags::NOATIME, Mode::empty());
        let open = match quiet {
            Err(Errno::PERM) => rustix::fs::openat(CWD, path, flags, Mode::empty())?,
            result => result?,
        };
        let folder = Folder::from(open);
        if folder.identity()? != (device(status), status.stx_ino) {
            return Ok(());
        }
        folder.entries_from(0, |name, kind| {
            self.names = self.names.saturating_add(1);
            let interesting = matches!(
                kind,
                FileType::Directory | FileType::Socket | FileType::Fifo | FileType::Unknown
            );
            if !interesting || self.is_over() {
                return;
            }
            let Ok(status) = rustix::fs::statx(&folder, name, STAT, WANTED) else { return };
            let whole = path.join(OsStr::from_bytes(name.to_bytes()));
            match FileType::from_raw_mode(status.stx_mode.into()) {
                FileType::Directory if depth > 0 => below.push_back((whole, status, depth - 1)),
                FileType::Socket => self.found.files.push(file(false, whole, &status)),
                FileType::Fifo => self.found.files.push(file(true, whole, &status)),
                _ => {}
            }
        })
    }
}

const STAT: AtFlags =
    AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::STATX_DONT_SYNC).union(AtFlags::NO_AUTOMOUNT);
const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

fn file(is_fifo: bool, path: PathBuf, status: &Statx) -> File {
    File {
        is_fifo,
        path,
        device: device(status),
        inode: status.stx_ino,
        uid: status.stx_uid,
        gid: status.stx_gid,
        mode: u32::from(status.stx_mode) & 0o7777,
        times: times(status),
    }
}

/// The devices of `mountinfo` whose file systems only this kernel uses, with their kinds.
#[must_use]
pub fn local_devices(mountinfo: &[u8]) -> HashMap<u64, String> {
    const LOCAL: &[&[u8]] = &[
        b"tmpfs",
        b"devtmpfs",
        b"ramfs",
        b"rootfs",
        b"ext2",
        b"ext3",
        b"ext4",
        b"xfs",
        b"btrfs",
        b"f2fs",
        b"overlay",
        b"zfs",
        b"bcachefs",
        b"reiserfs",
        b"jfs",
    ];
    let lines = mountinfo.split(|&byte| byte == b'\n');
    let one = |line: &[u8]| {
        let mut parts = words(line);
        let device = super::numbers::device_in_decimal(parts.nth(2)?)?;
        let kind = parts.skip_while(|word| *word != b"-").nth(1)?;
        LOCAL.contains(&kind).then(|| (device, escaped(kind)))
    };
    lines.filter_map(one).collect()
}

/// A file system that is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mounted<'a> {
    /// Its device.
    pub device: u64,
    /// Its kind: `tmpfs`.
    pub kind: &'a [u8],
}

/// The file system of `mountinfo` that a path lies on.
#[must_use]
pub fn mounted<'a>(mountinfo: &'a [u8], path: &[u8]) -> Option<Mounted<'a>> {
    let mut best: Option<(usize, Mounted<'a>)> = None;
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let mut parts = words(line);
        let Some(device) = parts.nth(2).and_then(super::numbers::device_in_decimal) else {
            continue;
        };
        let Some(point) = parts.nth(1).map(super::rings::plain) else { continue };
        let Some(kind) = parts.skip_while(|word| *word != b"-").nth(1) else { continue };
        let point = point.strip_suffix(b"/").unwrap_or(&point);
        let below = path.strip_prefix(point).is_some_and(|rest| rest.starts_with(b"/"));
        // What was mounted later hides what lies below it.
        if below && best.is_none_or(|(len, _)| point.len() >= len) {
            best = Some((point.len(), Mounted { device, kind }));
        }
    }
    best.map(|(_, mounted)| mounted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_local_file_systems() {
        let text = b"21 1 0:20 / /run rw,nosuid shared:5 - tmpfs tmpfs rw\n\
22 1 254:1 / / rw - ext4 /dev/vda rw\n23 1 0:44 / /mnt rw - nfs4 server:/ rw\nx\n24 1 0:9 / - \n";
        let found = local_devices(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[&rustix::fs::makedev(0, 20)], "tmpfs");
        assert_eq!(found[&rustix::fs::makedev(254, 1)], "ext4");
    }

    #[test]
    fn what_a_path_lies_on() {
        let text = b"22 1 254:1 / / rw - ext4 /dev/vda rw\n21 1 0:20 / /run rw shared:5 - tmpfs tmpfs rw\n\
23 1 0:44 / /run/a\\040b rw - nfs4 server:/ rw\n24 1 0:9 / - \nx\n";
        for (path, kind) in [
            ("/run/x", &b"tmpfs"[..]),
            ("/runx", b"ext4"),
            ("/x", b"ext4"),
            ("/run/a b/c", b"nfs4"),
            ("/run/a bc", b"tmpfs"),
        ] {
            assert_eq!(mounted(text, path.as_bytes()).map(|one| one.kind), Some(kind), "{path}");
        }
        assert_eq!(mounted(b"", b"/x"), None);
    }
}

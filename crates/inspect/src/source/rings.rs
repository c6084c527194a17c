//! What an io_uring holds by itself: files that are registered with it, and requests that are under way. Who closes the descriptor of such a file
//! has it all the same.
//!
//! Source: `io_uring_register(2)`, the kernel's `io_uring/fdinfo.c`. The kernel names registered files by their paths alone, as they are in the
//! reader's view; what a path leads to is looked up, and what cannot be told is counted.

use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags};

use super::folder::{Folder, bracketed, device};
use super::numbers::{decimal, field, small};
use super::places::{local_devices, mounted};

/// The most registered files that are looked at.
pub const MOST_FILES: usize = 1 << 16;
/// The kernel says nothing while the ring is being entered: so often it is asked again.
const TRIES: u32 = 20;
const BETWEEN: Duration = Duration::from_millis(1);

/// What the text says of a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// The inode of the ring itself, by which its mappings are known.
    pub inode: Option<u64>,
    /// The registered files, by what the kernel calls them.
    pub files: Vec<Vec<u8>>,
    /// All of it is there.
    pub is_whole: bool,
    /// A request may be under way, whose file nobody names.
    pub is_busy: bool,
}

/// What a mapping of a ring is called.
pub const MAPPED: &str = "anon_inode:[io_uring]";

/// Reads what `fdinfo` says of a ring.
#[must_use]
pub fn text(fdinfo: &[u8]) -> Text {
    let head =
        fdinfo.split(|&byte| byte == b'\n').take_while(|line| !line.starts_with(b"UserFiles:"));
    let number = |name| field(fdinfo, name).and_then(small);
    let taken = (number("CachedSqHead"), number("CachedCqTail"));
    let mut found = Text {
        inode: head.clone().find_map(|line| field(line, "ino").and_then(decimal)),
        is_busy: taken.0.is_none() || taken.0 != taken.1,
        ..Text::default()
    };
    let mut rest = fdinfo.split(|&byte| byte == b'\n').skip(head.count());
    let Some(slots) = rest.next().and_then(|line| field(line, "UserFiles")).and_then(small) else {
        return found;
    };
    for line in rest.by_ref() {
        if line.starts_with(b"UserBufs:") {
            // Older kernels leave the list out while the ring is being entered, and say how many there are.
            found.is_whole = slots == 0 || !found.files.is_empty();
            break;
        }
        let Some(at) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = line[at + 1..].strip_prefix(b" ").unwrap_or_default();
        if small(line[..at].trim_ascii()).is_none() || name == b"<none>" {
            continue;
        }
        if found.files.len() >= MOST_FILES {
            break;
        }
        found.files.push(plain(name));
    }
    let mut polls = rest.skip_while(|line| !line.starts_with(b"PollList:")).skip(1);
    found.is_busy |= polls.next().is_some_and(|line| line.starts_with(b" "));
    found
}

/// A path without what the kernel writes for spaces and the like: `\040`.
pub(super) fn plain(name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.first_chunk::<3>().filter(|_| first == b'\\');
        let code = escaped.and_then(|digits| super::numbers::octal(digits));
        match code.and_then(|code| u8::try_from(code).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// What a registered file is.
#[derive(Debug)]
pub enum Registered {
    /// What has this path, and what it is.
    File(Box<Statx>),
    /// A socket, by its inode.
    Socket(u64),
    /// What has no name that anybody could come by, or lies on a file system that nothing is looked for on.
    Other,
    /// That cannot be told.
    Unknown,
}

/// A ring of a process.
#[derive(Debug)]
pub struct Ring {
    /// The inode of the ring itself, by which its mappings are known.
    pub inode: Option<u64>,
    /// The registered files: what the kernel calls each, and what it is.
    pub files: Vec<(Vec<u8>, Registered)>,
    /// The list is all there is.
    pub is_whole: bool,
    /// A request may be under way, whose file nobody names.
    pub is_busy: bool,
}

/// Looks up what the rings of a process hold.
#[derive(Debug)]
pub struct Rings<'a> {
    process: &'a Folder,
    /// The kernel writes paths as this process would see them, but those of other mount namespaces as these do.
    is_own: bool,
    mounts: Vec<u8>,
}

impl<'a> Rings<'a> {
    /// Those of the process, or thread, of this folder in `/proc`.
    #[must_use]
    pub fn of(process: &'a Folder) -> Self {
        let own = Folder::open("/proc/self").ok().and_then(|own| own.namespace("ns/mnt"));
        let is_own = own.is_some() && own == process.namespace("ns/mnt");
        let mut mounts = Vec::new();
        let read = if is_own {
            Folder::open("/proc/self").and_then(|own| own.read(c"mountinfo", &mut mounts))
        } else {
            process.read(c"mountinfo", &mut mounts)
        };
        if read.is_err() {
            mounts.clear();
        }
        Self { process, is_own, mounts }
    }

    /// The ring of this descriptor.
    #[must_use]
    pub fn ring(&self, fd: u32) -> Ring {
        let mut buffer = Vec::new();
        let mut found = Text::default();
        for again in 0..TRIES {
            if again > 0 {
                std::thread::sleep(BETWEEN);
            }
            if self.process.read(format!("fdinfo/{fd}"), &mut buffer).is_err() {
                break;
            }
            found = text(&buffer);
            if found.is_whole {
                break;
            }
        }
        let files = found.files.into_iter().map(|name| {
            let what = self.leads_to(&name);
            (name, what)
        });
        Ring {
            inode: found.inode,
            files: files.collect(),
            is_whole: found.is_whole,
            is_busy: found.is_busy,
        }
    }

    /// What a registered file is that the kernel calls so.
    fn leads_to(&self, name: &[u8]) -> Registered {
        const NOWHERE: &[&[u8]] = &[b"/memfd:", b"/dev/zero (", b"/SYSV", b"/["];
        if let Some(inode) = bracketed(name, b"socket") {
            return Registered::Socket(inode);
        }
        if name.starts_with(b"anon_inode:") || bracketed(name, b"pipe").is_some() {
            return Registered::Other;
        }
        let is_deleted = name.ends_with(b" (deleted)");
        if is_deleted && NOWHERE.iter().any(|start| name.starts_with(start)) {
            return Registered::Other;
        }
        // Older kernels give the last part of the path only.
        let Some(within) = name.strip_prefix(b"/").filter(|_| !is_deleted) else {
            return Registered::Unknown;
        };
        match mounted(&self.mounts, name) {
            Some(device) if is_looked_into(&self.mounts, device) => {}
            // A server of files that does not answer would hold us up; and nothing is looked for there.
            Some(_) => return Registered::Other,
            None => return Registered::Unknown,
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
        let found = if self.is_own {
            rustix::fs::statx(CWD, name, flags, StatxFlags::BASIC_STATS)
        } else {
            let path = [b"root/", within].concat();
            rustix::fs::statx(self.process, path, flags, StatxFlags::BASIC_STATS)
        };
        match found {
            // What is there now is no file that could be registered: another one has its name.
            Ok(status) if is_link(&status) => Registered::Unknown,
            Ok(status) => Registered::File(Box::new(status)),
            Err(_) => Registered::Unknown,
        }
    }
}

fn is_link(status: &Statx) -> bool {
    FileType::from_raw_mode(status.stx_mode.into()) == FileType::Symlink
}

/// Whether files of sockets, FIFOs, memory or queues are looked for on what is mounted there.
fn is_looked_into(mounts: &[u8], found: super::places::Mounted<'_>) -> bool {
    found.kind == b"mqueue" || local_devices(mounts).contains_key(&found.device)
}

/// Whether a registered file is this one, by what it leads to or by the last part of what the kernel calls it; a name that nobody else has says it
/// for sure, wherever it is mounted.
#[must_use]
pub fn is_of(name: &[u8], what: &Registered, file: (u64, u64), own_name: &[u8]) -> bool {
    let last = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    match what {
        Registered::File(status) => (device(status), status.stx_ino) == file,
        Registered::Unknown => last == own_name,
        Registered::Socket(_) | Registered::Other => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "pos:\t0\nflags:\t02000002\nmnt_id:\t17\nino:\t215\nSqMask:\t0x3\nCachedSqHead:\t4\nCachedCqTail:\t4\n\
UserFiles:\t9\n    0: /tmp/a\\040b\n    1: /tmp/g\\134x\\012y\n    2: /tmp/h\\040(deleted)\n    3: pipe:[7]\n    4: socket:[8]\n\
    5: <none>\n    8: name\nUserBufs:\t1\n    0: 0x7f00/4096\nPollList:\nCqOverflowList:\nNAPI:\tdisabled\n";

    #[test]
    fn what_a_ring_says() {
        let found = text(TEXT.as_bytes());
        let expected: [&[u8]; 6] = [
            b"/tmp/a b",
            b"/tmp/g\\x\ny",
            b"/tmp/h (deleted)",
            b"pipe:[7]",
            b"socket:[8]",
            b"name",
        ];
        assert_eq!(found.files, expected);
        assert_eq!((found.inode, found.is_whole, found.is_busy), (Some(215), true, false));
        let busy = TEXT.replace("PollList:\n", "PollList:\n  op=22, task_works=0\n");
        assert!(text(busy.as_bytes()).is_busy);
        assert!(text(TEXT.replace("CqTail:\t4", "CqTail:\t3").as_bytes()).is_busy);
        // The ring was being entered: nothing of it is said, or how many there are and not which.
        for part in
            ["pos:\t0\nino:\t2\n", "UserFiles:\t3\nUserBufs:\t0\n", "UserFiles:\t1\n    0: /a\n"]
        {
            assert!(!text(part.as_bytes()).is_whole, "{part}");
        }
        assert!(text(b"UserFiles:\t0\nUserBufs:\t0\n").is_whole);
    }

    #[test]
    fn escapes() {
        for (written, meant) in [
            (&b"a\\040b"[..], &b"a b"[..]),
            (b"\\777", b"\\777"),
            (b"\\04", b"\\04"),
            (b"\\", b"\\"),
        ] {
            assert_eq!(plain(written), meant);
        }
    }
}

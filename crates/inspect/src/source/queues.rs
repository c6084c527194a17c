//! POSIX message queues: the mqueue file system.
//!
//! Source: `mq_overview(7)`, `fsopen(2)`. A mount that is attached nowhere shows it to a privileged reader without
//! changing anything; others need `/dev/mqueue`. A queue is opened to ask how many messages it has; it is not read, because that would
//! change its times.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use switchboard_kernel::posix_mq::{Attributes, MessageQueue};

use super::folder::{device, times};
use crate::text::escaped;
use crate::times::Times;

/// A queue with a name.
#[derive(Clone, Debug)]
pub struct Queue {
    /// Its name, with its slash, escaped.
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
    /// When it was made and used.
    pub times: Times,
    /// Its sizes and depth, if it may be opened.
    pub attributes: Option<Attributes>,
}

const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// All of this IPC namespace.
///
/// # Errors
/// `EPERM` without privilege where `/dev/mqueue` is not mounted.
pub fn all() -> Result<Vec<Queue>, Errno> {
    let folder = match detached() {
        Ok(folder) => folder,
        Err(error) => mounted().ok_or(error)?,
    };
    let mut names = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(&folder)?;
    while let Some(entry) = entries.read() {
        let name = entry?.file_name().to_owned();
        if name.as_c_str() != c"." && name.as_c_str() != c".." {
            names.push(name);
        }
    }
    let queues = names.iter().filter_map(|name| {
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        let status = rustix::fs::statx(&folder, name, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        let open = rustix::fs::openat(&folder, name, READ, Mode::empty());
        Some(Queue {
            name: format!("/{}", escaped(name.to_bytes())),
            device: device(&status),
            inode: status.stx_ino,
            uid: status.stx_uid,
            gid: status.stx_gid,
            mode: u32::from(status.stx_mode) & 0o7777,
            times: times(&status),
            attributes: open.ok().and_then(|fd| MessageQueue::from(fd).attributes().ok()),
        })
    });
    Ok(queues.collect())
}

fn detached() -> Result<std::os::fd::OwnedFd, Errno> {
    let context = rustix::mount::fsopen("mqueue", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY;
    let mount = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
    // What `fsmount` gives can be walked, not read.
    rustix::fs::openat(&mount, ".", READ | OFlags::DIRECTORY, Mode::empty())
}

fn mounted() -> Option<std::os::fd::OwnedFd> {
    const MQUEUE_MAGIC: i64 = 0x1980_0202;
    let found = rustix::fs::statfs("/dev/mqueue").ok()?;
    (found.f_type == MQUEUE_MAGIC).then_some(())?;
    rustix::fs::openat(CWD, "/dev/mqueue", READ | OFlags::DIRECTORY, Mode::empty()).ok()
}

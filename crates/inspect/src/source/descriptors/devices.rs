//! What lies on a device, so that not every descriptor's link has to be read.
//!
//! Source: `statfs(2)`.

/// What the files of a device are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Device {
    /// Anonymous pipes.
    Pipes,
    /// Sockets.
    Sockets,
    /// What has no path, of a kind that the link says.
    Anonymous,
    /// POSIX queues.
    Queues,
    /// Memory, maybe: the path says what a file is.
    Memory,
    /// Files of which only locks are of interest.
    Files,
}

/// What the files of a file system are that has no device of its own.
pub(super) fn of_file_system(path: &str) -> Device {
    const MQUEUE: i64 = 0x1980_0202;
    /// overlayfs, proc, sysfs, cgroup2, btrfs, nfs, cifs, smb2, fuse, 9p: nobody has /dev/shm on these.
    const FILES: [i64; 10] = [
        0x794c_7630,
        0x9fa0,
        0x6265_6572,
        0x6367_7270,
        0x9123_683e,
        0x6969,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x0102_1997,
    ];
    // What does not say what it is, is looked at file by file.
    match rustix::fs::statfs(path).map(|found| found.f_type & 0xffff_ffff) {
        Ok(MQUEUE) => Device::Queues,
        Ok(found) if FILES.contains(&found) => Device::Files,
        _ => Device::Memory,
    }
}

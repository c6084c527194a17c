//! What /proc/PID/fdinfo says of a descriptor.
//!
//! Source: `proc_pid_fdinfo(5)`.

use super::What;
use crate::kind::Kind;
use crate::source::numbers::{decimal, field, hexadecimal, octal, signed, small, words};

/// The most files of one epoll instance.
const MOST_TARGETS: usize = 1 << 20;

/// What the fdinfo of something without a file says.
#[must_use]
pub fn anonymous(kind: Kind, fdinfo: &[u8]) -> Option<What> {
    let number = |name| field(fdinfo, name).and_then(decimal);
    Some(match kind {
        Kind::Eventfd => {
            let count = field(fdinfo, "eventfd-count").and_then(hexadecimal).unwrap_or(0);
            What::Eventfd(number("eventfd-id")?, count)
        }
        Kind::Epoll => What::Epoll(Some(watched(fdinfo))),
        Kind::Signalfd => What::Signalfd(Some(field(fdinfo, "sigmask").and_then(hexadecimal)?)),
        Kind::Timerfd => {
            let value = field(fdinfo, "it_value").unwrap_or(b"(0, 0)");
            What::Timerfd(value.iter().any(|byte| (b'1'..=b'9').contains(byte)))
        }
        Kind::Inotify => {
            let lines = fdinfo.split(|&byte| byte == b'\n');
            What::Inotify(Some(lines.filter(|line| line.starts_with(b"inotify wd:")).count()))
        }
        Kind::Pidfd => {
            let pid = field(fdinfo, "Pid").and_then(signed);
            let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|&pid| pid != 0);
            What::Pidfd(number("ino")?, pid)
        }
        _ => return None,
    })
}

/// The `tfd:` lines of an epoll instance.
fn watched(fdinfo: &[u8]) -> Vec<(i32, u64, u32)> {
    let lines = fdinfo.split(|&byte| byte == b'\n');
    let found = lines.filter_map(|line| {
        let mut parts = words(line.strip_prefix(b"tfd:")?);
        let fd = i32::try_from(small(parts.next()?)?).ok()?;
        let events = hexadecimal(parts.nth(1)?)?;
        let inode = parts.find_map(|word| word.strip_prefix(b"ino:")).and_then(hexadecimal)?;
        Some((fd, inode, u32::try_from(events & 0xffff_ffff).ok()?))
    });
    found.take(MOST_TARGETS).collect()
}

/// The direction in which a descriptor was opened, by `flags:` in its fdinfo: whether for reading, whether for writing.
#[must_use]
pub fn direction(fdinfo: &[u8]) -> Option<(bool, bool)> {
    Some(match field(fdinfo, "flags").and_then(octal)? & 3 {
        0 => (true, false),
        1 => (false, true),
        _ => (true, true),
    })
}

/// How many descriptors wait in a Unix socket to be taken, where the kernel says so (Linux 5.6).
#[must_use]
pub fn in_flight(fdinfo: &[u8]) -> Option<u32> {
    field(fdinfo, "scm_fds").and_then(small)
}

/// The inode of what it leads to, where the kernel says so (Linux 5.14).
#[must_use]
pub fn inode(fdinfo: &[u8]) -> Option<u64> {
    field(fdinfo, "ino").and_then(decimal)
}

/// Where in the file the next read or write begins.
#[must_use]
pub fn position(fdinfo: &[u8]) -> Option<u64> {
    field(fdinfo, "pos").and_then(decimal)
}

/// The number of the pseudo-terminal whose master it is.
#[must_use]
pub fn terminal(fdinfo: &[u8]) -> Option<u32> {
    field(fdinfo, "tty-index").and_then(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file() {
        let eventfd = b"pos:\t0\neventfd-count:               1f\neventfd-id: 9\n";
        assert_eq!(anonymous(Kind::Eventfd, eventfd), Some(What::Eventfd(9, 31)));
        let epoll = b"pos:\t0\ntfd:        4 events:       1f data:                4  pos:0 ino:41234df sdev:f\ntfd: x\n";
        assert_eq!(
            anonymous(Kind::Epoll, epoll),
            Some(What::Epoll(Some(vec![(4, 0x0412_34df, 0x1f)])))
        );
        let pidfd = b"ino:\t77\nPid:\t-1\n";
        assert_eq!(anonymous(Kind::Pidfd, pidfd), Some(What::Pidfd(77, None)));
        assert_eq!(anonymous(Kind::Timerfd, b"it_value: (0, 90)\n"), Some(What::Timerfd(true)));
        assert_eq!(anonymous(Kind::Timerfd, b"it_value: (0, 0)\n"), Some(What::Timerfd(false)));
        assert_eq!(anonymous(Kind::Eventfd, b""), None);
        assert_eq!(direction(b"flags:\t02000001\n"), Some((false, true)));
    }
}

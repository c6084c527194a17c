//! File locks: /proc/locks, and `lock:` in fdinfo.
//!
//! Source: `proc_locks(5)`. Those who wait stand below the lock that is in their way, with `->`. An open-file-description lock
//! has no process there; fdinfo of its descriptor repeats the line, which says who holds it.

use super::numbers::{decimal, device_in_text, signed, words};
use crate::model::LockKind;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Which of the kernel's.
    pub kind: LockKind,
    /// Alone, not shared.
    pub exclusive: bool,
    /// Waited for, not had.
    pub waiting: bool,
    /// Who took it.
    pub pid: Option<u32>,
    /// The file.
    pub device: u64,
    /// The file.
    pub inode: u64,
    /// The first byte.
    pub start: u64,
    /// The last; none: to the end.
    pub end: Option<u64>,
}

/// The most locks that are kept.
const MOST: usize = 1 << 20;

/// Reads /proc/locks.
#[must_use]
pub fn table(text: &[u8]) -> Vec<Line> {
    text.split(|&byte| byte == b'\n').filter_map(one).take(MOST).collect()
}

/// The locks in a fdinfo.
#[must_use]
pub fn of_descriptor(fdinfo: &[u8]) -> Vec<Line> {
    let lines = fdinfo.split(|&byte| byte == b'\n');
    lines.filter_map(|line| one(line.strip_prefix(b"lock:")?)).take(MOST).collect()
}

fn one(line: &[u8]) -> Option<Line> {
    let mut parts = words(line);
    decimal(parts.next()?.strip_suffix(b":")?)?;
    let mut kind = parts.next()?;
    let waiting = kind == b"->";
    if waiting {
        kind = parts.next()?;
    }
    let kind = match kind {
        b"FLOCK" => LockKind::Flock,
        b"POSIX" => LockKind::Posix,
        b"OFDLCK" => LockKind::OpenFile,
        b"LEASE" | b"DELEG" => LockKind::Lease,
        _ => return None,
    };
    parts.next()?;
    let exclusive = parts.next()? == b"WRITE";
    let pid = signed(parts.next()?)?;
    let file = parts.next()?;
    let at = file.iter().rposition(|&byte| byte == b':')?;
    let end = parts.clone().nth(1)?;
    Some(Line {
        kind,
        exclusive,
        waiting,
        pid: u32::try_from(pid).ok().filter(|&pid| pid != 0),
        device: device_in_text(&file[..at])?,
        inode: decimal(&file[at + 1..])?,
        start: decimal(parts.next()?)?,
        end: if end == b"EOF" { None } else { Some(decimal(end)?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_and_waiters() {
        let text = b"1: FLOCK  ADVISORY  WRITE 17537 fe:00:10534959 0 EOF\n\
1: -> FLOCK  ADVISORY  READ 17538 fe:00:10534959 0 EOF\n\
2: OFDLCK ADVISORY  READ -1 00:19:7 5 9\nnonsense\n3: POSIX\n";
        let found = table(text);
        assert_eq!(found.len(), 3);
        assert_eq!((found[0].pid, found[0].waiting, found[0].end), (Some(17537), false, None));
        assert!(found[1].waiting && !found[1].exclusive);
        assert_eq!((found[2].pid, found[2].start, found[2].end), (None, 5, Some(9)));
        let fdinfo = b"pos:\t0\nlock:\t1: OFDLCK  ADVISORY  WRITE -1 fe:00:12 0 EOF\n";
        assert_eq!(of_descriptor(fdinfo)[0].kind, LockKind::OpenFile);
    }
}

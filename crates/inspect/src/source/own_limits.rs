//! What limits a process is under itself, and how much of what its user shares is used: /proc/PID/limits and status.
//!
//! Source: `proc_pid_limits(5)`, `proc_pid_status(5)`, `getrlimit(2)`.

use super::numbers::{decimal, field, small, words};

/// A limit that a process can be under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What counts now; none: it is unlimited.
    pub soft: Option<u64>,
    /// How far the process may raise it; none: as far as it likes.
    pub hard: Option<u64>,
}

/// The limits that have to do with communication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Open descriptors.
    pub descriptors: Bound,
    /// Processes and threads of its user.
    pub tasks: Bound,
    /// Signals that wait, of its user.
    pub signals: Bound,
    /// Bytes in POSIX queues of its user.
    pub queue_bytes: Bound,
}

/// Reads `limits`.
#[must_use]
pub fn bounds(text: &[u8]) -> Option<Bounds> {
    let bound = |name: &str| {
        let mut lines = text.split(|&byte| byte == b'\n');
        let rest = lines.find_map(|line| line.strip_prefix(name.as_bytes()))?;
        let mut values = words(rest).map(|word| match word {
            b"unlimited" => Some(None),
            number => decimal(number).map(Some),
        });
        Some(Bound { soft: values.next()??, hard: values.next()?? })
    };
    Some(Bounds {
        descriptors: bound("Max open files ")?,
        tasks: bound("Max processes ")?,
        signals: bound("Max pending signals ")?,
        queue_bytes: bound("Max msgqueue size ")?,
    })
}

/// What of a process counts for its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The real user, whose limits count.
    pub uid: u32,
    /// Its threads.
    pub threads: u64,
    /// Signals that wait, of all processes of its user.
    pub signals: u64,
    /// Whether it may exceed how many tasks its user may have: CAP_SYS_ADMIN or CAP_SYS_RESOURCE.
    pub exceeds: bool,
}

/// Reads `status`.
#[must_use]
pub fn usage(text: &[u8]) -> Option<Usage> {
    const MAY_EXCEED: u64 = 1 << 21 | 1 << 24;
    let capabilities = field(text, "CapEff").and_then(super::numbers::hexadecimal).unwrap_or(0);
    let uid = small(words(field(text, "Uid")?).next()?)?;
    let queued = field(text, "SigQ").and_then(|of| decimal(of.split(|&byte| byte == b'/').next()?));
    Some(Usage {
        uid,
        threads: field(text, "Threads").and_then(decimal)?,
        signals: queued.unwrap_or(0),
        exceeds: uid == 0 || capabilities & MAY_EXCEED != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        let text =
            b"Limit                     Soft Limit           Hard Limit           Units     \n\
Max processes             100                  unlimited            processes \n\
Max open files            1024                 4096                 files     \n\
Max pending signals       7                    7                    signals   \n\
Max msgqueue size         819200               819200               bytes     \n";
        let found = bounds(text).expect("limits");
        assert_eq!(found.descriptors, Bound { soft: Some(1024), hard: Some(4096) });
        assert_eq!(found.tasks, Bound { soft: Some(100), hard: None });
        assert_eq!(found.queue_bytes.soft, Some(819_200));
        assert_eq!(bounds(&text[..200]), None);
        let status =
            b"Uid:\t1000\t0\t0\t0\nThreads:\t3\nSigQ:\t2/15236\nCapEff:\t0000000000000000\n";
        let expected = Usage { uid: 1000, threads: 3, signals: 2, exceeds: false };
        assert_eq!(usage(status), Some(expected));
        assert_eq!(usage(b"Uid:\t1000\n"), None);
        assert!(
            usage(b"Uid:\t7\nThreads:\t1\nCapEff:\t000001ffffffffff\n")
                .is_some_and(|one| one.exceeds)
        );
    }

    #[test]
    fn of_this_process() {
        let own = std::fs::read("/proc/self/limits").expect("limits");
        let found = bounds(&own).expect("understood");
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(
            (found.descriptors.soft, found.descriptors.hard),
            (limit.current, limit.maximum)
        );
        let own = std::fs::read("/proc/self/status").expect("a status");
        assert!(usage(&own).is_some_and(|usage| usage.threads >= 1));
    }
}

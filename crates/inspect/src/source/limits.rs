//! Limits in force, how near they are, and what the kernel can do: /proc/sys and the like.
//!
//! Source: `proc_sys_fs(5)`, `proc_sys_kernel(5)`, `mq_overview(7)`, `sysvipc(7)`, `pipe(7)`, `inotify(7)`, `pty(7)`, `getrlimit(2)`.

use std::collections::BTreeMap;

use rustix::process::Resource;

use super::numbers::{decimal, words};
use crate::kind::Kind;
use crate::model::{Feature, Limit, Object, Process};

/// What limits are compared with.
pub(crate) struct Seen<'a> {
    pub(crate) processes: &'a [Process],
    pub(crate) objects: &'a [Object],
}

/// A row: a limit in a file of /proc/sys.
struct Row {
    name: &'static str,
    /// Below /proc/sys.
    file: &'static str,
    /// Which of the numbers in it.
    at: usize,
    used: fn(&Seen<'_>) -> Option<u64>,
}

/// Limits of the system.
const TABLE: &[Row] = &[
    row("open files of the system", "fs/file-max", 0, |_| number("fs/file-nr", 0)),
    row("processes and threads", "kernel/threads-max", 0, |_| tasks()),
    row("process ids", "kernel/pid_max", 0, |_| tasks()),
    row("System V queues", "kernel/msgmni", 0, |seen| seen.count(Kind::SysvMsg)),
    row("System V segments", "kernel/shmmni", 0, |seen| seen.count(Kind::SysvShm)),
    row("System V semaphore sets", "kernel/sem", 3, |seen| seen.count(Kind::SysvSem)),
    row("System V semaphores", "kernel/sem", 1, |seen| {
        let of = |object: &&Object| object.kind == Kind::SysvSem && object.namespace.is_none();
        let sizes = seen.objects.iter().filter(of).map(|object| object.details.get("semaphores"));
        Some(sizes.flatten().filter_map(|size| size.parse::<u64>().ok()).sum())
    }),
    row("POSIX queues", "fs/mqueue/queues_max", 0, |seen| seen.count(Kind::Mq)),
    row("pseudo-terminals", "kernel/pty/max", 0, |_| number("kernel/pty/nr", 0)),
    row("pages in one user's pipes", "fs/pipe-user-pages-soft", 0, |seen| {
        most_of_a_user(seen, Kind::Pipe, |object| object.size.unwrap_or(0).div_ceil(4096))
    }),
    row("one user's inotify instances", "fs/inotify/max_user_instances", 0, |seen| {
        seen.most_of_a_process_user(Kind::Inotify, |_| 1)
    }),
    row("one user's inotify watches", "fs/inotify/max_user_watches", 0, |seen| {
        seen.most_of_a_process_user(Kind::Inotify, watches)
    }),
    row("one user's epoll watches", "fs/epoll/max_user_watches", 0, |seen| {
        seen.most_of_a_process_user(Kind::Epoll, watches)
    }),
    row("connections that wait at a listener", "net/core/somaxconn", 0, |seen| {
        let listening = seen.objects.iter().filter(|object| object.is_listening());
        listening.filter_map(|object| object.fill).max()
    }),
    row("bytes in one pipe", "fs/pipe-max-size", 0, |_| None),
    row("messages in one POSIX queue", "fs/mqueue/msg_max", 0, |_| None),
    row("bytes of one POSIX message", "fs/mqueue/msgsize_max", 0, |_| None),
    row("bytes in one System V queue", "kernel/msgmnb", 0, |_| None),
    row("datagrams in one Unix socket", "net/unix/max_dgram_qlen", 0, |_| None),
];

const fn row(
    name: &'static str,
    file: &'static str,
    at: usize,
    used: fn(&Seen<'_>) -> Option<u64>,
) -> Row {
    Row { name, file, at, used }
}

impl Seen<'_> {
    /// How many there are in the viewer's own namespace.
    fn count(&self, kind: Kind) -> Option<u64> {
        let of = |object: &&Object| object.kind == kind && object.namespace.is_none();
        u64::try_from(self.objects.iter().filter(of).count()).ok()
    }

    /// The largest sum of a user's, by the user of the process that has it.
    fn most_of_a_process_user(&self, kind: Kind, amount: fn(&Object) -> u64) -> Option<u64> {
        let mut by_user: BTreeMap<u32, u64> = BTreeMap::new();
        for object in self.objects.iter().filter(|object| object.kind == kind) {
            let pid = object.ends.first().map(|end| end.pid);
            let user = self.processes.iter().find(|one| Some(one.pid) == pid).map(|one| one.uid);
            *by_user.entry(user?).or_default() += amount(object);
        }
        Some(by_user.into_values().max().unwrap_or(0))
    }
}

fn most_of_a_user(seen: &Seen<'_>, kind: Kind, amount: fn(&Object) -> u64) -> Option<u64> {
    let mut by_user: BTreeMap<u32, u64> = BTreeMap::new();
    // The superuser has no such limit.
    for object in seen.objects.iter().filter(|object| object.kind == kind) {
        if let Some(uid) = object.uid.filter(|&uid| uid != 0) {
            *by_user.entry(uid).or_default() += amount(object);
        }
    }
    Some(by_user.into_values().max().unwrap_or(0))
}

fn watches(object: &Object) -> u64 {
    object.details.get("watches").and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn number(file: &str, at: usize) -> Option<u64> {
    let text = std::fs::read(format!("/proc/sys/{file}")).ok()?;
    decimal(words(&text).nth(at)?)
}

/// The tasks of the system, by /proc/loadavg: `running/all`.
fn tasks() -> Option<u64> {
    let text = std::fs::read("/proc/loadavg").ok()?;
    decimal(words(&text).nth(3)?.split(|&byte| byte == b'/').nth(1)?)
}

/// Every limit that this kernel has.
pub(crate) fn limits(seen: &Seen<'_>) -> Vec<Limit> {
    let of_system = TABLE.iter().filter_map(|row| {
        let most = number(row.file, row.at)?;
        let key = row.file.replace('/', ".");
        Some(Limit {
            name: row.name.to_owned(),
            used: (row.used)(seen),
            most,
            set_by: format!("sysctl {key}"),
        })
    });
    let own = |name: &str, resource, used, shell: &str| {
        let limit = rustix::process::getrlimit(resource);
        limit.current.map(|most| Limit {
            name: name.to_owned(),
            used,
            most,
            set_by: format!("ulimit {shell}, LimitNOFILE= and the like of the service manager"),
        })
    };
    let open = seen.processes.iter().map(|one| u64::from(one.descriptors)).max();
    let mut all: Vec<Limit> = of_system.collect();
    all.extend(own("descriptors of one process (limit of this one)", Resource::Nofile, open, "-n"));
    all.extend(own("processes of this user", Resource::Nproc, None, "-u"));
    all.extend(memory());
    all
}

/// The bytes in /dev/shm.
fn memory() -> Option<Limit> {
    let found = rustix::fs::statvfs("/dev/shm").ok()?;
    Some(Limit {
        name: "bytes in /dev/shm".to_owned(),
        used: Some(found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize)),
        most: found.f_blocks.saturating_mul(found.f_frsize),
        set_by: "mount -o remount,size=SIZE /dev/shm".to_owned(),
    })
}

/// What of the kernel the inspector, and programs that talk, rely on.
pub(crate) fn features() -> Vec<Feature> {
    let exists = |path: &str| std::fs::metadata(path).is_ok();
    let own = |name: &str| {
        std::fs::read(format!("/proc/thread-self/{name}")).is_ok_and(|text| !text.is_empty())
    };
    let feature = |name: &str, there: bool, without: &str| Feature {
        name: name.to_owned(),
        there,
        without: without.to_owned(),
    };
    let traced = number("kernel/yama/ptrace_scope", 0).unwrap_or(0);
    let pidfd = rustix::process::pidfd_open(
        rustix::process::getpid(),
        rustix::process::PidfdFlags::empty(),
    );
    vec![
        feature("pidfd_open", pidfd.is_ok(), "pipes' fill is unknown; Linux 5.3 and newer have it"),
        feature(
            "/proc/PID/syscall",
            own("syscall"),
            "waits are unknown; build the kernel with CONFIG_HAVE_ARCH_TRACEHOOK",
        ),
        feature(
            "/proc/PID/schedstat",
            own("schedstat"),
            "that a thread did not run meanwhile is unknown; CONFIG_SCHED_INFO",
        ),
        feature(
            "/proc/PID/sched",
            own("sched"),
            "since when a thread waits is unknown; CONFIG_SCHED_DEBUG",
        ),
        feature(
            "sock_diag of Unix sockets",
            super::unix::all().is_ok(),
            "peers of Unix sockets are unknown; modprobe unix_diag",
        ),
        feature(
            "sock_diag of TCP",
            super::inet::all(super::inet::Protocol::Tcp).is_ok(),
            "how many connections may wait is unknown; modprobe tcp_diag",
        ),
        feature(
            "POSIX queues by name",
            super::queues::all().is_ok(),
            "queues that nobody has open are not seen; mount -t mqueue none /dev/mqueue",
        ),
        feature(
            "tracing of one's own processes",
            traced == 0,
            "waits of processes that are not children are unknown; sysctl kernel.yama.ptrace_scope=0",
        ),
        feature(
            "network namespaces",
            exists("/proc/self/ns/net"),
            "containers' sockets are not told apart",
        ),
    ]
}

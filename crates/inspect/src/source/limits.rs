//! Limits in force, how near they are, and what the kernel can do: /proc/sys and the like.
//!
//! Source: `proc_sys_fs(5)`, `proc_sys_kernel(5)`, `mq_overview(7)`, `sysvipc(7)`, `pipe(7)`, `inotify(7)`, `pty(7)`, `getrlimit(2)`,
//! `prlimit(1)`.

use std::collections::BTreeMap;

use super::folder::Folder;
use super::numbers::{decimal, words};
use super::own_limits::{self, Bound, Bounds, Usage};
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
    number_at(&std::fs::read(format!("/proc/sys/{file}")).ok()?, at)
}

/// One of the numbers in a file of /proc/sys.
#[must_use]
pub fn number_at(text: &[u8], at: usize) -> Option<u64> {
    decimal(words(text).nth(at)?)
}

/// The tasks of the system.
fn tasks() -> Option<u64> {
    all_tasks(&std::fs::read("/proc/loadavg").ok()?)
}

/// The tasks of the system, by /proc/loadavg: `running/all`.
#[must_use]
pub fn all_tasks(loadavg: &[u8]) -> Option<u64> {
    decimal(words(loadavg).nth(3)?.split(|&byte| byte == b'/').nth(1)?)
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
            raise: raised(row.file, row.at, &key),
        })
    });
    let mut all: Vec<Limit> = of_system.collect();
    all.extend(of_processes(seen));
    all.extend(memory());
    all
}

/// The most that the kernel takes, by file and place; others have no such limit.
const MOST: &[(&str, usize, u64)] = &[
    ("kernel/msgmni", 0, 32_768),
    ("kernel/shmmni", 0, 32_768),
    ("kernel/sem", 3, 32_768),
    ("kernel/pid_max", 0, 4_194_304),
    ("fs/mqueue/msg_max", 0, 65_536),
    ("fs/mqueue/msgsize_max", 0, 16_777_216),
    ("kernel/msgmnb", 0, 0x7fff_ffff),
    ("fs/pipe-max-size", 0, 0x8000_0000),
    ("net/core/somaxconn", 0, 0x7fff_ffff),
];

/// The command that doubles a limit of the system. A file of several numbers is set as a whole.
fn raised(file: &str, at: usize, key: &str) -> Option<String> {
    let row = MOST.iter().find(|row| (row.0, row.1) == (file, at));
    // Beyond this nothing is limited for real.
    let most = row.map_or(1 << 40, |row| row.2);
    let text = std::fs::read(format!("/proc/sys/{file}")).ok()?;
    let numbers: Vec<String> = doubled(&text, at, most)?.iter().map(u64::to_string).collect();
    match numbers.as_slice() {
        [one] => Some(format!("sysctl -w {key}={one}")),
        several => Some(format!("sysctl -w {key}=\"{}\"", several.join(" "))),
    }
}

/// The numbers in a file of /proc/sys, one of them doubled; none if that is at its most.
#[must_use]
pub fn doubled(text: &[u8], at: usize, most: u64) -> Option<Vec<u64>> {
    let mut numbers: Vec<u64> = words(text).map_while(decimal).collect();
    let number = numbers.get_mut(at).filter(|number| **number < most)?;
    *number = number.saturating_mul(2).clamp(1, most);
    Some(numbers)
}

/// Of the limits that each process has of its own, the one that is nearest.
fn of_processes(seen: &Seen<'_>) -> Vec<Limit> {
    let mut buffer = Vec::new();
    let mut look = |process: &Process| -> Option<(Bounds, Usage)> {
        let folder = Folder::of_process(process.pid, process.started_ticks)?;
        folder.read_record(c"limits", &mut buffer).ok()?;
        let bounds = own_limits::bounds(&buffer)?;
        folder.read_record(c"status", &mut buffer).ok()?;
        Some((bounds, own_limits::usage(&buffer)?))
    };
    let living = seen.processes.iter().filter(|process| !process.kernel && !process.is_zombie());
    let all: Vec<_> = living.filter_map(|one| look(one).map(|(b, u)| (one, b, u))).collect();
    let mut tasks: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, _, usage) in &all {
        *tasks.entry(usage.uid).or_default() += usage.threads;
    }
    let mut queues: BTreeMap<u32, u64> = BTreeMap::new();
    for queue in seen.objects.iter().filter(|object| object.kind == Kind::Mq) {
        let each = queue.details.get("bytes per message").and_then(|bytes| bytes.parse().ok());
        if let (Some(uid), Some(size), Some(each)) = (queue.uid, queue.size, each) {
            let bytes: &mut u64 = queues.entry(uid).or_default();
            *bytes = bytes.saturating_add(size.saturating_mul(each));
        }
    }
    type One<'a> = (&'a Process, Bounds, Usage);
    let own =
        |what: &str, flag: &str, service: &str, of: &dyn Fn(&One<'_>) -> Option<(u64, Bound)>| {
            // Of those that are equally near, the oldest.
            let candidates = all.iter().rev().filter_map(|one| {
                let (used, bound) = of(one)?;
                Some((used, bound.soft?, bound.hard, one.0))
            });
            let (used, most, hard, process) =
                candidates.max_by(|a, b| nearer((a.0, a.1), (b.0, b.1)))?;
            let soft = most.saturating_mul(2).max(1);
            let hard =
                hard.map_or_else(|| "unlimited".to_owned(), |hard| hard.max(soft).to_string());
            Some(Limit {
                name: format!("{what} (nearest: {})", process.label()),
                used: Some(used),
                most,
                set_by: format!("setrlimit of that process; {service}= of its service"),
                raise: Some(format!("prlimit --pid {} --{flag}={soft}:{hard}", process.pid)),
            })
        };
    let rows = [
        own("descriptors of one process", "nofile", "LimitNOFILE", &|(process, bounds, _)| {
            process.readable.then_some((process.descriptors.into(), bounds.descriptors))
        }),
        // Who may exceed it is under none.
        own("processes and threads of one user", "nproc", "LimitNPROC", &|(_, bounds, usage)| {
            let used = tasks.get(&usage.uid).copied().unwrap_or(0);
            (!usage.exceeds).then_some((used, bounds.tasks))
        }),
        own("waiting signals of one user", "sigpending", "LimitSIGPENDING", &|(
            _,
            bounds,
            usage,
        )| {
            Some((usage.signals, bounds.signals))
        }),
        own("bytes in one user's POSIX queues", "msgqueue", "LimitMSGQUEUE", &|(
            _,
            bounds,
            usage,
        )| {
            Some((queues.get(&usage.uid).copied().unwrap_or(0), bounds.queue_bytes))
        }),
    ];
    rows.into_iter().flatten().collect()
}

/// Which of two is nearer to its limit.
fn nearer(a: (u64, u64), b: (u64, u64)) -> std::cmp::Ordering {
    let cross = |used: u64, most: u64| u128::from(used) * u128::from(most.max(1));
    cross(a.0, b.1).cmp(&cross(b.0, a.1))
}

/// The bytes in /dev/shm.
fn memory() -> Option<Limit> {
    let found = rustix::fs::statvfs("/dev/shm").ok()?;
    let most = found.f_blocks.saturating_mul(found.f_frsize);
    Some(Limit {
        name: "bytes in /dev/shm".to_owned(),
        used: Some(found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize)),
        most,
        set_by: "the mount of /dev/shm".to_owned(),
        raise: Some(format!("mount -o remount,size={} /dev/shm", most.saturating_mul(2))),
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
            super::inet::all(super::inet::Protocol::Tcp, false).is_ok(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_of_two() {
        let nearest = |all: &[(u64, u64)]| all.iter().copied().max_by(|a, b| nearer(*a, *b));
        assert_eq!(nearest(&[(500, 1_000_000), (9, 10), (100, 1024)]), Some((9, 10)));
        assert_eq!(nearest(&[(1, u64::MAX), (1, 2)]), Some((1, 2)));
        assert_eq!(nearest(&[]), None);
    }

    #[test]
    fn a_command_sets_all_numbers_of_a_file() {
        let before = std::fs::read_to_string("/proc/sys/kernel/sem").expect("a file");
        let before: Vec<u64> =
            before.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        if let Some(command) = raised("kernel/sem", 1, "kernel.sem") {
            let wanted = format!(
                "sysctl -w kernel.sem=\"{} {} {} {}\"",
                before[0],
                before[1].saturating_mul(2),
                before[2],
                before[3]
            );
            assert_eq!(command, wanted);
        }
        assert_eq!(raised("no/such/file", 0, "no.such.file"), None);
    }

    #[test]
    fn a_process_is_compared_with_its_own_limit() {
        use std::os::unix::process::CommandExt;
        // A shell that may have few descriptors, and has them all.
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "exec 3</ 4</ 5</ 6</ 7</ 8</; ulimit -n 9; echo; read x"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.process_group(0).spawn().expect("a shell");
        let mut line = String::new();
        let mut said = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        std::io::BufRead::read_line(&mut said, &mut line).expect("a line");
        let seen = crate::Request::of([Kind::Pipe]).limits().take();
        let found = seen.limits.iter().find(|limit| limit.name.starts_with("descriptors of one"));
        let found = found.expect("a limit").clone();
        drop(child.stdin.take());
        child.wait().expect("an end");
        assert!(found.is_near() && found.used >= Some(found.most), "{found:?}");
        assert!(found.raise.is_some_and(|command| command.starts_with("prlimit --pid ")));
    }
}

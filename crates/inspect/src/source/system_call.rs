//! What a thread waits in: /proc/PID/task/TID/syscall and wchan.
//!
//! Source: `proc_pid_syscall(5)`, `syscalls(2)`. Numbers are those of this machine's native programs; a 32-bit one has
//! others, and is told by its stack, which lies below 4 GiB.

pub mod arguments;

use super::numbers::{hexadecimal, signed, words};

/// A line of `syscall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// It runs.
    Running,
    /// It sleeps, in no system call.
    Outside,
    /// It sleeps in one.
    Inside(Inside),
}

/// A system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// Its number.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// The stack pointer.
    pub stack: u64,
}

/// Reads the line.
#[must_use]
pub fn line(text: &[u8]) -> Option<Line> {
    let mut parts = words(text);
    let first = parts.next()?;
    if first == b"running" {
        return Some(Line::Running);
    }
    let number = signed(first)?;
    if number == -1 {
        return Some(Line::Outside);
    }
    let mut arguments = [0; 6];
    for argument in &mut arguments {
        *argument = hexadecimal(parts.next()?)?;
    }
    Some(Line::Inside(Inside { number, arguments, stack: hexadecimal(parts.next()?)? }))
}

impl Inside {
    /// Whether the thread runs a 32-bit program.
    #[must_use]
    pub fn is_compatible(&self) -> bool {
        cfg!(target_pointer_width = "64") && self.stack <= u64::from(u32::MAX)
    }

    /// An argument that is a descriptor or another small number.
    #[must_use]
    pub fn small(&self, at: usize) -> i32 {
        // The upper half of a register is not part of the argument.
        (self.arguments[at] & 0xffff_ffff).to_le_bytes()[..4]
            .try_into()
            .map_or(-1, i32::from_le_bytes)
    }
}

/// How to read the arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Takes out of the descriptor that is the first argument.
    Read,
    /// Puts into it.
    Write,
    /// Sends to an address, if there is one.
    SendTo,
    /// The same, with the address in a message's header.
    SendMessage,
    /// From the first, or to another one: which argument that is.
    Move(usize),
    /// To the first, from the second.
    SendFile,
    /// Takes a connection.
    Accept,
    /// Makes one.
    Connect,
    /// Opens a path: which argument, and whether a folder comes before it.
    Open(usize, bool),
    /// Of descriptors in an array; whether the timeout is a number of milliseconds.
    Poll(bool),
    /// Of descriptors in sets.
    Select,
    /// Of an epoll instance; whether the timeout is a number of milliseconds.
    Epoll(bool),
    /// A word in memory.
    Futex,
    /// Several words.
    FutexWaitv,
    /// A System V semaphore; whether there can be a timeout.
    SemOp(bool),
    /// Sends to a System V queue.
    MsgSend,
    /// Receives from one.
    MsgReceive,
    /// Sends to a POSIX queue.
    MqSend,
    /// Receives from one.
    MqReceive,
    /// Locks a file.
    Flock,
    /// Locks a part of one, or something else.
    Fcntl,
    /// Waits for a child by its id.
    Wait4,
    /// Waits for a child, by something.
    WaitId,
    /// Makes a child, and may wait until that one has let go of its memory.
    Vfork,
    /// Waits for a signal; which argument is a timeout.
    Signal(Option<usize>),
    /// Waits for time to pass.
    Sleep,
    /// Waits in a way that does not show.
    Hidden,
}

/// The system calls that are understood: number, name, shape.
pub const TABLE: &[(i64, &str, Shape)] = &[
    (libc::SYS_read, "read", Shape::Read),
    (libc::SYS_readv, "readv", Shape::Read),
    (libc::SYS_pread64, "pread", Shape::Read),
    (libc::SYS_preadv2, "preadv2", Shape::Read),
    (libc::SYS_recvfrom, "recv", Shape::Read),
    (libc::SYS_recvmsg, "recvmsg", Shape::Read),
    (libc::SYS_recvmmsg, "recvmmsg", Shape::Read),
    (libc::SYS_write, "write", Shape::Write),
    (libc::SYS_writev, "writev", Shape::Write),
    (libc::SYS_pwritev2, "pwritev2", Shape::Write),
    (libc::SYS_sendto, "send", Shape::SendTo),
    (libc::SYS_sendmsg, "sendmsg", Shape::SendMessage),
    (libc::SYS_sendmmsg, "sendmmsg", Shape::Write),
    (libc::SYS_vmsplice, "vmsplice", Shape::Write),
    (libc::SYS_splice, "splice", Shape::Move(2)),
    (libc::SYS_tee, "tee", Shape::Move(1)),
    (libc::SYS_sendfile, "sendfile", Shape::SendFile),
    (libc::SYS_accept, "accept", Shape::Accept),
    (libc::SYS_accept4, "accept", Shape::Accept),
    (libc::SYS_connect, "connect", Shape::Connect),
    (libc::SYS_openat, "open", Shape::Open(1, true)),
    (libc::SYS_ppoll, "poll", Shape::Poll(false)),
    (libc::SYS_pselect6, "select", Shape::Select),
    (libc::SYS_epoll_pwait, "epoll_wait", Shape::Epoll(true)),
    (libc::SYS_epoll_pwait2, "epoll_wait", Shape::Epoll(false)),
    (libc::SYS_futex, "futex", Shape::Futex),
    (SYS_FUTEX_WAITV, "futex_waitv", Shape::FutexWaitv),
    (libc::SYS_semop, "semop", Shape::SemOp(false)),
    (libc::SYS_semtimedop, "semop", Shape::SemOp(true)),
    (libc::SYS_msgsnd, "msgsnd", Shape::MsgSend),
    (libc::SYS_msgrcv, "msgrcv", Shape::MsgReceive),
    (libc::SYS_mq_timedsend, "mq_send", Shape::MqSend),
    (libc::SYS_mq_timedreceive, "mq_receive", Shape::MqReceive),
    (libc::SYS_flock, "flock", Shape::Flock),
    (libc::SYS_fcntl, "fcntl", Shape::Fcntl),
    (libc::SYS_wait4, "wait", Shape::Wait4),
    (libc::SYS_waitid, "waitid", Shape::WaitId),
    (libc::SYS_clone, "clone", Shape::Vfork),
    (libc::SYS_clone3, "clone", Shape::Vfork),
    (libc::SYS_rt_sigsuspend, "sigsuspend", Shape::Signal(None)),
    (libc::SYS_rt_sigtimedwait, "sigwait", Shape::Signal(Some(2))),
    (libc::SYS_nanosleep, "nanosleep", Shape::Sleep),
    (libc::SYS_clock_nanosleep, "clock_nanosleep", Shape::Sleep),
    (libc::SYS_restart_syscall, "restarted sleep", Shape::Sleep),
    (libc::SYS_io_uring_enter, "io_uring_enter", Shape::Hidden),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, "open", Shape::Open(0, false)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_poll, "poll", Shape::Poll(true)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_select, "select", Shape::Select),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_epoll_wait, "epoll_wait", Shape::Epoll(true)),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_vfork, "vfork", Shape::Vfork),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_pause, "pause", Shape::Signal(None)),
];

/// Others that may take a while, or in which a signal stops a thread: number and name.
pub const NAMES: &[(i64, &str)] = &[
    (libc::SYS_brk, "brk"),
    (libc::SYS_close, "close"),
    (libc::SYS_copy_file_range, "copy_file_range"),
    (libc::SYS_execve, "execve"),
    (libc::SYS_exit, "exit"),
    (libc::SYS_exit_group, "exit_group"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fdatasync, "fdatasync"),
    (libc::SYS_finit_module, "finit_module"),
    (libc::SYS_fsync, "fsync"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_getdents64, "getdents"),
    (libc::SYS_getrandom, "getrandom"),
    (libc::SYS_io_getevents, "io_getevents"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_kill, "kill"),
    (libc::SYS_linkat, "linkat"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_membarrier, "membarrier"),
    (libc::SYS_mkdirat, "mkdirat"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_msync, "msync"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_newfstatat, "newfstatat"),
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_pwrite64, "pwrite"),
    (libc::SYS_pwritev, "pwritev"),
    (libc::SYS_preadv, "preadv"),
    (libc::SYS_readlinkat, "readlinkat"),
    (libc::SYS_reboot, "reboot"),
    (libc::SYS_renameat2, "renameat2"),
    (libc::SYS_rt_sigqueueinfo, "rt_sigqueueinfo"),
    (libc::SYS_rt_sigreturn, "rt_sigreturn"),
    (libc::SYS_rt_tgsigqueueinfo, "rt_tgsigqueueinfo"),
    (libc::SYS_sched_yield, "sched_yield"),
    (libc::SYS_shmat, "shmat"),
    (libc::SYS_shmdt, "shmdt"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_statx, "statx"),
    (libc::SYS_sync, "sync"),
    (libc::SYS_sync_file_range, "sync_file_range"),
    (libc::SYS_syncfs, "syncfs"),
    (libc::SYS_tgkill, "tgkill"),
    (libc::SYS_tkill, "tkill"),
    (libc::SYS_truncate, "truncate"),
    (libc::SYS_umount2, "umount"),
    (libc::SYS_unlinkat, "unlinkat"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_fork, "fork"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, "mkdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, "rename"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, "rmdir"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_stat, "stat"),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, "unlink"),
];

/// The name of a system call that is not understood.
#[must_use]
pub fn name(number: i64) -> Option<&'static str> {
    NAMES.iter().find(|(of, _)| *of == number).map(|&(_, name)| name)
}

/// The same on every architecture, since Linux 5.16.
const SYS_FUTEX_WAITV: i64 = 449;

/// The row of a system call.
#[must_use]
pub fn row(number: i64) -> Option<(&'static str, Shape)> {
    TABLE.iter().find(|(of, ..)| *of == number).map(|&(_, name, shape)| (name, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = b"0 0x3 0x7f1d66525000 0x20000 0x7f1d665b8b60 0xffffffff 0x0 0x7ffdb6f48bb8 0x7f1d666a12ad\n";
        let Some(Line::Inside(inside)) = line(text) else { panic!("inside") };
        assert_eq!((inside.number, inside.small(0), inside.small(4)), (0, 3, -1));
        assert!(!inside.is_compatible());
        assert_eq!(line(b"running\n"), Some(Line::Running));
        assert_eq!(line(b"-1 0x7ff 0x1\n"), Some(Line::Outside));
        for wrong in [&b""[..], b"0", b"0 0x1", b"x 0x1 0x1 0x1 0x1 0x1 0x1 0x1 0x1", b"\xff"] {
            assert_eq!(line(wrong), None);
        }
    }

    #[test]
    fn each_number_once() {
        for (at, (number, name, _)) in TABLE.iter().enumerate() {
            assert!(TABLE[at + 1..].iter().all(|(other, ..)| other != number), "{name}");
        }
    }
}

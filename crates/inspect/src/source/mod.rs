//! Where the kernel shows things: one file per source, and a table of them.
//!
//! Source: docs/design/inspect.md, "Sources". Each takes bytes and gives values; what a process ends in the
//! middle of, or what makes no sense, is left out. Nothing here is opened for writing.

pub mod borrowed;
pub mod descriptors;
pub mod folder;
pub mod inet;
pub mod io;
pub mod limits;
pub mod locks;
pub mod maps;
pub mod memory;
pub mod netlink;
pub mod numbers;
pub mod own_limits;
pub mod places;
pub mod process;
pub mod queues;
pub mod rings;
pub mod schedule;
pub mod shared_files;
pub mod system_call;
pub mod sysv;
pub mod unix;

/// A row of the table.
#[derive(Debug)]
pub struct Source {
    /// The file of this folder.
    pub name: &'static str,
    /// What is read.
    pub reads: &'static str,
    /// What it gives.
    pub gives: &'static str,
    /// Who may read it.
    pub needs: &'static str,
}

/// Every source.
pub const TABLE: &[Source] = &[
    Source {
        name: "process",
        reads: "/proc/PID/stat, status, cmdline, ns/*",
        gives: "processes, parents, users, namespaces, handled signals",
        needs: "nothing; ns/* the same user",
    },
    Source {
        name: "descriptors",
        reads: "/proc/PID/fd/*, and fdinfo for kinds that need it",
        gives: "who has what open, and in which direction",
        needs: "the same user, or CAP_SYS_PTRACE",
    },
    Source {
        name: "borrowed",
        reads: "a copy of a descriptor, by pidfd_getfd",
        gives: "how full a pipe is, a memfd's seals, whether a socket gives up after a while",
        needs: "the right to trace",
    },
    Source {
        name: "maps",
        reads: "/proc/PID/maps",
        gives: "who maps which shared memory",
        needs: "the same user, or CAP_SYS_PTRACE",
    },
    Source {
        name: "unix",
        reads: "sock_diag of Unix sockets; /proc/net/unix where that is refused",
        gives: "names, peers, fill, backlog",
        needs: "to be in the network namespace",
    },
    Source {
        name: "inet",
        reads: "sock_diag of TCP and UDP; /proc/net/tcp and the like where that is refused",
        gives: "addresses, states, queues",
        needs: "to be in the network namespace",
    },
    Source {
        name: "sysv",
        reads: "/proc/sysvipc/*, semctl",
        gives: "System V objects, counts, last users",
        needs: "nothing; counts need read permission",
    },
    Source {
        name: "queues",
        reads: "the mqueue file system",
        gives: "names and depth of POSIX queues",
        needs: "a mounted /dev/mqueue, or CAP_SYS_ADMIN",
    },
    Source {
        name: "shared_files",
        reads: "/dev/shm",
        gives: "POSIX shared memory and semaphores that nobody has mapped",
        needs: "nothing",
    },
    Source {
        name: "places",
        reads: "/run, /tmp and the like",
        gives: "files of sockets without a socket, FIFOs that nobody has open",
        needs: "to read the folders; for a file's socket the right to write to it",
    },
    Source {
        name: "rings",
        reads: "/proc/PID/fdinfo of an io_uring",
        gives: "files that a process holds by its io_uring alone",
        needs: "the same user, or CAP_SYS_PTRACE",
    },
    Source {
        name: "locks",
        reads: "/proc/locks, and fdinfo of the locked files",
        gives: "file locks and their holders",
        needs: "nothing; holders need the same user",
    },
    Source {
        name: "system_call",
        reads: "/proc/PID/task/TID/syscall, wchan",
        gives: "what a thread waits in, with its arguments",
        needs: "the right to trace; wchan the same user",
    },
    Source {
        name: "memory",
        reads: "/proc/PID/mem, in a few places that a system call names",
        gives: "lock words and owners, poll sets, lock ranges, paths",
        needs: "the right to trace",
    },
    Source {
        name: "schedule",
        reads: "/proc/PID/task/TID/schedstat, sched",
        gives: "whether a thread ran meanwhile, and since when it sleeps",
        needs: "nothing",
    },
    Source {
        name: "io",
        reads: "/proc/PID/io",
        gives: "how much a process has read and written",
        needs: "the right to trace",
    },
    Source {
        name: "limits",
        reads: "/proc/sys, statvfs of /dev/shm",
        gives: "limits in force, and what the kernel can do",
        needs: "nothing",
    },
    Source {
        name: "own_limits",
        reads: "/proc/PID/limits, status",
        gives: "the limits of each process and of its user",
        needs: "nothing",
    },
];

//! Every mechanism of this crate in one table: what it is, how much it holds, what happens when
//! the other side dies.
//!
//! Source: the manual pages that each row names. Documentation, the command's listings and tests
//! are driven by it. Adding a mechanism is one file and one row.

/// One mechanism that the operating system offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanism {
    /// What it is called.
    pub name: &'static str,
    /// The stem of its source file, and of its module: `posix_mq`.
    pub file: &'static str,
    /// The manual page to read: `mq_overview(7)`.
    pub manual: &'static str,
    /// The kernel version that this crate's use of it needs.
    pub since: &'static str,
    /// What it is for, in a sentence.
    pub summary: &'static str,
    /// What is seen when the process at the other end dies.
    pub peer_dies: &'static str,
    /// What bounds it, and what sets the bound.
    pub limits: &'static str,
}

/// All of them, by what they are for: bytes, messages, wake-ups, processes.
pub const TABLE: &[Mechanism] = &[
    Mechanism {
        name: "pipe",
        file: "pipe",
        manual: "pipe(7)",
        since: OLDEST,
        summary: "A stream of bytes between related processes.",
        peer_dies: "Reading: end of file once every writer is gone. Writing: EPIPE once every reader is.",
        limits: "65536 bytes, up to /proc/sys/fs/pipe-max-size; writes up to 4096 bytes are not mixed.",
    },
    Mechanism {
        name: "FIFO",
        file: "fifo",
        manual: "fifo(7)",
        since: OLDEST,
        summary: "A pipe with a name in the file system.",
        peer_dies: "As for a pipe; the name stays.",
        limits: "As for a pipe.",
    },
    Mechanism {
        name: "Unix-domain socket",
        file: "unix_socket",
        manual: "unix(7)",
        since: OLDEST,
        summary: "Streams or whole messages on one machine, with credentials and descriptors.",
        peer_dies: "Connected: end of file or ECONNRESET, then EPIPE. The name stays, and refuses.",
        limits: "net.core.wmem_max bytes under way; net.core.somaxconn waiting connections; names of 107 bytes.",
    },
    Mechanism {
        name: "TCP",
        file: "tcp",
        manual: "tcp(7)",
        since: OLDEST,
        summary: "A stream of bytes between machines.",
        peer_dies: "End of file or ECONNRESET if its machine runs; else nothing, until a time-out.",
        limits: "net.ipv4.tcp_rmem and tcp_wmem bytes; net.core.somaxconn waiting connections.",
    },
    Mechanism {
        name: "UDP",
        file: "udp",
        manual: "udp(7)",
        since: OLDEST,
        summary: "Single messages between machines, which may be lost, doubled or reordered.",
        peer_dies: "Nothing; ECONNREFUSED on a connected socket, if its machine says so.",
        limits: "65507 bytes per message over IPv4; net.core.rmem_max bytes waiting, then silent loss.",
    },
    Mechanism {
        name: "POSIX message queue",
        file: "posix_mq",
        manual: "mq_overview(7)",
        since: OLDEST,
        summary: "Whole messages by priority, kept by the kernel under a name.",
        peer_dies: "Nothing: what was sent stays, what was received is gone.",
        limits: "/proc/sys/fs/mqueue: msg_max messages of msgsize_max bytes; RLIMIT_MSGQUEUE bytes per user.",
    },
    Mechanism {
        name: "System V message queue",
        file: "sysv_msg",
        manual: "sysvipc(7)",
        since: OLDEST,
        summary: "Whole messages by type, kept by the kernel under a number.",
        peer_dies: "Nothing: what was sent stays, what was received is gone.",
        limits: "/proc/sys/kernel: msgmax bytes per message, msgmnb bytes per queue, msgmni queues.",
    },
    Mechanism {
        name: "eventfd",
        file: "eventfd",
        manual: "eventfd(2)",
        since: OLDEST,
        summary: "A counter to wake another process with.",
        peer_dies: "Nothing: the count stays.",
        limits: "A count of 2^64 - 2; adding beyond it blocks.",
    },
    Mechanism {
        name: "timerfd",
        file: "timerfd",
        manual: "timerfd_create(2)",
        since: OLDEST,
        summary: "A timer that is waited for like a descriptor.",
        peer_dies: "Nothing: it runs for as long as any process has it open.",
        limits: "One descriptor each.",
    },
    Mechanism {
        name: "epoll",
        file: "epoll",
        manual: "epoll(7)",
        since: OLDEST,
        summary: "Waits for many descriptors at once.",
        peer_dies: "The watched pipe, socket or pidfd is reported as hung up or readable.",
        limits: "/proc/sys/fs/epoll/max_user_watches descriptors watched per user.",
    },
    Mechanism {
        name: "pidfd",
        file: "pidfd",
        manual: "pidfd_open(2)",
        since: OLDEST,
        summary: "A process as a descriptor: waiting and signals that cannot hit another.",
        peer_dies: "It becomes readable.",
        limits: "One descriptor each.",
    },
    Mechanism {
        name: "child process",
        file: "process",
        manual: "execve(2)",
        since: OLDEST,
        summary: "Arguments, environment and descriptors given to a program; its exit status back.",
        peer_dies: "The parent gets the status. The child lives on, or is killed if so started.",
        limits: "RLIMIT_NPROC processes per user; RLIMIT_NOFILE descriptors per process.",
    },
    Mechanism {
        name: "signal",
        file: "signal",
        manual: "signal(7)",
        since: OLDEST,
        summary: "A number, and perhaps a value, that interrupts a process or waits to be taken.",
        peer_dies: "Nothing: what is pending stays. Sending to it: ESRCH once it was waited for.",
        limits: "Standard signals merge; RLIMIT_SIGPENDING real-time ones pending per user.",
    },
    Mechanism {
        name: "signalfd",
        file: "signalfd",
        manual: "signalfd(2)",
        since: OLDEST,
        summary: "Blocked signals, taken from a descriptor that is waited for like any other.",
        peer_dies: "As for signals: what is pending stays.",
        limits: "As for signals; one descriptor each.",
    },
    Mechanism {
        name: "file lock",
        file: "file_lock",
        manual: "fcntl(2)",
        since: OLDEST,
        summary: "Keeps processes that ask for it off a file or off bytes of it.",
        peer_dies: "Its locks are released.",
        limits: "Memory only; /proc/locks lists all of them.",
    },
    Mechanism {
        name: "inotify",
        file: "inotify",
        manual: "inotify(7)",
        since: OLDEST,
        summary: "Tells of changes to files and folders.",
        peer_dies: "The files it had open are closed, which is seen.",
        limits: "/proc/sys/fs/inotify: max_user_instances, max_user_watches, max_queued_events.",
    },
];

/// The oldest kernel that this crate is made for.
const OLDEST: &str = "5.15 or older";

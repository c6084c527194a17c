//! Processes that wait for somebody who is at work, in ways that are easily taken for a wait without an end.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::CStr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::queues::lock;
use super::sockets::two;
use super::stage::read_some;
use super::{Situation, Stage, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "fifo-both-ways",
        "a server has its FIFO open both ways, and waits for whoever opens it",
        fifo,
        &[("server", &["to read from fifo:"])],
    ),
    one(
        "eventfd-of-its-own",
        "a process waits for an eventfd that it gives to others when they ask",
        eventfd,
        &[("server", &["eventfd:"])],
    ),
    one(
        "lock-widened",
        "a process wants more of a file than it has locked; the rest is in use",
        widened,
        &[("wider", &["open-file lock, exclusive, bytes 0 to 19", "its owner @holder"])],
    )
    .stuck_after_a_while(&["wider"]),
    one(
        "lock-from-the-position",
        "a process wants a lock that counts from where it is in the file; its holder is at work",
        from_position,
        &[
            ("there", &["record lock, exclusive, bytes 200 to 209", "its owner @holder"]),
            ("behind", &["record lock, exclusive, bytes 100 to 109", "its owner @there"]),
        ],
    )
    .stuck_after_a_while(&["there", "behind"]),
    one(
        "first-thread-gone",
        "a process waits for its child, which works on in another thread than its first",
        first_thread_gone,
        &[("parent", &["for its child worker["])],
    ),
    one(
        "condition-counted",
        "a thread waits for a condition that was signalled as often as its process has for a number; another will signal it",
        counted,
        &[("process", &["(end of a thread)", "(condition, or another lock)"])],
    ),
    one(
        "file-stream-in-use",
        "a thread waits for the lock of a stream of the C library, which a thread at work has",
        stream,
        &[("process", &["(condition, or another lock)"])],
    ),
    one(
        "hang-up-watched",
        "a server waits for its worker, which waits for it, and for the end of a client",
        |stage| hang_up(stage, Way::Poll),
        &[("server", &["for any of ", "@client"])],
    ),
    one(
        "hang-up-watched-by-epoll",
        "the same with an epoll instance that was asked for nothing more of the client",
        |stage| hang_up(stage, Way::Epoll),
        &[("server", &["for any of ", "@client"])],
    ),
    one(
        "tracer-waits",
        "a tracer waits for whom it traces, and for its child, which reads what only the tracer could write",
        tracer,
        &[("tracer", &["for any that it started or traces: ", "@tracee"])],
    ),
    one(
        "lock-of-two",
        "a process wants alone what two have locked together; the lock of one of them, which waits for it, its child has, too",
        lock_of_two,
        &[("waiter", &["(flock, exclusive)", "all of these can end that"])],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "semaphore-of-three",
        "a process waits for one of three slots; two of those who have one are at work, the last one waits for it",
        of_three,
        &[("waiter", &["semaphore 0, wants 1, count 0", "its last user @last"])],
    ),
    one(
        "descriptor-in-flight",
        "a process waits for a pipe whose write end nobody else shows; another one will take it out of a socket",
        flight,
        &[("reader", &["to read from pipe:"])],
    )
    .casts_doubt(),
];

fn nap() {
    std::thread::sleep(Duration::from_secs(100_000));
}

fn open(path: &CStr, flags: i32) -> i32 {
    // SAFETY: the path is a C string.
    let fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) };
    assert!(fd >= 0, "cannot open {path:?}: {}", std::io::Error::last_os_error());
    fd
}

/// Locks bytes, counted from `whence`, and waits for them.
fn lock_bytes(fd: i32, command: i32, whence: i32, (first, count): (i64, i64)) {
    // SAFETY: integers only.
    let mut part: libc::flock = unsafe { std::mem::zeroed() };
    part.l_type = libc::F_WRLCK as i16;
    part.l_whence = whence as i16;
    (part.l_start, part.l_len) = (first, count);
    // SAFETY: the descriptor is open, the lock whole.
    unsafe { libc::fcntl(fd, command, &raw mut part) };
}

fn fifo(stage: &mut Stage) {
    let path = stage.path("fifo");
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
    stage.actor("server", &[], |_| {
        let fd = open(&path, libc::O_RDWR);
        read_some(fd);
    });
}

fn eventfd(stage: &mut Stage) {
    stage.actor("server", &[], |_| {
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        read_some(fd);
    });
}

fn widened(stage: &mut Stage) {
    let path = stage.path("file");
    stage.actor("holder", &[], |scene| {
        let fd = open(&path, libc::O_RDWR | libc::O_CREAT);
        lock_bytes(fd, libc::F_OFD_SETLKW, libc::SEEK_SET, (10, 10));
        scene.meet(2);
        nap();
    });
    stage.actor("wider", &[], |scene| {
        let fd = open(&path, libc::O_RDWR | libc::O_CREAT);
        lock_bytes(fd, libc::F_OFD_SETLKW, libc::SEEK_SET, (0, 10));
        scene.meet(2);
        lock_bytes(fd, libc::F_OFD_SETLKW, libc::SEEK_SET, (0, 20));
    });
}

fn from_position(stage: &mut Stage) {
    let path = stage.path("file");
    stage.actor("holder", &[], |scene| {
        let fd = open(&path, libc::O_RDWR | libc::O_CREAT);
        lock_bytes(fd, libc::F_SETLKW, libc::SEEK_SET, (200, 10));
        scene.meet(3);
        nap();
    });
    stage.actor("there", &[], |scene| {
        let fd = open(&path, libc::O_RDWR | libc::O_CREAT);
        lock_bytes(fd, libc::F_SETLKW, libc::SEEK_SET, (100, 10));
        // SAFETY: the descriptor is open.
        unsafe { libc::lseek(fd, 200, libc::SEEK_SET) };
        scene.meet(3);
        lock_bytes(fd, libc::F_SETLKW, libc::SEEK_CUR, (0, 10));
    });
    // It has the beginning, which nobody wants, and waits for the one above.
    stage.actor("behind", &[], |scene| {
        let fd = open(&path, libc::O_RDWR | libc::O_CREAT);
        lock_bytes(fd, libc::F_SETLKW, libc::SEEK_SET, (0, 10));
        scene.meet(3);
        lock_bytes(fd, libc::F_SETLKW, libc::SEEK_SET, (100, 10));
    });
}

fn first_thread_gone(stage: &mut Stage) {
    stage.actor("parent", &[], |_| {
        // SAFETY: the child uses what it copied.
        let child = unsafe { libc::fork() };
        if child == 0 {
            super::stage::name("worker");
            std::thread::spawn(|| {
                // SAFETY: concerns this process alone.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                nap();
            });
            // SAFETY: ends this thread alone; what it borrowed lives as long as the process.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }
        super::stage::until_first_thread_ends(child);
        let mut status = 0;
        // SAFETY: the child is this process's own.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
    });
}

fn counted(stage: &mut Stage) {
    stage.actor("process", &[], |_| {
        let shared = Arc::new((Mutex::new(()), Condvar::new()));
        // The word that is slept on counts signals: now it is the number of the first thread.
        for _ in 0..std::process::id() {
            shared.1.notify_one();
        }
        let waits = shared.clone();
        let waiter = std::thread::spawn(move || {
            super::stage::name("waiter");
            let held = waits.0.lock().map(|held| waits.1.wait(held).is_ok());
            drop(held);
        });
        std::thread::spawn(move || {
            super::stage::name("notifier");
            nap();
            shared.1.notify_one();
        });
        let _ = waiter.join();
    });
}

unsafe extern "C" {
    fn flockfile(stream: *mut libc::FILE);
}

fn stream(stage: &mut Stage) {
    stage.actor("process", &[], |scene| {
        // SAFETY: the names are C strings.
        let stream = unsafe { libc::fopen(c"/dev/null".as_ptr(), c"w".as_ptr()) } as usize;
        assert!(stream != 0, "cannot open /dev/null");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // SAFETY: the stream is open, and stays so.
                unsafe { flockfile(stream as *mut libc::FILE) };
                scene.meet(2);
                nap();
            });
            scene.meet(2);
            // SAFETY: as above.
            unsafe { flockfile(stream as *mut libc::FILE) };
        });
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Poll,
    Epoll,
}

fn hang_up(stage: &mut Stage, way: Way) {
    let (here, there) = two(stage, libc::SOCK_STREAM);
    let ((answers, to_server), (orders, to_worker)) = (stage.pipe(), stage.pipe());
    stage.actor("client", &[there], |_| nap());
    stage.actor("worker", &[orders, to_server], |_| {
        read_some(orders);
    });
    stage.actor("server", &[here, answers, to_worker], |_| match way {
        Way::Poll => {
            let entry = |fd, events| libc::pollfd { fd, events, revents: 0 };
            let mut all = [entry(answers, libc::POLLIN), entry(here, libc::POLLRDHUP)];
            // SAFETY: two entries.
            unsafe { libc::poll(all.as_mut_ptr(), 2, -1) };
        }
        Way::Epoll => {
            // SAFETY: makes a descriptor.
            let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
            for (fd, events) in [(answers, libc::EPOLLIN as u32), (here, 0)] {
                let mut event = libc::epoll_event { events, u64: 0 };
                // SAFETY: the descriptors are open, the event whole.
                unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
            }
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            // SAFETY: room for one event.
            unsafe { libc::epoll_wait(epoll, &raw mut event, 1, -1) };
        }
    });
}

fn flight(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    let (from, to) = two(stage, libc::SOCK_STREAM);
    send_descriptor(from, write);
    stage.actor("taker", &[to], |_| nap());
    stage.actor("reader", &[read, write], |_| {
        read_some(read);
    });
}

/// Sends a byte, and a descriptor with it.
fn send_descriptor(socket: i32, fd: i32) {
    let mut byte = [b'x'];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut room = [0_u64; 4];
    // SAFETY: integers and pointers; all zeroes is a valid value of each.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
    message.msg_control = room.as_mut_ptr().cast();
    // SAFETY: the room is as large as one header with one descriptor, and aligned as a header; the socket is open.
    let sent = unsafe {
        message.msg_controllen = libc::CMSG_SPACE(4) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as usize;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(socket, &raw const message, 0)
    };
    assert_eq!(sent, 1, "sendmsg: {}", std::io::Error::last_os_error());
}

fn tracer(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    let number = stage.memory();
    // SAFETY: the memory is large enough, aligned, shared, and there as long as the actors are.
    let number = unsafe { &*(number as *const std::sync::atomic::AtomicU32) };
    let order = std::sync::atomic::Ordering::SeqCst;
    stage.actor("tracee", &[], |scene| {
        // SAFETY: concerns this process alone: it may be traced.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
        number.store(std::process::id(), order);
        scene.meet(2);
        nap();
    });
    stage.actor("tracer", &[read, write], |scene| {
        scene.meet(2);
        // SAFETY: the child uses what it copied.
        let child = unsafe { libc::fork() };
        if child == 0 {
            super::stage::name("cat");
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            super::stage::close(write);
            read_some(read);
            nap();
        }
        super::stage::close(read);
        let nothing = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: takes no memory.
        let seized =
            unsafe { libc::ptrace(libc::PTRACE_SEIZE, number.load(order), nothing, nothing) };
        assert_eq!(seized, 0, "ptrace: {}", std::io::Error::last_os_error());
        let mut status = 0;
        // SAFETY: room for a status.
        unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
    });
}

fn lock_of_two(stage: &mut Stage) {
    let path = stage.path("file");
    let (answers, to_one) = stage.pipe();
    let shared = |path: &CStr| {
        let fd = open(path, libc::O_RDWR | libc::O_CREAT);
        // SAFETY: the descriptor is open.
        unsafe { libc::flock(fd, libc::LOCK_SH) };
    };
    stage.actor("one", &[answers], |scene| {
        shared(&path);
        // SAFETY: the child uses what it copied.
        if unsafe { libc::fork() } == 0 {
            super::stage::name("its-child");
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            nap();
        }
        scene.meet(3);
        read_some(answers);
    });
    stage.actor("other", &[], |scene| {
        shared(&path);
        scene.meet(3);
        nap();
    });
    stage.actor("waiter", &[to_one], |scene| {
        let fd = open(&path, libc::O_RDWR | libc::O_CREAT);
        scene.meet(3);
        // SAFETY: the descriptor is open.
        unsafe { libc::flock(fd, libc::LOCK_EX) };
    });
}

fn of_three(stage: &mut Stage) {
    let id = stage.semaphores(&[3]);
    let (answers, to_last) = stage.pipe();
    // SAFETY: GETVAL takes nothing.
    let count = || unsafe { libc::semctl(id, 0, libc::GETVAL) };
    let until = |wanted| {
        while count() > wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    for name in ["one", "other"] {
        stage.actor(name, &[], |_| {
            lock(id, 0);
            nap();
        });
    }
    stage.actor("last", &[answers], |_| {
        until(1);
        lock(id, 0);
        read_some(answers);
    });
    stage.actor("waiter", &[to_last], |_| {
        until(0);
        lock(id, 0);
    });
}

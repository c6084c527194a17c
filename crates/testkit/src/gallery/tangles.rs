//! Waits for each other over several mechanisms, and for those who are stopped or have passed on what they had.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::CStr;

use super::locks::{Mutex, lock, mutex};
use super::stage::{close, idle, name, read_some, write_on};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "pipeline-middle-stopped",
        "of three programs in a row the middle one is stopped",
        pipeline,
        &[
            ("first", &["to write to pipe:", "(full, ", "its only reader @middle is stopped (SIGSTOP)"]),
            ("last", &["to read from pipe:", "(empty, ", "its only writer @middle is stopped (SIGSTOP)"]),
        ],
    )
    .stuck(&["first", "last"]),
    one(
        "reader-traced-and-stopped",
        "a debugger has stopped the only reader of a full pipe",
        traced,
        &[
            ("writer", &["its only reader @reader is stopped by its debugger"]),
            ("reader", &["@reader (traced by @debugger) is stopped by its debugger, and"]),
        ],
    )
    .stuck(&["writer"]),
    one(
        "fifos-crossed",
        "two processes open a FIFO each to write to it, and would open the other one's to read only then",
        fifos,
        &[
            ("left", &["for somebody to open fifo:", "/a for reading", "anybody who opens it"]),
            ("right", &["for somebody to open fifo:", "/b for reading", "anybody who opens it"]),
        ],
    )
    .stuck(&["left", "right"]),
    one(
        "parent-waits-child-locks",
        "a parent waits for its child, which wants a record lock that the parent has",
        parent_and_lock,
        &[("parent", &["for its child child[", " to end", "is stuck itself: it waits in fcntl on lock:"])],
    )
    .deadlock(Sure::Certain, false, &["parent", "child"]),
    one(
        "filter-fed-first",
        "a parent writes all to its child, a filter, before it reads what that one makes of it",
        filter,
        &[("parent", &["to write to pipe:", "(full, ", "its only reader filter[", "is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["parent", "filter"]),
    one(
        "lock-pipe-and-socket",
        "who has a lock reads a pipe, who writes that one reads a socket, and who writes that one wants the lock",
        three,
        &[
            ("one", &["to read from pipe:", "its only writer @two is stuck itself"]),
            ("two", &["to read from unix:", "its only other end @three is stuck itself"]),
            ("three", &["(flock, exclusive)", "its owner @one is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, true, &["one", "two", "three"]),
    one(
        "end-awaited-by-descriptor",
        "a process polls for the end of one that reads what only the first one could write",
        by_descriptor,
        &[("poller", &["to read from pidfd:", "@reader is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["poller", "reader"]),
    one(
        "mutex-behind-a-pipe",
        "a thread waits for a mutex, whose holder in the same process reads from who waits for the first one",
        behind_a_pipe,
        &[
            ("process", &["(mutex); its holder its own thread", " is stuck itself: it waits in read on pipe:", "its only writer @other is stuck itself"]),
            ("other", &["its only writer @process is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, true, &["process", "other"]),
    one(
        "lock-passed-on",
        "whoever locked a file has ended; its child, which works on, has the lock, too",
        passed_on,
        &[("waiter", &["(flock, exclusive)", "its owner keeper["])],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "timer-armed",
        "a process waits for its timer",
        |stage| timer(stage, 100_000),
        &[("waiter", &["to read from timerfd:", "; its timer can end that"])],
    ),
    one(
        "timer-not-armed",
        "a process waits for a timer that nobody has set",
        |stage| timer(stage, 0),
        &[("waiter", &["to read from timerfd:", "; whoever sets its timer, which is not armed, can end that"])],
    ),
    one(
        "fifo-served-by-a-child",
        "a shell keeps a FIFO open both ways for its child, which waits for whoever opens it",
        served,
        &[("shell", &["for its child server[", " to end"])],
    ),
    one(
        "server-of-many",
        "a master waits for its workers, which wait for clients of the same listener",
        preforked,
        &[("master", &["for any of its 3 children to end"])],
    ),
];

fn open(path: &CStr, flags: i32) -> i32 {
    // SAFETY: the path is a C string.
    unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) }
}

/// A child that does this, and ends with its parent.
fn child(called: &str, does: impl FnOnce()) -> i32 {
    // SAFETY: the child uses what it copied.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        name(called);
        // SAFETY: concerns this process alone.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        does();
        idle();
    }
    pid
}

fn wait_for(pid: i32) {
    let mut status = 0;
    // SAFETY: room for a status.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
}

fn stop() {
    // SAFETY: stops this process.
    unsafe { libc::raise(libc::SIGSTOP) };
}

fn pipeline(stage: &mut Stage) {
    let ((from_first, to_middle), (from_middle, to_last)) = (stage.pipe(), stage.pipe());
    stage.actor("first", &[to_middle], |_| write_on(to_middle, 4096));
    stage.actor("middle", &[from_first, to_last], |_| stop());
    stage.actor("last", &[from_middle], |_| {
        read_some(from_middle);
    });
}

fn traced(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("reader", &[read], |scene| {
        // SAFETY: concerns this process alone: it may be traced.
        unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY) };
        scene.meet(2);
    });
    let reader = stage.last();
    stage.actor("debugger", &[], |scene| {
        scene.meet(2);
        // It is stopped where it stays.
        super::stage::until_idle(reader);
        let nothing = std::ptr::null_mut::<libc::c_void>();
        let mut status = 0;
        // SAFETY: take no memory but the room for a status.
        unsafe {
            let seized = libc::ptrace(libc::PTRACE_SEIZE, reader, nothing, nothing);
            assert_eq!(seized, 0, "ptrace: {}", std::io::Error::last_os_error());
            libc::ptrace(libc::PTRACE_INTERRUPT, reader, nothing, nothing);
            libc::waitpid(reader, &raw mut status, libc::__WALL);
        }
    });
    stage.actor("writer", &[write], |_| write_on(write, 4096));
}

fn fifos(stage: &mut Stage) {
    let paths = ["a", "b"].map(|called| stage.path(called));
    for path in &paths {
        // SAFETY: the path is a C string.
        assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0, "mkfifo");
    }
    for (called, to, from) in [("left", 0, 1), ("right", 1, 0)] {
        stage.actor(called, &[], |_| {
            open(&paths[to], libc::O_WRONLY);
            open(&paths[from], libc::O_RDONLY);
        });
    }
}

fn parent_and_lock(stage: &mut Stage) {
    let path = stage.path("file");
    let lock = |path: &CStr| {
        let fd = open(path, libc::O_RDWR | libc::O_CREAT);
        // SAFETY: integers only.
        let mut whole: libc::flock = unsafe { std::mem::zeroed() };
        whole.l_type = libc::F_WRLCK as i16;
        // SAFETY: the descriptor is open, the lock whole.
        unsafe { libc::fcntl(fd, libc::F_SETLKW, &raw mut whole) };
    };
    stage.actor("parent", &[], |_| {
        lock(&path);
        wait_for(child("child", || lock(&path)));
    });
}

fn filter(stage: &mut Stage) {
    let ((from_parent, to_filter), (from_filter, to_parent)) = (stage.pipe(), stage.pipe());
    stage.actor("parent", &[from_parent, to_filter, from_filter, to_parent], |_| {
        child("filter", || {
            [to_filter, from_filter].into_iter().for_each(close);
            while read_some(from_parent) > 0 {
                // SAFETY: as many bytes as said.
                unsafe { libc::write(to_parent, [0_u8; 512].as_ptr().cast(), 512) };
            }
        });
        [from_parent, to_parent].into_iter().for_each(close);
        write_on(to_filter, 4096);
    });
}

fn three(stage: &mut Stage) {
    let path = stage.path("file");
    let (read, write) = stage.pipe();
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    let made = unsafe {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr())
    };
    assert_eq!(made, 0, "socketpair: {}", std::io::Error::last_os_error());
    let [here, there] = ends.map(|fd| stage.own(fd));
    let flock = |path: &CStr| {
        let fd = open(path, libc::O_RDWR | libc::O_CREAT);
        // SAFETY: the descriptor is open.
        unsafe { libc::flock(fd, libc::LOCK_EX) };
    };
    stage.actor("one", &[read], |scene| {
        flock(&path);
        scene.meet(2);
        read_some(read);
    });
    stage.actor("two", &[write, here], |_| {
        read_some(here);
    });
    stage.actor("three", &[there], |scene| {
        scene.meet(2);
        flock(&path);
    });
}

fn by_descriptor(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("reader", &[read], |_| {
        read_some(read);
    });
    let reader = stage.last();
    stage.actor("poller", &[write], |_| {
        // SAFETY: makes a descriptor; one entry, as said.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, reader, 0) as i32;
            assert!(fd >= 0, "pidfd_open: {}", std::io::Error::last_os_error());
            let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            libc::poll(&raw mut entry, 1, -1);
        }
    });
}

fn behind_a_pipe(stage: &mut Stage) {
    let mutex = mutex(stage, Mutex::Plain) as usize;
    let ((answers, to_process), (questions, to_other)) = (stage.pipe(), stage.pipe());
    stage.actor("process", &[answers, to_other], |scene| {
        lock(mutex as *mut libc::pthread_mutex_t);
        let second = std::thread::spawn(move || lock(mutex as *mut libc::pthread_mutex_t));
        scene.meet(1);
        read_some(answers);
        drop(second);
    });
    stage.actor("other", &[questions, to_process], |_| {
        read_some(questions);
    });
}

fn passed_on(stage: &mut Stage) {
    let (path, stage_id) = (stage.path("file"), std::process::id());
    stage.by_another(|| {
        let fd = open(&path, libc::O_RDWR | libc::O_CREAT);
        // SAFETY: the descriptor is open; the child uses what it copied.
        unsafe {
            libc::flock(fd, libc::LOCK_EX);
            if libc::fork() == 0 {
                name("keeper");
                Stage::until_the_stage_ends(stage_id);
            }
        }
        0
    });
    stage.actor("waiter", &[], |_| {
        let fd = open(&path, libc::O_RDWR);
        // SAFETY: the descriptor is open.
        unsafe { libc::flock(fd, libc::LOCK_EX) };
    });
}

fn timer(stage: &mut Stage, seconds: i64) {
    stage.actor("waiter", &[], |_| {
        // SAFETY: makes a descriptor; integers only, of which all zeroes is valid.
        let fd = unsafe {
            let fd = libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC);
            let mut after: libc::itimerspec = std::mem::zeroed();
            after.it_value.tv_sec = seconds;
            libc::timerfd_settime(fd, 0, &raw const after, std::ptr::null_mut());
            fd
        };
        read_some(fd);
    });
}

fn served(stage: &mut Stage) {
    let path = stage.path("fifo");
    // SAFETY: the path is a C string.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0, "mkfifo");
    stage.actor("shell", &[], |_| {
        let fd = open(&path, libc::O_RDWR);
        wait_for(child("server", || {
            read_some(fd);
        }));
    });
}

fn preforked(stage: &mut Stage) {
    let path = stage.path("socket");
    stage.actor("master", &[], |_| {
        // SAFETY: integers only; all zeroes is valid. The address is as long as said.
        let listener = unsafe {
            let mut address: libc::sockaddr_un = std::mem::zeroed();
            address.sun_family = libc::AF_UNIX as u16;
            for (place, byte) in address.sun_path.iter_mut().zip(path.to_bytes()) {
                *place = *byte as libc::c_char;
            }
            let fd = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
            let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
            assert_eq!(libc::bind(fd, (&raw const address).cast(), len), 0, "bind");
            libc::listen(fd, 8);
            fd
        };
        for _ in 0..3 {
            child("worker", || {
                // SAFETY: asks for no address.
                unsafe { libc::accept(listener, std::ptr::null_mut(), std::ptr::null_mut()) };
            });
        }
        wait_for(-1);
    });
}

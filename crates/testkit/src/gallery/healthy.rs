//! Processes that merely look as if something were wrong: they have nothing to do.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::os::fd::IntoRawFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::locks::lock_file;
use super::sockets::wait_in_epolls;
use super::stage::{idle, read_some};
use super::{Situation, Stage, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "idle-unix-server",
        "a server waits for clients",
        unix_server,
        &[("server", &["for a client at unix:", "anybody who connects can end that"])],
    ),
    one(
        "idle-tcp-server",
        "a server waits for clients",
        tcp_server,
        &[("server", &["for a client at tcp:"])],
    ),
    one(
        "idle-event-loop",
        "an event loop waits for clients, a timer and its own wake-ups",
        |stage| event_loop(stage, 1),
        &[("server", &["for any of "])],
    ),
    one(
        "idle-event-loop-in-a-loop",
        "the same, by an epoll instance in an epoll instance in another one",
        |stage| event_loop(stage, 3),
        &[("server", &["for any of "])],
    ),
    one("idle-thread-pool", "workers wait for work, and their main thread for clients", pool, &[]),
    one(
        "shell-waits",
        "a shell waits for its child, which sleeps",
        shell,
        &[("shell", &["for its child "])],
    ),
    one(
        "sleeping-pipeline",
        "a program waits for the output of one that sleeps",
        pipeline,
        &[("reader", &["to read from pipe:", "its only writer @sleeper"])],
    ),
    one(
        "signal-wait",
        "a process waits for a signal",
        |stage| stage.actor("waiter", &[], |_| idle()),
        &[("waiter", &["for a signal"])],
    ),
    one(
        "signal-set-wait",
        "a process waits for one of some signals",
        sigwait,
        &[("waiter", &["for a signal"])],
    ),
    one(
        "poll-with-timeout",
        "a process waits for its own pipe, for a time",
        timed_poll,
        &[("waiter", &["until its timeout"])],
    ),
    one(
        "self-pipe",
        "a process waits for a pipe that its signal handler writes to",
        self_pipe,
        &[],
    ),
    one(
        "condition-with-notifier",
        "a process waits for a condition that a sleeping one will signal",
        condition,
        &[("waiter", &["for futex:", "@notifier"])],
    ),
    one(
        "lock-in-use",
        "a process waits for a lock whose holder is at work",
        lock_in_use,
        &[("waiter", &["(flock, exclusive)", "its owner @holder"])],
    )
    .stuck_after_a_while(&["waiter"]),
    one("request-not-made", "a server waits for the request of a client that thinks", request, &[]),
    one(
        "supervised-server",
        "a parent waits for its child, a server that waits for clients",
        supervised,
        &[("parent", &["for its child server["])],
    ),
    one(
        "semaphore-consumer",
        "a consumer waits for a System V semaphore that it took last",
        consumer,
        &[("consumer", &["semaphore 0, wants 1, count 0", "anybody who may use it can end that"])],
    ),
    one("timer-loop", "a process waits for its timer", timer, &[]),
    one("process-watched", "a process waits for another one's end", watched, &[]),
    one(
        "datagram-server",
        "a server waits for datagrams from anybody",
        datagrams,
        &[("server", &["to read from unix:", "anybody who sends to it can end that"])],
    ),
    one(
        "sleeper",
        "a process sleeps",
        |stage| stage.actor("sleeper", &[], |_| nap()),
        &[("sleeper", &["for time to pass"])],
    ),
    one(
        "signalfd-wait",
        "a process waits for a signal through a descriptor",
        signalfd,
        &[("waiter", &["to read from signalfd:"])],
    ),
];

/// Sleeps for longer than any test.
fn nap() {
    std::thread::sleep(Duration::from_secs(100_000));
}

fn listen(stage: &mut Stage) -> i32 {
    let path = stage.path("listener").into_string().expect("a path");
    stage.own(std::os::unix::net::UnixListener::bind(path).expect("a listener").into_raw_fd())
}

fn accept(fd: i32) {
    // SAFETY: nobody's address is asked for.
    unsafe { libc::accept4(fd, std::ptr::null_mut(), std::ptr::null_mut(), libc::SOCK_CLOEXEC) };
}

fn unix_server(stage: &mut Stage) {
    let fd = listen(stage);
    stage.actor("server", &[fd], |_| accept(fd));
}

fn tcp_server(stage: &mut Stage) {
    let fd = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener").into_raw_fd();
    let fd = stage.own(fd);
    stage.actor("server", &[fd], |_| accept(fd));
}

fn event_loop(stage: &mut Stage, depth: u32) {
    let fd = listen(stage);
    // SAFETY: makes descriptors.
    let (event, timer) = unsafe {
        (
            libc::eventfd(0, libc::EFD_CLOEXEC),
            libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC),
        )
    };
    let (event, timer) = (stage.own(event), stage.own(timer));
    stage.actor("server", &[fd, event, timer], |_| wait_in_epolls(&[fd, event, timer], depth));
}

fn pool(stage: &mut Stage) {
    let fd = listen(stage);
    stage.actor("server", &[fd], |_| {
        let (give, take) = std::sync::mpsc::channel::<u32>();
        let take = std::sync::Arc::new(std::sync::Mutex::new(take));
        for _ in 0..3 {
            let take = take.clone();
            std::thread::spawn(move || {
                super::stage::name("worker");
                let work = take.lock().map(|take| take.recv());
                drop(work);
            });
        }
        accept(fd);
        drop(give);
    });
}

fn shell(stage: &mut Stage) {
    stage.actor("shell", &[], |_| {
        let mut command = Command::new("sleep");
        command.arg("100000").stdin(Stdio::null()).stdout(Stdio::null());
        with_parent(&mut command);
        let mut child = command.spawn().expect("a child");
        let _ = child.wait();
    });
}

/// The child ends with its parent.
fn with_parent(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: prctl may be called between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

fn pipeline(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("sleeper", &[write], |_| nap());
    stage.actor("reader", &[read], |_| {
        read_some(read);
    });
}

fn sigwait(stage: &mut Stage) {
    stage.actor("waiter", &[], |_| {
        // SAFETY: the set is set up before it is used.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            let mut signal = 0;
            libc::sigwait(&raw const set, &raw mut signal);
        }
    });
}

fn poll(fd: i32, timeout: i32) {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry, as said.
    unsafe { libc::poll(&raw mut entry, 1, timeout) };
}

fn timed_poll(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("waiter", &[read, write], |_| poll(read, 100_000_000));
}

extern "C" fn nothing(_: libc::c_int) {}

fn self_pipe(stage: &mut Stage) {
    let (read, write) = stage.pipe();
    stage.actor("waiter", &[read, write], |_| {
        let handler = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        // SAFETY: the handler does nothing.
        unsafe { libc::signal(libc::SIGCHLD, handler) };
        poll(read, -1);
    });
}

fn condition(stage: &mut Stage) {
    let at = stage.memory();
    let (mutex, condition) =
        (at as *mut libc::pthread_mutex_t, (at + 256) as *mut libc::pthread_cond_t);
    // SAFETY: the memory is large enough, aligned and shared; attributes are set up before they are used.
    unsafe {
        let mut of_mutex: libc::pthread_mutexattr_t = std::mem::zeroed();
        libc::pthread_mutexattr_init(&raw mut of_mutex);
        libc::pthread_mutexattr_setpshared(&raw mut of_mutex, libc::PTHREAD_PROCESS_SHARED);
        libc::pthread_mutex_init(mutex, &raw const of_mutex);
        let mut of_condition: libc::pthread_condattr_t = std::mem::zeroed();
        libc::pthread_condattr_init(&raw mut of_condition);
        libc::pthread_condattr_setpshared(&raw mut of_condition, libc::PTHREAD_PROCESS_SHARED);
        libc::pthread_cond_init(condition, &raw const of_condition);
    }
    stage.actor("waiter", &[], |_| {
        // SAFETY: both were made above, and their memory is mapped here.
        unsafe {
            libc::pthread_mutex_lock(mutex);
            libc::pthread_cond_wait(condition, mutex);
        }
    });
    stage.actor("notifier", &[], |_| nap());
}

fn lock_in_use(stage: &mut Stage) {
    let path = stage.path("file");
    stage.actor("holder", &[], |scene| {
        lock_file(&path, true);
        scene.meet(2);
        nap();
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        lock_file(&path, true);
    });
}

fn request(stage: &mut Stage) {
    let (a, b) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let (client, server) = (stage.own(a.into_raw_fd()), stage.own(b.into_raw_fd()));
    stage.actor("client", &[client], |_| nap());
    stage.actor("server", &[server], |_| {
        read_some(server);
    });
}

fn supervised(stage: &mut Stage) {
    let fd = listen(stage);
    stage.actor("parent", &[fd], |_| {
        // SAFETY: the child uses what it copied.
        let child = unsafe { libc::fork() };
        if child == 0 {
            super::stage::name("server");
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            accept(fd);
            idle();
        }
        let mut status = 0;
        // SAFETY: the child is this process's own.
        unsafe { libc::waitpid(child, &raw mut status, 0) };
    });
}

fn consumer(stage: &mut Stage) {
    let id = stage.semaphores(&[1]);
    stage.actor("consumer", &[], |_| {
        let mut operation = libc::sembuf { sem_num: 0, sem_op: -1, sem_flg: 0 };
        for _ in 0..2 {
            // SAFETY: one operation, as said.
            unsafe { libc::semop(id, &raw mut operation, 1) };
        }
    });
}

fn timer(stage: &mut Stage) {
    // SAFETY: makes a descriptor.
    let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
    let fd = stage.own(fd);
    stage.actor("waiter", &[fd], |_| {
        let later = libc::timespec { tv_sec: 100_000, tv_nsec: 0 };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: never, it_value: later };
        // SAFETY: the descriptor is open, the setting whole.
        unsafe { libc::timerfd_settime(fd, 0, &raw const setting, std::ptr::null_mut()) };
        read_some(fd);
    });
}

fn watched(stage: &mut Stage) {
    stage.actor("watcher", &[], |_| {
        // SAFETY: the child uses what it copied.
        let child = unsafe { libc::fork() };
        if child == 0 {
            super::stage::name("watched");
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            nap();
        }
        // SAFETY: makes a descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) };
        poll(i32::try_from(fd).unwrap_or(-1), -1);
    });
}

fn datagrams(stage: &mut Stage) {
    let path = stage.path("socket").into_string().expect("a path");
    let socket = std::os::unix::net::UnixDatagram::bind(path).expect("a socket").into_raw_fd();
    let fd = stage.own(socket);
    stage.actor("server", &[fd], |_| {
        read_some(fd);
    });
}

fn signalfd(stage: &mut Stage) {
    stage.actor("waiter", &[], |_| {
        // SAFETY: the set is set up before it is used.
        let fd = unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC)
        };
        read_some(fd);
    });
}

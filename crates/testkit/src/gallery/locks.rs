//! Mutexes, read-write locks and file locks.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use super::stage::{Scene, idle, read_some};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one(
        "mutex-held",
        "a process waits for a mutex that an idle one holds",
        |stage| held(stage, Mutex::Plain),
        &[("waiter", &["for futex:", "(mutex)", "its owner @holder"])],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "robust-mutex-held",
        "a process waits for a robust mutex that an idle one holds",
        |stage| held(stage, Mutex::Robust),
        &[("waiter", &["for futex:", "(robust mutex)", "its owner @holder"])],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "pi-mutex-held",
        "a process waits for a priority-inheriting mutex that an idle one holds",
        |stage| held(stage, Mutex::Inheriting),
        &[("waiter", &["for futex:", "(priority-inheriting mutex)", "its owner @holder"])],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "mutex-holder-stopped",
        "the holder of a mutex is stopped",
        stopped,
        &[("waiter", &["(robust mutex)", "its owner @holder is stopped (SIGSTOP)"])],
    )
    .stuck(&["waiter"]),
    one(
        "robust-mutexes-crossed",
        "two processes take two robust mutexes, each the other's first",
        |stage| crossed(stage, Mutex::Robust),
        &[
            ("left", &["(robust mutex)", "its owner @right is stuck itself"]),
            ("right", &["(robust mutex)", "its owner @left is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, false, &["left", "right"]),
    one(
        "mutexes-crossed",
        "two processes take two mutexes, each the other's first; a third waits behind them",
        behind,
        &[
            ("left", &["(mutex)", "its owner @right is stuck itself"]),
            ("behind", &["(mutex)", "is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, false, &["left", "right"])
    .behind(&["behind"]),
    one(
        "mutexes-crossed-namespaces",
        "the same, in PID namespaces of their own",
        namespaces,
        &[("left", &["(mutex)", "its owner right[", " is stuck itself"])],
    )
    .deadlock(Sure::Certain, false, &["left", "right"])
    .behind(&["first"])
    .for_root(),
    one(
        "mutex-orphaned",
        "whoever held a mutex has ended",
        orphaned,
        &[(
            "waiter",
            &[
                "(mutex), locked by thread ",
                "which is no more",
                "nobody who could end that is left",
            ],
        )],
    )
    .deadlock(Sure::Probable, false, &["waiter"]),
    one(
        "mutex-twice",
        "a process takes a mutex that it has",
        twice,
        &[("selfish", &["(mutex)", "itself is stuck"])],
    )
    .deadlock(Sure::Certain, false, &["selfish"]),
    one(
        "mutex-and-pipe",
        "who holds a mutex waits for data from who waits for the mutex",
        mutex_and_pipe,
        &[
            ("holder", &["to read from pipe:", "@waiter is stuck itself"]),
            ("waiter", &["(robust mutex)", "its owner @holder is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, true, &["holder", "waiter"]),
    one(
        "thread-joined",
        "a thread waits for one that waits for a mutex that the first one holds",
        joined,
        &[("process", &["(end of a thread)"])],
    )
    .deadlock(Sure::Certain, false, &["process"]),
    one(
        "rwlock-written",
        "a process waits for a read-write lock that an idle writer holds",
        rwlock_written,
        &[("waiter", &["for futex:", "(read-write lock)", "its owner @holder"])],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "rwlock-read",
        "a writer waits for an idle reader of a read-write lock",
        |stage| rwlock_read(stage, false),
        &[("waiter", &["(read-write lock, held by 1 reader)", "@reader"])],
    ),
    one(
        "rwlock-reader-dead",
        "a writer waits for a reader of a read-write lock that has ended",
        |stage| rwlock_read(stage, true),
        &[(
            "waiter",
            &["(read-write lock, held by 1 reader)", "nobody who could end that is left"],
        )],
    )
    .deadlock(Sure::Probable, false, &["waiter"]),
    one(
        "flock-held",
        "a process waits for a lock on a file that an idle one holds",
        |stage| file_held(stage, File::Flock),
        &[("waiter", &["for lock:", "(flock, exclusive)", "its owner @holder"])],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "record-lock-held",
        "a process waits for a record lock that an idle one holds",
        |stage| file_held(stage, File::Record),
        &[(
            "waiter",
            &["for lock:", "(record lock, exclusive, bytes 0 to 9)", "its owner @holder"],
        )],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "open-file-lock-held",
        "a process waits for an open-file lock that an idle one holds",
        |stage| file_held(stage, File::Description),
        &[(
            "waiter",
            &["for lock:", "(open-file lock, exclusive, bytes 0 to 9)", "its owner @holder"],
        )],
    )
    .stuck_after_a_while(&["waiter"]),
    one(
        "flocks-crossed",
        "two processes lock two files, each the other's first",
        |stage| files_crossed(stage, [File::Flock; 2]),
        &[("left", &["(flock, exclusive)", "its owner @right is stuck itself"])],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "open-file-locks-crossed",
        "the same with open-file locks, of which the kernel finds no deadlock",
        |stage| files_crossed(stage, [File::Description; 2]),
        &[(
            "right",
            &["(open-file lock, exclusive, bytes 0 to 9)", "its owner @left is stuck itself"],
        )],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "record-lock-and-flock",
        "the same with a record lock and a flock",
        |stage| files_crossed(stage, [File::Record, File::Flock]),
        &[
            ("left", &["(flock, exclusive)", "its owner @right is stuck itself"]),
            ("right", &["(record lock, exclusive", "its owner @left is stuck itself"]),
        ],
    )
    .deadlock(Sure::Certain, true, &["left", "right"]),
    one(
        "flock-twice",
        "a process locks a file that it has locked through another descriptor",
        flock_twice,
        &[("selfish", &["(flock, exclusive)", "itself is stuck"])],
    )
    .deadlock(Sure::Certain, true, &["selfish"]),
];

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutex {
    Plain,
    Robust,
    Inheriting,
}

pub(super) fn mutex(stage: &mut Stage, kind: Mutex) -> *mut libc::pthread_mutex_t {
    let at = stage.memory() as *mut libc::pthread_mutex_t;
    // SAFETY: attributes are integers only; all zeroes is valid until they are set up.
    let mut attributes: libc::pthread_mutexattr_t = unsafe { std::mem::zeroed() };
    let with = &raw mut attributes;
    // SAFETY: the memory is large enough, aligned and shared; the attributes are set up before they are used.
    unsafe {
        libc::pthread_mutexattr_init(with);
        libc::pthread_mutexattr_setpshared(with, libc::PTHREAD_PROCESS_SHARED);
        match kind {
            Mutex::Plain => 0,
            Mutex::Robust => libc::pthread_mutexattr_setrobust(with, libc::PTHREAD_MUTEX_ROBUST),
            Mutex::Inheriting => {
                libc::pthread_mutexattr_setprotocol(with, libc::PTHREAD_PRIO_INHERIT)
            }
        };
        assert_eq!(libc::pthread_mutex_init(at, with), 0, "pthread_mutex_init");
    }
    at
}

pub(super) fn lock(mutex: *mut libc::pthread_mutex_t) {
    // SAFETY: the mutex was made by `mutex`, and its memory is mapped here.
    unsafe { libc::pthread_mutex_lock(mutex) };
}

fn held(stage: &mut Stage, kind: Mutex) {
    let mutex = mutex(stage, kind);
    stage.actor("holder", &[], |scene| {
        lock(mutex);
        scene.meet(2);
        idle();
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        lock(mutex);
    });
}

fn stopped(stage: &mut Stage) {
    let mutex = mutex(stage, Mutex::Robust);
    stage.actor("holder", &[], |scene| {
        lock(mutex);
        scene.meet(2);
        // SAFETY: stops this process.
        unsafe { libc::raise(libc::SIGSTOP) };
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        lock(mutex);
    });
}

pub(super) fn takes_both(scene: &Scene, actors: u32, of: [*mut libc::pthread_mutex_t; 2]) {
    lock(of[0]);
    scene.meet(actors);
    lock(of[1]);
}

fn crossed(stage: &mut Stage, kind: Mutex) {
    let (a, b) = (mutex(stage, kind), mutex(stage, kind));
    stage.actor("left", &[], |scene| takes_both(scene, 2, [a, b]));
    stage.actor("right", &[], |scene| takes_both(scene, 2, [b, a]));
}

fn behind(stage: &mut Stage) {
    let (a, b) = (mutex(stage, Mutex::Plain), mutex(stage, Mutex::Plain));
    stage.actor("left", &[], |scene| takes_both(scene, 3, [a, b]));
    stage.actor("right", &[], |scene| takes_both(scene, 3, [b, a]));
    stage.actor("behind", &[], |scene| {
        scene.meet(3);
        lock(a);
    });
}

fn namespaces(stage: &mut Stage) {
    let (a, b) = (mutex(stage, Mutex::Plain), mutex(stage, Mutex::Plain));
    stage.actor_in_namespace("left", &[], |scene| takes_both(scene, 2, [a, b]));
    stage.actor_in_namespace("first", &[], |scene| {
        // The first of each namespace is number 1 there: this one is to have another number than `left`.
        // SAFETY: the child uses what it copied.
        let child = unsafe { libc::fork() };
        if child == 0 {
            super::stage::name("right");
            // SAFETY: concerns this process alone.
            unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
            takes_both(scene, 2, [b, a]);
            idle();
        }
        // The locks are none of this one's: its number is that of `left`, too.
        // SAFETY: nobody uses this memory here any more; the child is this process's own.
        unsafe {
            libc::munmap(a.cast(), 4096);
            libc::munmap(b.cast(), 4096);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    });
}

fn orphaned(stage: &mut Stage) {
    let mutex = mutex(stage, Mutex::Plain);
    stage.brief("holder", &[], |scene| {
        lock(mutex);
        scene.meet(2);
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        lock(mutex);
    });
}

fn twice(stage: &mut Stage) {
    let mutex = mutex(stage, Mutex::Plain);
    stage.actor("selfish", &[], |_| {
        lock(mutex);
        lock(mutex);
    });
}

fn mutex_and_pipe(stage: &mut Stage) {
    let mutex = mutex(stage, Mutex::Robust);
    let (read, write) = stage.pipe();
    stage.actor("holder", &[read], |scene| {
        lock(mutex);
        scene.meet(2);
        read_some(read);
    });
    stage.actor("waiter", &[write], |scene| {
        scene.meet(2);
        lock(mutex);
    });
}

fn joined(stage: &mut Stage) {
    let mutex = mutex(stage, Mutex::Plain) as usize;
    stage.actor("process", &[], |_| {
        lock(mutex as *mut libc::pthread_mutex_t);
        let other = std::thread::spawn(move || {
            super::stage::name("second");
            lock(mutex as *mut libc::pthread_mutex_t);
        });
        let _ = other.join();
    });
}

fn rwlock(stage: &mut Stage) -> *mut libc::pthread_rwlock_t {
    let at = stage.memory() as *mut libc::pthread_rwlock_t;
    // SAFETY: as in `mutex`.
    let mut attributes: libc::pthread_rwlockattr_t = unsafe { std::mem::zeroed() };
    // SAFETY: as in `mutex`.
    unsafe {
        libc::pthread_rwlockattr_init(&raw mut attributes);
        libc::pthread_rwlockattr_setpshared(&raw mut attributes, libc::PTHREAD_PROCESS_SHARED);
        assert_eq!(libc::pthread_rwlock_init(at, &raw const attributes), 0, "pthread_rwlock_init");
    }
    at
}

fn rwlock_written(stage: &mut Stage) {
    let at = rwlock(stage);
    stage.actor("holder", &[], |scene| {
        // SAFETY: the lock was made by `rwlock`, and its memory is mapped here.
        unsafe { libc::pthread_rwlock_wrlock(at) };
        scene.meet(2);
        idle();
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        // SAFETY: as above.
        unsafe { libc::pthread_rwlock_rdlock(at) };
    });
}

fn rwlock_read(stage: &mut Stage, dies: bool) {
    let at = rwlock(stage);
    let reads = |scene: &Scene| {
        // SAFETY: as in `rwlock_written`.
        unsafe { libc::pthread_rwlock_rdlock(at) };
        scene.meet(2);
    };
    if dies {
        stage.brief("reader", &[], reads);
    } else {
        stage.actor("reader", &[], reads);
    }
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        // SAFETY: as above.
        unsafe { libc::pthread_rwlock_wrlock(at) };
    });
}

#[derive(Clone, Copy)]
enum File {
    Flock,
    Record,
    Description,
}

/// Opens a file of this name, and locks it: the first ten bytes, where a part can be locked.
pub(super) fn lock_file(path: &std::ffi::CStr, exclusive_flock: bool) -> i32 {
    file_lock(path, if exclusive_flock { File::Flock } else { File::Record })
}

fn file_lock(path: &std::ffi::CStr, kind: File) -> i32 {
    // SAFETY: the path is a C string.
    let fd =
        unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC, 0o600) };
    // SAFETY: integers only.
    let mut part: libc::flock = unsafe { std::mem::zeroed() };
    (part.l_type, part.l_len) = (libc::F_WRLCK as i16, 10);
    // SAFETY: the descriptor is open, the lock whole.
    unsafe {
        match kind {
            File::Flock => libc::flock(fd, libc::LOCK_EX),
            File::Record => libc::fcntl(fd, libc::F_SETLKW, &raw const part),
            File::Description => libc::fcntl(fd, libc::F_OFD_SETLKW, &raw const part),
        };
    }
    fd
}

fn file_held(stage: &mut Stage, kind: File) {
    let path = stage.path("file");
    stage.actor("holder", &[], |scene| {
        file_lock(&path, kind);
        scene.meet(2);
        idle();
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        file_lock(&path, kind);
    });
}

fn files_crossed(stage: &mut Stage, kinds: [File; 2]) {
    let paths = [stage.path("a"), stage.path("b")];
    for (name, first, second) in [("left", 0, 1), ("right", 1, 0)] {
        stage.actor(name, &[], |scene| {
            file_lock(&paths[first], kinds[first]);
            scene.meet(2);
            file_lock(&paths[second], kinds[second]);
        });
    }
}

fn flock_twice(stage: &mut Stage) {
    let path = stage.path("file");
    stage.actor("selfish", &[], |_| {
        file_lock(&path, File::Flock);
        file_lock(&path, File::Flock);
    });
}

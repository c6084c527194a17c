//! System V segments: the kernel knows who made one, and how often it is attached.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use super::super::{Stage, Sure};
use super::{Leftover, leak, look_alike, namespace};

pub(super) const TABLE: &[Leftover] = &[
    leak(
        "segment-private",
        "a process made a segment without a key, and ended",
        private,
        Sure::Probable,
    ),
    leak("segment-keyed", "a process made a segment with a key, and ended", keyed, Sure::Probable),
    leak(
        "segment-attached-once",
        "a process made a segment, another one attached and left it, and both ended",
        attached_once,
        Sure::Probable,
    ),
    leak(
        "segment-of-the-killed",
        "a process was killed while it had its segment attached",
        killed,
        Sure::Probable,
    ),
    leak(
        "segment-of-a-zombie",
        "a process made a segment, ended, and was not waited for",
        zombie,
        Sure::Probable,
    ),
    leak(
        "segment-id-reused",
        "the id of the process that made a segment is another one's",
        reused,
        Sure::Probable,
    )
    .for_root(),
    leak(
        "segment-in-a-namespace",
        "a process made a segment in another IPC namespace, and ended; somebody lives there",
        in_namespace,
        Sure::Probable,
    )
    .for_root(),
    leak(
        "segment-of-nobody-left",
        "a process made a segment without a key, and ended; no process of its user lives",
        |stage| {
            let id = stage.by_another(|| {
                become_user();
                make(libc::IPC_PRIVATE)
            });
            about(stage, id);
        },
        Sure::Certain,
    )
    .for_root(),
    look_alike(
        "segment-of-a-live-owner",
        "who made a segment with a key lives, and has not attached it now",
        |stage| {
            stage.actor("owner", &[], |scene| scene.tell(make(key())));
            let id = stage.told();
            about(stage, id);
        },
    ),
    look_alike(
        "segment-to-be-attached",
        "who made a segment without a key lives, and has not attached it yet",
        |stage| {
            stage.actor("owner", &[], |scene| scene.tell(make(libc::IPC_PRIVATE)));
            let id = stage.told();
            about(stage, id);
        },
    ),
    look_alike(
        "segment-detached-by-the-living",
        "who had a segment attached last lives; who made it has ended",
        |stage| {
            let id = stage.by_another(|| make(libc::IPC_PRIVATE));
            about(stage, id);
            stage.actor("user", &[], |_| {
                let at = attach(id);
                // SAFETY: it was attached there.
                unsafe { libc::shmdt(at) };
            });
        },
    ),
    look_alike(
        "segment-of-another-pid-namespace",
        "a segment is attached only in another PID namespace",
        |stage| {
            let id = stage.by_another(|| make(libc::IPC_PRIVATE));
            about(stage, id);
            stage.actor_in_namespace("user", &[], |_| {
                attach(id);
            });
        },
    )
    .for_root(),
    look_alike(
        "segment-of-another-ipc-namespace",
        "who has a segment attached went to another IPC namespace",
        |stage| {
            let id = stage.by_another(|| make(libc::IPC_PRIVATE));
            about(stage, id);
            stage.actor("user", &[], |_| {
                attach(id);
                enter(libc::CLONE_NEWIPC);
            });
        },
    )
    .for_root(),
    look_alike(
        "segment-to-be-removed",
        "a segment is marked as to be removed, and still attached",
        |stage| {
            let id = stage.by_another(|| make(libc::IPC_PRIVATE));
            about(stage, id);
            stage.actor("user", &[], |_| {
                attach(id);
                // SAFETY: IPC_RMID uses no argument.
                unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
            });
        },
    ),
    look_alike(
        "segment-to-be-removed-elsewhere",
        "a segment is marked as to be removed, and attached only in another PID namespace",
        |stage| {
            let id = stage.by_another(|| make(libc::IPC_PRIVATE));
            about(stage, id);
            stage.actor_in_namespace("user", &[], |_| {
                attach(id);
                // SAFETY: IPC_RMID uses no argument.
                unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
            });
        },
    )
    .for_root(),
    look_alike(
        "segment-of-the-stopped",
        "the only one who has a segment attached is stopped; who made it has ended",
        |stage| {
            let id = stage.by_another(|| make(libc::IPC_PRIVATE));
            about(stage, id);
            stage.actor("user", &[], |_| {
                attach(id);
                // SAFETY: stops this process alone.
                unsafe { libc::raise(libc::SIGSTOP) };
            });
        },
    ),
    look_alike(
        "segment-of-a-session",
        "who made a segment ended; a child of it, of its session, lives",
        kin,
    ),
    look_alike(
        "segment-with-a-lock",
        "a segment with a key holds a state, and a set of semaphores is its writers' lock",
        |stage| {
            let key = key();
            let id = stage.by_another(|| make(key));
            about(stage, id);
            // SAFETY: makes a set.
            let set = unsafe { libc::semget(key ^ 0x5357_6c6b, 1, libc::IPC_CREAT | 0o600) };
            stage.set(set);
        },
    ),
];

/// A new segment of this key.
fn make(key: i32) -> i32 {
    // SAFETY: makes a segment.
    let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(id >= 0, "shmget: {}", std::io::Error::last_os_error());
    id
}

pub(super) fn key() -> i32 {
    let mut random = [0_u8; 4];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    i32::from_ne_bytes(random) | 1
}

fn attach(id: i32) -> *mut libc::c_void {
    // SAFETY: attached where the kernel likes.
    let at = unsafe { libc::shmat(id, std::ptr::null(), 0) };
    assert!(at as isize != -1, "shmat: {}", std::io::Error::last_os_error());
    at
}

fn about(stage: &mut Stage, id: i32) {
    stage.segment(id);
    stage.is_about(format!("sysv-shm:{id}"));
}

/// A user that nothing else runs as.
pub(super) fn become_user() {
    // SAFETY: concerns this process alone.
    assert_eq!(unsafe { libc::setresuid(61_007, 61_007, 61_007) }, 0, "setresuid");
}

/// A namespace of its own.
pub(super) fn enter(flags: i32) {
    // SAFETY: concerns this process alone.
    assert_eq!(unsafe { libc::unshare(flags) }, 0, "unshare: {}", std::io::Error::last_os_error());
}

fn private(stage: &mut Stage) {
    let id = stage.by_another(|| make(libc::IPC_PRIVATE));
    about(stage, id);
}

fn keyed(stage: &mut Stage) {
    let id = stage.by_another(|| make(key()));
    about(stage, id);
}

fn attached_once(stage: &mut Stage) {
    let id = stage.by_another(|| make(libc::IPC_PRIVATE));
    about(stage, id);
    stage.by_another(|| {
        let at = attach(id);
        // SAFETY: it was attached there.
        unsafe { libc::shmdt(at) }
    });
}

fn killed(stage: &mut Stage) {
    let id = stage.by_one_killed(|| {
        let id = make(libc::IPC_PRIVATE);
        attach(id);
        id
    });
    about(stage, id);
}

fn zombie(stage: &mut Stage) {
    stage.actor("parent", &[], |scene| {
        // SAFETY: the child uses what it copied, and ends by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            scene.tell(make(libc::IPC_PRIVATE));
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(0) };
        }
    });
    let id = stage.told();
    about(stage, id);
}

fn kin(stage: &mut Stage) {
    let stage_id = std::process::id();
    let id = stage.by_another(|| {
        // SAFETY: concerns this process alone; the child uses what it copied.
        let child = unsafe {
            libc::setsid();
            libc::fork()
        };
        if child == 0 {
            super::super::stage::name("kin");
            Stage::until_the_stage_ends(stage_id);
        }
        make(libc::IPC_PRIVATE)
    });
    about(stage, id);
}

fn in_namespace(stage: &mut Stage) {
    stage.actor("keeper", &[], |scene| {
        enter(libc::CLONE_NEWIPC);
        // SAFETY: the child uses what it copied, and ends by `_exit`.
        unsafe {
            let child = libc::fork();
            if child == 0 {
                scene.tell(make(libc::IPC_PRIVATE));
                libc::_exit(0);
            }
            let mut status = 0;
            libc::waitpid(child, &raw mut status, 0);
        }
    });
    let id = stage.told();
    let namespace = namespace(stage.last(), "ipc");
    stage.is_about(format!("sysv-shm:{id}@{namespace}"));
}

fn reused(stage: &mut Stage) {
    let (id, maker) = stage.by_one_who_ends(false, || make(libc::IPC_PRIVATE));
    about(stage, id);
    // Its time is in whole seconds, and clocks are corrected: who has the id is another one only if it was started later than that.
    std::thread::sleep(std::time::Duration::from_millis(3_300));
    stage.actor_of_id("other", maker);
}

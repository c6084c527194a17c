//! Sets of semaphores and queues: the kernel knows who used one last, and not who may come.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::CStr;

use super::super::{Stage, Sure};
use super::segments::{become_user, key};
use super::{Leftover, digits, leak, look_alike, word};

pub(super) const TABLE: &[Leftover] = &[
    leak(
        "set-private",
        "a process made and used a set without a key, and ended; others of its user live",
        |stage| {
            let id = stage.by_another(|| operate(set(libc::IPC_PRIVATE), 1));
            about_set(stage, id);
        },
        Sure::Possible,
    ),
    leak(
        "set-keyed",
        "a process made and used a set with a key, and ended",
        |stage| {
            let id = stage.by_another(|| operate(set(key()), 1));
            about_set(stage, id);
        },
        Sure::Possible,
    ),
    leak(
        "set-of-nobody-left",
        "a process made and used a set without a key, and ended; no process of its user lives",
        |stage| {
            let id = stage.by_another(|| {
                become_user();
                operate(set(libc::IPC_PRIVATE), 1)
            });
            about_set(stage, id);
        },
        Sure::Certain,
    )
    .for_root(),
    leak(
        "queue-of-nobody-left",
        "a process sent to a queue without a key, and ended; no process of its user lives",
        |stage| {
            let id = stage.by_another(|| {
                become_user();
                send(queue(libc::IPC_PRIVATE))
            });
            about_queue(stage, id);
        },
        Sure::Certain,
    )
    .for_root(),
    leak(
        "queue-private",
        "a process sent to a queue without a key, and ended; others of its user live",
        |stage| {
            let id = stage.by_another(|| send(queue(libc::IPC_PRIVATE)));
            about_queue(stage, id);
        },
        Sure::Possible,
    ),
    leak(
        "posix-queue-generated",
        "a process made a queue for a reply, by a name that nobody else knows, and was killed",
        |stage| {
            let name = stage.removes_queue(&format!("/reply-{}", digits(16)));
            let inode = stage.by_one_killed(|| posix_queue(&name));
            about_posix_queue(stage, inode);
        },
        Sure::Probable,
    )
    .for_root(),
    look_alike("set-of-a-live-user", "who used a set of semaphores last lives", |stage| {
        let id = stage.by_another(|| operate(set(libc::IPC_PRIVATE), 1));
        about_set(stage, id);
        stage.actor("user", &[], |_| {
            operate(id, 1);
        });
    }),
    look_alike(
        "set-with-an-idle-user",
        "who used a set last has ended; another one that used it lives, and is idle",
        |stage| {
            let id = stage.by_another(|| set(libc::IPC_PRIVATE));
            about_set(stage, id);
            stage.actor("user", &[], |scene| scene.tell(operate(id, 1)));
            stage.told();
            stage.by_another(|| operate(id, 1));
        },
    ),
    look_alike(
        "set-waited-for",
        "a process waits for a semaphore that one who ended used last",
        |stage| {
            let id = stage.by_another(|| operate(operate(set(libc::IPC_PRIVATE), 1), -1));
            about_set(stage, id);
            stage.actor("waiter", &[], |_| {
                operate(id, -1);
            });
        },
    ),
    look_alike("set-never-used", "a set of semaphores was made and not used yet", |stage| {
        let id = stage.by_another(|| set(libc::IPC_PRIVATE));
        about_set(stage, id);
    }),
    look_alike(
        "queue-with-messages",
        "messages wait in a queue with a key, whose reader comes later",
        |stage| {
            let id = stage.by_another(|| send(queue(key())));
            about_queue(stage, id);
        },
    ),
    look_alike(
        "queue-read",
        "a process waits for messages of a queue that nobody has sent to yet",
        |stage| {
            let id = stage.by_another(|| queue(libc::IPC_PRIVATE));
            about_queue(stage, id);
            stage.actor("reader", &[], |_| {
                let mut message = [0_i64; 8];
                // SAFETY: room for a type and 56 bytes.
                unsafe { libc::msgrcv(id, message.as_mut_ptr().cast(), 56, 0, 0) };
            });
        },
    ),
    look_alike(
        "posix-queue-with-messages",
        "messages wait in a queue by a name, whose reader comes later",
        |stage| {
            let name = stage.removes_queue(&format!("/jobs-{}", word()));
            let inode = stage.by_another(|| {
                let inode = posix_queue(&name);
                post(&name);
                inode
            });
            about_posix_queue(stage, inode);
        },
    )
    .for_root(),
    look_alike(
        "posix-queue-generated-with-messages",
        "a message waits in a queue with a generated name",
        |stage| {
            let name = stage.removes_queue(&format!("/reply-{}", digits(16)));
            let inode = stage.by_another(|| {
                let inode = posix_queue(&name);
                post(&name);
                inode
            });
            about_posix_queue(stage, inode);
        },
    )
    .for_root(),
    look_alike("posix-queue-open", "a process has a queue open, and nothing is in it", |stage| {
        let name = stage.removes_queue(&format!("/reply-{}", digits(16)));
        stage.actor("owner", &[], |scene| scene.tell(posix_queue(&name)));
        let inode = stage.told();
        about_posix_queue(stage, inode);
    }),
];

fn set(key: i32) -> i32 {
    // SAFETY: makes a set.
    let id = unsafe { libc::semget(key, 1, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(id >= 0, "semget: {}", std::io::Error::last_os_error());
    id
}

fn operate(id: i32, by: i16) -> i32 {
    let mut operation = libc::sembuf { sem_num: 0, sem_op: by, sem_flg: 0 };
    // SAFETY: one operation, as said.
    let done = unsafe { libc::semop(id, &raw mut operation, 1) };
    assert!(done == 0, "semop: {}", std::io::Error::last_os_error());
    id
}

fn queue(key: i32) -> i32 {
    // SAFETY: makes a queue.
    let id = unsafe { libc::msgget(key, libc::IPC_CREAT | libc::IPC_EXCL | 0o600) };
    assert!(id >= 0, "msgget: {}", std::io::Error::last_os_error());
    id
}

fn send(id: i32) -> i32 {
    let message = [1_i64, 7];
    // SAFETY: a type and 8 bytes.
    let sent = unsafe { libc::msgsnd(id, message.as_ptr().cast(), 8, 0) };
    assert!(sent == 0, "msgsnd: {}", std::io::Error::last_os_error());
    id
}

/// Makes a queue and keeps it open; its number.
fn posix_queue(name: &CStr) -> i32 {
    // SAFETY: a C string, a mode, and no attributes: the usual ones.
    let fd = unsafe {
        let none: *const libc::mq_attr = std::ptr::null();
        libc::mq_open(name.as_ptr(), libc::O_CREAT | libc::O_EXCL | libc::O_RDWR, 0o600, none)
    };
    assert!(fd >= 0, "mq_open: {}", std::io::Error::last_os_error());
    // SAFETY: zeroes are valid for a `stat`, which `fstat` fills.
    unsafe {
        let mut status: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut status);
        // The kernel counts them in 32 bits.
        status.st_ino as i32
    }
}

fn post(name: &CStr) {
    // SAFETY: a C string; one byte, as said.
    let sent = unsafe {
        let fd = libc::mq_open(name.as_ptr(), libc::O_WRONLY);
        libc::mq_send(fd, b"x".as_ptr().cast(), 1, 0)
    };
    assert!(sent == 0, "mq_send: {}", std::io::Error::last_os_error());
}

fn about_set(stage: &mut Stage, id: i32) {
    stage.set(id);
    stage.is_about(format!("sysv-sem:{id}"));
}

fn about_queue(stage: &mut Stage, id: i32) {
    stage.queue(id);
    stage.is_about(format!("sysv-msg:{id}"));
}

/// The device of the queues' file system is not known here: its number is enough, the kernel counts them up.
fn about_posix_queue(stage: &mut Stage, inode: i32) {
    stage.is_about(format!("mq:*:{}", inode as u32));
}

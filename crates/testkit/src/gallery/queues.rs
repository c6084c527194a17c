//! Queues, semaphores and event counters.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::CString;

use super::stage::{idle, read_some};
use super::{Situation, Stage, Sure, one};

pub(super) const TABLE: &[Situation] = &[
    one("mq-empty", "a receiver of a POSIX queue waits for its sender", |stage| mq(stage, false), &[
        ("waiter", &["to read from mq:", "(empty, 0/2)", "its only writer @other"]),
    ]),
    one("mq-full", "a sender to a POSIX queue waits for its receiver", |stage| mq(stage, true), &[
        ("waiter", &["to write to mq:", "(full, 2/2)", "its only reader @other"]),
    ])
    .stuck(&["waiter"]),
    one("sysv-queue-empty", "a receiver of a System V queue waits for a sender", |stage| messages(stage, false), &[
        ("waiter", &["to read from sysv-msg:", "(empty, 0/"]),
    ]),
    one("sysv-queue-other-type", "a receiver of a System V queue waits for a type, and there is a message of another one", other_type, &[
        ("waiter", &["to read from sysv-msg:", "wants type 7; messages there: 1, with 1024 bytes"]),
    ]),
    one("sysv-queue-full", "a sender to a System V queue waits for a receiver", |stage| messages(stage, true), &[
        ("waiter", &["to write to sysv-msg:", "(full, "]),
    ])
    .stuck(&["waiter"]),
    one("sysv-semaphore-taken", "a process waits for a System V semaphore that another one took", sem_taken, &[
        ("waiter", &["for sysv-sem:", "semaphore 1, wants 1, count 0", "its last user @holder"]),
    ]),
    one("sysv-semaphores-crossed", "two processes take two System V semaphores, each the other's first", sem_crossed, &[
        ("left", &["semaphore 1, wants 1, count 0", "its last user @right may be stuck itself"]),
    ])
    .deadlock(Sure::Possible, false, &["left", "right"]),
    one("sysv-semaphore-orphaned", "whoever took a System V semaphore has ended without giving it back", sem_orphaned, &[
        ("waiter", &["count 0", "which is no more", "nobody is left who is known to be able to end that"]),
    ])
    .deadlock(Sure::Possible, false, &["waiter"]),
    one("posix-semaphore-empty", "a process waits for a POSIX semaphore in memory that an idle one shares", sem_t, &[
        ("waiter", &["for futex:", "(semaphore at 0)", "@poster"]),
    ]),
    one("eventfd-zero", "a process waits for an eventfd that another one has", eventfd, &[
        ("waiter", &["to read from eventfd:", "(empty, 0)", "@adder"]),
    ]),
    one("eventfd-full", "a process adds to an eventfd that is full, and nobody takes from it", eventfd_full, &[
        ("adder", &["to write to eventfd:", "(full, ", "@waiter"]),
    ])
    .stuck(&["adder"]),
    one("eventfds-crossed", "two processes wait for each other to add to an eventfd", eventfds_crossed, &[
        ("left", &["to read from eventfd:", "(empty, 0)", "@right is stuck itself"]),
    ])
    .deadlock(Sure::Probable, true, &["left", "right"]),
    one("socket-and-queue", "one waits for an answer over a socket, the other for a message that the first one would send", socket_and_queue, &[
        ("client", &["to read from unix:", "@server is stuck itself"]),
        ("server", &["to read from mq:", "@client is stuck itself"]),
    ])
    .deadlock(Sure::Probable, true, &["client", "server"]),
];

fn queue(stage: &mut Stage, flags: &[i32]) -> Vec<i32> {
    let name = CString::new(format!("/{}", crate::unique("gallery"))).expect("a name");
    // SAFETY: mq_attr is integers only; all zeroes is a valid value.
    let mut attributes: libc::mq_attr = unsafe { std::mem::zeroed() };
    (attributes.mq_maxmsg, attributes.mq_msgsize) = (2, 16);
    let made = flags
        .iter()
        .map(|flag| {
            let flags = flag | libc::O_CREAT | libc::O_CLOEXEC;
            // SAFETY: the name is a C string, the attributes are whole.
            stage.own(unsafe { libc::mq_open(name.as_ptr(), flags, 0o600, &raw const attributes) })
        })
        .collect();
    // SAFETY: as above. Those who have it open go on.
    unsafe { libc::mq_unlink(name.as_ptr()) };
    made
}

fn receive(queue: i32) {
    let mut buffer = [0_u8; 16];
    // SAFETY: the buffer is as long as said.
    unsafe {
        libc::mq_receive(queue, buffer.as_mut_ptr().cast(), buffer.len(), std::ptr::null_mut())
    };
}

fn mq(stage: &mut Stage, full: bool) {
    let ends = queue(stage, &[libc::O_RDONLY, libc::O_WRONLY]);
    let (waits, other) = if full { (ends[1], ends[0]) } else { (ends[0], ends[1]) };
    stage.actor("waiter", &[waits], |_| {
        if full {
            // SAFETY: a message of one byte.
            while unsafe { libc::mq_send(waits, c"x".as_ptr(), 1, 0) } == 0 {}
        } else {
            receive(waits);
        }
    });
    stage.actor("other", &[other], |_| idle());
}

#[repr(C)]
struct Message {
    kind: libc::c_long,
    text: [u8; 1024],
}

fn other_type(stage: &mut Stage) {
    let id = stage.messages();
    stage.actor("waiter", &[], |_| {
        let mut message = Message { kind: 3, text: [0; 1024] };
        let at = (&raw mut message).cast::<libc::c_void>();
        // SAFETY: the message is as long as said.
        unsafe {
            libc::msgsnd(id, at, 1024, 0);
            libc::msgrcv(id, at, 1024, 7, 0);
        }
    });
}

fn messages(stage: &mut Stage, full: bool) {
    let id = stage.messages();
    stage.actor("waiter", &[], |_| {
        let mut message = Message { kind: 1, text: [0; 1024] };
        let at = (&raw mut message).cast::<libc::c_void>();
        if full {
            // SAFETY: the message is as long as said.
            while unsafe { libc::msgsnd(id, at, 1024, 0) } == 0 {}
        } else {
            // SAFETY: as above.
            unsafe { libc::msgrcv(id, at, 1024, 0, 0) };
        }
    });
}

/// Adds to a semaphore, or takes from it.
pub(super) fn operate(id: i32, index: u16, by: i16) {
    operate_with(id, index, by, 0);
}

/// The same as a lock does it: what was done is undone when the process ends.
pub(super) fn lock(id: i32, index: u16) {
    operate_with(id, index, -1, libc::SEM_UNDO as i16);
}

fn operate_with(id: i32, index: u16, by: i16, flags: i16) {
    let mut operation = libc::sembuf { sem_num: index, sem_op: by, sem_flg: flags };
    // SAFETY: one operation, as said.
    unsafe { libc::semop(id, &raw mut operation, 1) };
}

fn sem_taken(stage: &mut Stage) {
    let id = stage.semaphores(&[1, 1]);
    stage.actor("holder", &[], |scene| {
        operate(id, 1, -1);
        scene.meet(2);
        idle();
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        operate(id, 1, -1);
    });
}

fn sem_crossed(stage: &mut Stage) {
    let id = stage.semaphores(&[1, 1]);
    for (name, first, second) in [("left", 0, 1), ("right", 1, 0)] {
        stage.actor(name, &[], |scene| {
            lock(id, first);
            scene.meet(2);
            lock(id, second);
        });
    }
}

fn sem_orphaned(stage: &mut Stage) {
    let id = stage.semaphores(&[1]);
    stage.brief("holder", &[], |scene| {
        operate(id, 0, -1);
        scene.meet(2);
    });
    stage.actor("waiter", &[], |scene| {
        scene.meet(2);
        operate(id, 0, -1);
    });
}

fn sem_t(stage: &mut Stage) {
    let at = stage.memory() as *mut libc::sem_t;
    // SAFETY: the memory is large enough, aligned and shared.
    assert_eq!(unsafe { libc::sem_init(at, 1, 0) }, 0, "sem_init");
    stage.actor("waiter", &[], |_| {
        // SAFETY: the semaphore was made above, and its memory is mapped here.
        unsafe { libc::sem_wait(at) };
    });
    stage.actor("poster", &[], |_| idle());
}

fn eventfd(stage: &mut Stage) {
    // SAFETY: makes a descriptor.
    let fd = stage.own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
    stage.actor("waiter", &[fd], |_| {
        let mut count = 0_u64;
        // SAFETY: room for a count.
        unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
    });
    stage.actor("adder", &[fd], |_| idle());
}

fn eventfd_full(stage: &mut Stage) {
    // SAFETY: makes a descriptor.
    let fd = stage.own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) });
    stage.actor("adder", &[fd], |_| {
        for count in [u64::MAX - 1, 1] {
            // SAFETY: a count, as long as said.
            unsafe { libc::write(fd, (&raw const count).cast(), 8) };
        }
    });
    stage.actor("waiter", &[fd], |_| idle());
}

fn eventfds_crossed(stage: &mut Stage) {
    // SAFETY: makes descriptors.
    let made =
        unsafe { [libc::eventfd(0, libc::EFD_CLOEXEC), libc::eventfd(0, libc::EFD_CLOEXEC)] };
    let [a, b] = made.map(|fd| stage.own(fd));
    for (name, waits_for) in [("left", a), ("right", b)] {
        stage.actor(name, &[a, b], |_| {
            read_some(waits_for);
        });
    }
}

fn socket_and_queue(stage: &mut Stage) {
    let ends = queue(stage, &[libc::O_RDONLY, libc::O_WRONLY]);
    let mut pair = [0; 2];
    // SAFETY: room for two descriptors.
    let made = unsafe {
        libc::socketpair(
            libc::AF_UNIX,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
            pair.as_mut_ptr(),
        )
    };
    assert_eq!(made, 0, "socketpair");
    let (client, server) = (stage.own(pair[0]), stage.own(pair[1]));
    stage.actor("client", &[client, ends[1]], |_| {
        read_some(client);
    });
    stage.actor("server", &[server, ends[0]], |_| receive(ends[0]));
}

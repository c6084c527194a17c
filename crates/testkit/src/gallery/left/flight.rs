//! What is held only by a descriptor that was sent and not received yet.

#![allow(unsafe_code)]
// What an actor does is a short C program.
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::os::fd::IntoRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use super::super::Stage;
use super::super::stage::close;
use super::{Leftover, digits, file_id, look_alike};

pub(super) const TABLE: &[Leftover] = &[
    look_alike(
        "memory-in-flight",
        "memory was sent to a process that has not received it yet",
        |stage| {
            let path = format!("/dev/shm/psm_{}", digits(12));
            let file = stage.removes_file(&path);
            sent(stage, || {
                // SAFETY: a C string and a mode.
                unsafe {
                    libc::open(file.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)
                }
            });
            stage.is_about(file_id("posix-shm", path.as_ref()));
        },
    ),
    look_alike(
        "memory-in-a-socket-in-flight",
        "memory is in flight in a socket that is in flight itself",
        |stage| {
            let path = format!("/dev/shm/psm_{}", digits(12));
            let file = stage.removes_file(&path);
            sent(stage, || {
                // SAFETY: a C string and a mode.
                let fd = unsafe {
                    libc::open(file.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)
                };
                let (here, there) = pair();
                send(here, &[fd]);
                close(here);
                there
            });
            stage.is_about(file_id("posix-shm", path.as_ref()));
        },
    ),
    look_alike(
        "memory-behind-another-message",
        "memory was sent after another descriptor: only the first one can be seen",
        |stage| {
            let path = format!("/dev/shm/psm_{}", digits(12));
            let file = stage.removes_file(&path);
            let (here, there) = stage_pair(stage);
            stage.by_another(|| {
                // SAFETY: a C string and a mode.
                let fd = unsafe {
                    libc::open(file.as_ptr(), libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600)
                };
                send(here, &[here]);
                send(here, &[fd]);
                0
            });
            stage.actor("receiver", &[there], |_| {});
            stage.is_about(file_id("posix-shm", path.as_ref()));
        },
    )
    .clouds(),
    look_alike("memfd-in-flight", "memory without a name is held only in flight", |stage| {
        sent(stage, || {
            // SAFETY: a C string.
            unsafe { libc::memfd_create(c"in-flight".as_ptr(), libc::MFD_CLOEXEC) }
        });
    }),
    look_alike("listener-in-flight", "a listening socket is held only in flight", |stage| {
        let path = stage.path("server").into_string().expect("text");
        sent(stage, || UnixListener::bind(&path).expect("a listener").into_raw_fd());
        stage.is_about(file_id("unix", path.as_ref()));
    }),
];

fn pair() -> (i32, i32) {
    let (here, there) = UnixStream::pair().expect("a pair");
    (here.into_raw_fd(), there.into_raw_fd())
}

fn stage_pair(stage: &mut Stage) -> (i32, i32) {
    let (here, there) = pair();
    (stage.own(here), stage.own(there))
}

/// An actor that does not receive what another process made and sent to it, which has ended.
fn sent(stage: &mut Stage, makes: impl FnOnce() -> i32) {
    let (here, there) = stage_pair(stage);
    stage.by_another(|| {
        let fd = makes();
        assert!(fd >= 0, "a descriptor: {}", std::io::Error::last_os_error());
        send(here, &[fd]);
        0
    });
    stage.actor("receiver", &[there], |_| {});
}

/// Sends descriptors with a byte.
pub(super) fn send(socket: i32, fds: &[i32]) {
    let mut byte = [1_u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut space = [0_u64; 16];
    let len = size_of_val(fds) as u32;
    // SAFETY: zeroes are valid for a `msghdr`; the space is aligned and large enough for a few descriptors.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
        message.msg_control = space.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(len) as usize;
        let control = libc::CMSG_FIRSTHDR(&raw const message);
        (*control).cmsg_level = libc::SOL_SOCKET;
        (*control).cmsg_type = libc::SCM_RIGHTS;
        (*control).cmsg_len = libc::CMSG_LEN(len) as usize;
        std::ptr::copy_nonoverlapping(fds.as_ptr(), libc::CMSG_DATA(control).cast(), fds.len());
        let sent = libc::sendmsg(socket, &raw const message, 0);
        assert!(sent == 1, "sendmsg: {}", std::io::Error::last_os_error());
    }
}

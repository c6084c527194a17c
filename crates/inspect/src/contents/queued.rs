//! What waits in pipes, sockets and System V queues.
//!
//! Source: `tee(2)`, `recv(2)` (`MSG_PEEK`), `unix(7)`, `socket(7)` (`SO_PEEK_OFF`), `msgop(2)` (`MSG_COPY`), `proc_pid_fdinfo(5)` (`scm_fds`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use switchboard_kernel::splice::{SpliceFlags, tee};
use switchboard_kernel::sysv_msg::{Buffer, MessageQueue};
use switchboard_kernel::{io, pipe as kernel_pipe, unix_socket};

use super::{Contents, Head, Unseen, descriptors, inode};
use crate::kind::Kind;
use crate::model::Object;
use crate::source::borrowed::Lender;
use crate::source::descriptors::{in_flight as count_in_flight, named_by_link};
use crate::source::folder::Folder;

/// The next bytes of a pipe, doubled into one of our own.
pub(super) fn pipe(object: &Object, most: usize) -> Result<Contents, Unseen> {
    let readers = descriptors(object, |end| end.reads);
    if readers.is_empty() {
        return Err(Unseen::Nobody(
            "nobody that can be seen reads it: only at that end can be looked".to_owned(),
        ));
    }
    let from = borrow(object, &readers)?;
    let failed =
        |error: switchboard_kernel::Error| Unseen::Refused(format!("looking into it: {error}"));
    let (out, into) = kernel_pipe::pipe_nonblocking().map_err(failed)?;
    kernel_pipe::grow(&into, most.saturating_add(1).max(64 << 10));
    let doubled = match tee(&from, &into, most.saturating_add(1), SpliceFlags::NONBLOCK) {
        Ok(doubled) => doubled,
        Err(error) if error.name() == "EAGAIN" => 0,
        Err(error) => return Err(failed(error)),
    };
    // Before it is read: while the copy is open, a writer's end of file would come late.
    drop((from, into));
    let mut bytes = vec![0; doubled];
    let read = io::read_full(&out, &mut bytes).map_err(failed)?;
    bytes.truncate(read.min(most));
    let mut found = Contents::of(Head::Bytes(bytes));
    found.more = doubled > most || object.fill.is_some_and(|fill| fill > read as u64);
    Ok(found)
}

/// The next bytes of a stream, or the next message.
pub(super) fn socket(object: &Object, most: usize) -> Result<Contents, Unseen> {
    if object.is_listening() {
        let waiting = object.fill.unwrap_or(0);
        return Err(Unseen::Never(format!(
            "it listens: {} to be accepted, and what is in them cannot be seen",
            crate::text::counted(waiting, "connection waits", "connections wait")
        )));
    }
    let ends = descriptors(object, |_| true);
    if ends.is_empty() {
        return Err(Unseen::Nobody("nobody that can be seen has it".to_owned()));
    }
    let in_flight = in_flight(&ends);
    let socket = borrow(object, &ends)?;
    let failed =
        |error: switchboard_kernel::Error| Unseen::Refused(format!("looking into it: {error}"));
    if unix_socket::peek_offset(&socket).map_err(failed)?.is_some() {
        return Err(Unseen::Refused(
            "its owner peeks from an offset (SO_PEEK_OFF), which looking would move".to_owned(),
        ));
    }
    let mut ready = [PollFd::new(&socket, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let _ = poll(&mut ready, Some(&now));
    let events = ready[0].revents();
    if events.contains(PollFlags::ERR) {
        return Err(Unseen::Refused(
            "it has an error for its owner, which looking would take".to_owned(),
        ));
    }
    let is_stream = match object.kind {
        Kind::Unix => object.details.get("type") == Some("stream"),
        kind => kind == Kind::Tcp,
    };
    let mut bytes = vec![0; most];
    let (len, fds, more_fds) = if events.contains(PollFlags::IN) {
        match unix_socket::peek_with_fds(&socket, &mut bytes) {
            // On a stream the flag that tells the whole length means something else to TCP.
            Ok((received, fds, more)) => (Some(received.len), fds, more),
            Err(error) if error.name() == "EAGAIN" => (None, Vec::new(), false),
            Err(error) => return Err(failed(error)),
        }
    } else {
        (None, Vec::new(), false)
    };
    let leads_to = fds.iter().map(leads_to).collect();
    drop((fds, socket));
    let len = len.map(|len| (len, len.min(most)));
    bytes.truncate(len.map_or(0, |(_, shown)| shown));
    let head = match len {
        Some(_) if !is_stream => Head::Messages(vec![(None, bytes)]),
        None if !is_stream => Head::Messages(Vec::new()),
        _ => Head::Bytes(bytes),
    };
    let mut found = Contents::of(head);
    found.more = len.is_some_and(|(len, shown)| len > shown)
        || object.fill.zip(len).is_some_and(|(fill, (_, shown))| fill > shown as u64);
    found.descriptors = leads_to;
    found.in_flight = in_flight;
    if !is_stream {
        found.notes.push("only the next message can be seen".to_owned());
    }
    if more_fds {
        let most = unix_socket::MAX_DESCRIPTORS;
        found.notes.push(format!("more than {most} descriptors go with it: {most} are shown"));
    }
    Ok(found)
}

/// Descriptors that wait in a Unix socket.
fn in_flight(ends: &[(u32, i32)]) -> Option<u64> {
    ends.iter().find_map(|(pid, fd)| {
        let mut text = Vec::new();
        let folder = Folder::open(&format!("/proc/{pid}")).ok()?;
        folder.read_record(format!("fdinfo/{fd}"), &mut text).ok()?;
        count_in_flight(&text).map(u64::from)
    })
}

/// What a descriptor of this process leads to, by the name that other commands take.
fn leads_to(fd: &OwnedFd) -> String {
    let link = rustix::fs::readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new());
    named_by_link(link.unwrap_or_default().as_bytes())
}

/// The messages at the head of a queue, copied.
pub(super) fn system_v(object: &Object, most: usize) -> Result<Contents, Unseen> {
    if object.namespace.is_some() {
        return Err(Unseen::Refused(
            "it is in another IPC namespace: look there, with nsenter --ipc".to_owned(),
        ));
    }
    let id = inode(object).and_then(|id| i32::try_from(id).ok());
    let queue =
        MessageQueue::from_id(id.ok_or_else(|| Unseen::Nobody("it has no id here".to_owned()))?);
    // No message is longer than all of them.
    let longest = usize::try_from(object.fill.unwrap_or(0)).unwrap_or(0).clamp(8192, 16 << 20);
    let mut buffer = Buffer::with_capacity(longest);
    let (mut messages, mut left, mut more) = (Vec::new(), most, false);
    for index in 0.. {
        match queue.peek(index, &mut buffer) {
            Ok(kind) => {
                let text = buffer.text();
                let shown = text.len().min(left);
                more |= shown < text.len();
                messages.push((Some(kind), text[..shown].to_vec()));
                left -= shown;
                if left == 0 || messages.len() >= MOST_MESSAGES {
                    more |= object
                        .details
                        .get("messages")
                        .and_then(|text| text.parse().ok())
                        .is_none_or(|all: usize| all > messages.len());
                    break;
                }
            }
            Err(error) if error.name() == "ENOMSG" => break,
            Err(error) if matches!(error.name(), "EINVAL" | "EIDRM") => {
                return Err(Unseen::Nobody("it is gone".to_owned()));
            }
            Err(error) => return Err(Unseen::Refused(format!("copying its messages: {error}"))),
        }
    }
    let mut found = Contents::of(Head::Messages(messages));
    found.more = more;
    Ok(found)
}

/// The most messages that are copied.
const MOST_MESSAGES: usize = 1000;

/// A copy of one of these descriptors, which has to lead to the object still.
fn borrow(object: &Object, ends: &[(u32, i32)]) -> Result<OwnedFd, Unseen> {
    let inode = inode(object);
    let mut lender = Lender::default();
    let mut last = Errno::SRCH;
    for &(pid, fd) in ends {
        let borrowed = match lender.borrow(pid, fd) {
            // Yama takes borrowing for tracing; a pipe can be opened once more where somebody reads it. A FIFO could not without waking its openers.
            Err(Errno::PERM) if object.kind == Kind::Pipe => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
                rustix::fs::open(format!("/proc/{pid}/fd/{fd}"), flags, Mode::empty())
            }
            borrowed => borrowed,
        };
        match borrowed {
            Ok(copy) => {
                if rustix::fs::fstat(copy.as_fd()).ok().map(|found| found.st_ino) == inode {
                    return Ok(copy);
                }
                last = Errno::BADF;
            }
            Err(errno) => last = errno,
        }
    }
    Err(match last {
        Errno::BADF | Errno::SRCH => Unseen::Nobody("whoever had it has let go of it".to_owned()),
        errno => Unseen::Refused(format!(
            "a descriptor of it could not be borrowed: {}; root can",
            switchboard_kernel::Error::from_raw("pidfd_getfd", errno.raw_os_error())
        )),
    })
}

//! How full pipes are, and what only the open file itself says: asked of a borrowed descriptor.
//!
//! Source: `pidfd_getfd(2)`, `ioctl_fionread`, `fcntl(2)`. A copy of one end is taken, asked, and closed at once. That delays nothing but
//! an end of file, by microseconds. Where that is refused, pipes, memory and queues are opened once more. A FIFO is never opened: opening
//! wakes who waits for that.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

use rustix::fs::{Mode, OFlags, Stat};
use rustix::io::Errno;
use switchboard_kernel::posix_mq::MessageQueue;
use switchboard_kernel::{io, pipe};

use super::Join;
use crate::collect::{ASKS_WORTH_A_THREAD, Found};
use crate::kind::Kind;
use crate::model::{Object, Via};
use crate::source::borrowed::Lender;
use crate::threads;

impl Join {
    /// Asks each pipe and FIFO that has not said it yet, and what else does not say it elsewhere; many of them on all processors, unless it is to be done alone.
    pub(crate) fn fills(&mut self, found: &[Found], alone: bool) {
        let kinds = self.kinds;
        let wants = |object: &&mut Object| match object.kind {
            Kind::Memfd => kinds.has(object.kind),
            Kind::Pipe | Kind::Fifo | Kind::Mq => kinds.has(object.kind) && object.fill.is_none(),
            _ => false,
        };
        let mut wanted: Vec<&mut Object> = self.objects.iter_mut().filter(wants).collect();
        let threads = if alone { 1 } else { threads::count(wanted.len(), ASKS_WORTH_A_THREAD) };
        let each = wanted.len().div_ceil(threads).max(1);
        let ask_all = |objects: &mut [&mut Object]| {
            let mut lender = Lender::default();
            for object in objects {
                ask(object, found, &mut lender);
            }
        };
        let portions = Mutex::new(wanted.chunks_mut(each));
        let next = || portions.lock().ok().and_then(|mut portions| portions.next());
        let work = || std::iter::from_fn(next).for_each(ask_all);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Where a user may have no more threads, this one does it all.
                let _ = threads::start(scope, work);
            }
            work();
        });
    }
}

fn ask(object: &mut Object, found: &[Found], lender: &mut Lender) {
    let inode = object.id.rsplit(':').next().and_then(|number| number.parse::<u64>().ok());
    let ends: Vec<(u32, i32)> = object
        .ends
        .iter()
        .filter_map(|end| match end.via {
            Via::Fd(fd) => Some((end.pid, fd)),
            _ => None,
        })
        .collect();
    for (pid, fd) in ends {
        let readable = found
            .binary_search_by_key(&pid, |one| one.process.pid)
            .is_ok_and(|at| found[at].process.readable);
        if !readable {
            continue;
        }
        let borrowed = match lender.borrow(pid, fd) {
            Ok(borrowed) => borrowed,
            Err(Errno::PERM | Errno::NOSYS) if may_reopen(object) => {
                let Some(again) = inode.and_then(|inode| reopened(pid, fd, inode)) else {
                    continue;
                };
                again
            }
            Err(_) => continue,
        };
        // The process may have closed it, and opened another under the same number.
        let Ok(status) = rustix::fs::fstat(&borrowed) else { continue };
        if Some(status.st_ino) != inode {
            continue;
        }
        owned(object, &status);
        answer(object, borrowed);
        return;
    }
}

/// Whether opening it once more changes nothing. A FIFO's opening wakes who waits for that; a pipe nobody reads has to stay one.
fn may_reopen(object: &Object) -> bool {
    match object.kind {
        Kind::Pipe => object.ends.iter().any(|end| end.reads),
        Kind::Memfd | Kind::Mq => true,
        _ => false,
    }
}

/// Opens what a descriptor leads to once more, to read: allowed where borrowing is not, because that is taken for tracing. Only
/// that inode is opened, whatever the descriptor leads to by then.
fn reopened(pid: u32, fd: i32, inode: u64) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let handle = rustix::fs::open(format!("/proc/{pid}/fd/{fd}"), flags, Mode::empty()).ok()?;
    if rustix::fs::fstat(&handle).ok()?.st_ino != inode {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let again = format!("/proc/self/fd/{}", handle.as_raw_fd());
    rustix::fs::open(again, flags, Mode::empty()).ok()
}

/// Whose it is, if nobody said it yet.
pub(super) fn owned(object: &mut Object, status: &Stat) {
    if object.uid.is_none() {
        (object.uid, object.gid) = (Some(status.st_uid), Some(status.st_gid));
        object.mode = Some(status.st_mode & 0o7777);
    }
}

/// How many bytes are in a pipe or FIFO, and how many it takes.
pub(super) type Fullness = (Option<u64>, Option<u64>);

pub(super) fn fullness(borrowed: &OwnedFd) -> Fullness {
    let size = pipe::capacity(borrowed).ok().and_then(|size| u64::try_from(size).ok());
    (io::bytes_waiting(borrowed).ok(), size)
}

fn answer(object: &mut Object, borrowed: OwnedFd) {
    match object.kind {
        Kind::Pipe | Kind::Fifo => {
            (object.fill, object.size) = fullness(&borrowed);
        }
        Kind::Memfd => {
            if let Ok(seals) = rustix::fs::fcntl_get_seals(&borrowed) {
                let seals: Vec<String> =
                    seals.iter_names().map(|(name, _)| name.to_lowercase()).collect();
                let text = if seals.is_empty() { "none".to_owned() } else { seals.join(" ") };
                object.details.insert("seals", text);
            }
        }
        Kind::Mq => {
            if let Ok(attributes) = MessageQueue::from(borrowed).attributes() {
                object.size = Some(attributes.max_messages.into());
                object.fill = Some(attributes.waiting_messages.into());
                let each = attributes.message_size_bytes.to_string();
                object.details.insert("bytes per message", each);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_borrowed_is_opened_again() {
        let (read, write) = pipe::pipe().expect("a pipe");
        rustix::io::write(&write, b"abc").expect("written");
        let inode = rustix::fs::fstat(&read).expect("a status").st_ino;
        let pid = std::process::id();
        let again = reopened(pid, write.as_raw_fd(), inode).expect("opened");
        let mut object = Object::new(Kind::Pipe, format!("pipe:{inode}"));
        answer(&mut object, again);
        assert_eq!((object.fill, object.size.is_some()), (Some(3), true));
        // Another file under that number is left alone.
        assert!(reopened(pid, read.as_raw_fd(), inode + 1).is_none());
        assert!(!may_reopen(&object), "nobody is known to read it");
        assert!(!may_reopen(&Object::new(Kind::Fifo, "fifo:1:2:3")));
    }
}

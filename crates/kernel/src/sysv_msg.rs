//! System V message queues: found by a number, filtered by message type, kept by the kernel.
//!
//! Source: `sysvipc(7)`, `msgget(2)`, `msgop(2)`, `msgctl(2)`, `ftok(3)`; error numbers as measured
//! on Linux 6.18.
//!
//! A queue outlives the processes that use it, until [`MessageQueue::remove`] or a reboot. A
//! message is taken whole, by one receiver, oldest first among those selected. The death of a
//! sender or receiver changes nothing in the queue and nobody is told: what was sent stays, what
//! was received is gone with its receiver.
//!
//! A queue is no descriptor: it cannot be polled, and no call has a time limit. A blocked call
//! ends by a message, by room, by a signal handler ([`MessageQueue::recv_interruptible`]) or by
//! removal of the queue.

#![allow(unsafe_code)]

mod buffer;
mod create;

use libc::{c_int, c_long, msginfo, msqid_ds};
use rustix::io::Errno;

use crate::error::{Error, OfCall, Result, checked, last_errno};
use crate::io::retry;

pub use crate::sysv_key::{Key, key_from_path};
pub use buffer::Buffer;
pub use create::CreateOptions;

/// Which message to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The oldest.
    Any,
    /// The oldest of this type; above 0.
    Type(i64),
    /// The oldest of the lowest type there is, if that is at most this; above 0.
    UpTo(i64),
    /// The oldest of any other type; above 0.
    Except(i64),
}

/// A queue's identifier. It is a number and no more: copying and dropping it does nothing, and
/// after [`MessageQueue::remove`] the number stands for nothing, until reused after many others.
///
/// ```
/// use switchboard_kernel::sysv_msg::{Buffer, CreateOptions, Key, MessageQueue, Select};
///
/// let queue = MessageQueue::create(&Key::Private, &CreateOptions::new())?;
/// queue.send(3, b"to whom it may concern")?;
///
/// let mut buffer = Buffer::with_capacity(64);
/// assert_eq!(queue.recv(Select::Type(3), &mut buffer)?, 3);
/// assert_eq!(buffer.text(), b"to whom it may concern");
/// queue.remove()?;
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Limits
/// | what | set by | beyond it |
/// |---|---|---|
/// | bytes per message | `/proc/sys/kernel/msgmax` | `EINVAL` |
/// | bytes per queue | `/proc/sys/kernel/msgmnb`, for a new queue; [`CreateOptions::max_bytes`] | the sender waits, or `EAGAIN`: for ever, if the one message is larger than the queue |
/// | raising a queue over `msgmnb` | `CAP_SYS_RESOURCE` | `EPERM` |
/// | queues on the system | `/proc/sys/kernel/msgmni` | `ENOSPC` |
///
/// A queue also holds no more messages than it may hold bytes, so that empty ones are bounded too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageQueue {
    id: i32,
}

impl MessageQueue {
    /// The queue of this identifier, as `msgget(2)` returned it here or in another process. Whether
    /// there is one shows on first use (`EINVAL`).
    #[must_use]
    pub const fn from_id(id: i32) -> Self {
        Self { id }
    }

    /// The identifier, the same in every process of this IPC namespace.
    #[must_use]
    pub const fn id(&self) -> i32 {
        self.id
    }

    /// `msgsnd(type, text)`: blocks while the queue is full. The type is above 0.
    ///
    /// A text larger than [`Status::max_bytes`] is not refused: it waits for room that never comes.
    /// A queue of the default size holds any text that `msgmax` allows.
    ///
    /// The message is copied once to put the type before it; [`MessageQueue::send_buffer`] sends
    /// one that is laid out already.
    ///
    /// # Errors
    /// `EINVAL` for a type that is not above 0, for a text over `msgmax`, and when
    /// there is no such queue (any more); `EIDRM` when it is removed meanwhile; `EACCES`
    /// without write permission; `ENOMEM`.
    #[inline]
    pub fn send(&self, message_type: i64, text: &[u8]) -> Result<()> {
        buffer::with_message(message_type, text, |message| self.send_message(message, 0))
    }

    /// `msgsnd(IPC_NOWAIT)`: as [`MessageQueue::send`], but never blocks.
    ///
    /// # Errors
    /// `EAGAIN` when the queue is full; else as [`MessageQueue::send`].
    #[inline]
    pub fn try_send(&self, message_type: i64, text: &[u8]) -> Result<()> {
        buffer::with_message(message_type, text, |message| {
            self.send_message(message, libc::IPC_NOWAIT)
        })
    }

    /// As [`MessageQueue::send`], but a signal handler that runs meanwhile ends the wait. Nothing
    /// was sent then.
    ///
    /// # Errors
    /// `EINTR`; else as [`MessageQueue::send`].
    pub fn send_interruptible(&self, message_type: i64, text: &[u8]) -> Result<()> {
        buffer::with_message(message_type, text, |message| self.send_call(message, 0).of("msgsnd"))
    }

    /// `msgsnd()`: as [`MessageQueue::send`], with the type and text of a buffer, not copied.
    ///
    /// # Errors
    /// As [`MessageQueue::send`].
    #[inline]
    pub fn send_buffer(&self, buffer: &Buffer) -> Result<()> {
        self.send_message(buffer.message(), 0)
    }

    /// `msgsnd(IPC_NOWAIT)`: as [`MessageQueue::send_buffer`], but never blocks.
    ///
    /// # Errors
    /// `EAGAIN` when the queue is full; else as [`MessageQueue::send`].
    #[inline]
    pub fn try_send_buffer(&self, buffer: &Buffer) -> Result<()> {
        self.send_message(buffer.message(), libc::IPC_NOWAIT)
    }

    /// `msgrcv(select)`: blocks until there is such a message, takes it and returns its type.
    ///
    /// # Errors
    /// `E2BIG` when its text is larger than the buffer's capacity: it stays, whole. `EIDRM` when
    /// the queue is removed meanwhile; `EINVAL` when there is no such queue (any more), and for a
    /// selected type that is not above 0; `EACCES` without read permission.
    ///
    /// After an error the buffer holds an empty text.
    #[inline]
    pub fn recv(&self, select: Select, buffer: &mut Buffer) -> Result<i64> {
        self.recv_message(select, buffer, 0)
    }

    /// `msgrcv(IPC_NOWAIT)`: as [`MessageQueue::recv`], but never blocks.
    ///
    /// # Errors
    /// `ENOMSG` when there is no such message; else as [`MessageQueue::recv`].
    #[inline]
    pub fn try_recv(&self, select: Select, buffer: &mut Buffer) -> Result<i64> {
        self.recv_message(select, buffer, libc::IPC_NOWAIT)
    }

    /// As [`MessageQueue::recv`], but a signal handler that runs meanwhile ends the wait. Nothing
    /// was taken then.
    ///
    /// # Errors
    /// `EINTR`; else as [`MessageQueue::recv`].
    pub fn recv_interruptible(&self, select: Select, buffer: &mut Buffer) -> Result<i64> {
        let (selector, flags) = selector(select)?;
        self.recv_call(selector, flags, buffer).of("msgrcv")?;
        Ok(buffer.message_type())
    }

    /// `msgrcv(MSG_COPY | IPC_NOWAIT)`: copies the message at this place in the queue, 0 being the
    /// oldest, and leaves it there. Never blocks.
    ///
    /// # Errors
    /// `ENOMSG` when the queue is not that long; `ENOSYS` on a kernel built without
    /// `CONFIG_CHECKPOINT_RESTORE`; else as [`MessageQueue::recv`].
    pub fn peek(&self, index: u32, buffer: &mut Buffer) -> Result<i64> {
        let flags = libc::IPC_NOWAIT | MSG_COPY;
        retry("msgrcv", || self.recv_call(c_long::from(index), flags, buffer))?;
        Ok(buffer.message_type())
    }

    /// `msgctl(IPC_STAT)`: what the queue holds, and whose it is.
    ///
    /// # Errors
    /// `EINVAL` when there is no such queue (any more); `EACCES` without read permission.
    pub fn status(&self) -> Result<Status> {
        let found = self.stat()?;
        let pid = |pid: libc::pid_t| u32::try_from(pid).unwrap_or(0);
        Ok(Status {
            queued_messages: found.msg_qnum,
            queued_bytes: found.__msg_cbytes,
            max_bytes: found.msg_qbytes,
            last_sender_pid: pid(found.msg_lspid),
            last_receiver_pid: pid(found.msg_lrpid),
            owner: found.msg_perm.uid,
            group: found.msg_perm.gid,
            creator: found.msg_perm.cuid,
            creator_group: found.msg_perm.cgid,
            // Twice as wide on aarch64 as on x86-64.
            #[allow(clippy::useless_conversion)]
            mode: u32::from(found.msg_perm.mode) & 0o777,
            key: found.msg_perm.__key,
        })
    }

    /// `msgctl(IPC_RMID)`: removes the queue and what is in it, at once, for everybody. Blocked
    /// senders and receivers get `EIDRM`, later calls `EINVAL`.
    ///
    /// # Errors
    /// `EPERM` unless the caller is its owner, its creator or has `CAP_SYS_ADMIN`; `EINVAL` when
    /// there is no such queue (any more).
    pub fn remove(&self) -> Result<()> {
        // SAFETY: IPC_RMID reads and writes no structure.
        checked(unsafe { libc::msgctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) })
            .of("msgctl")
            .map(drop)
    }

    fn stat(&self) -> Result<msqid_ds> {
        // SAFETY: msqid_ds is integers only; all zeroes is a valid value.
        let mut found: msqid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: IPC_STAT writes one msqid_ds, and `found` is one.
        checked(unsafe { libc::msgctl(self.id, libc::IPC_STAT, &raw mut found) }).of("msgctl")?;
        Ok(found)
    }

    #[inline]
    fn send_message(&self, message: &[u8], flags: c_int) -> Result<()> {
        retry("msgsnd", || self.send_call(message, flags))
    }

    #[inline]
    fn recv_message(&self, select: Select, buffer: &mut Buffer, flags: c_int) -> Result<i64> {
        let (selector, filter) = selector(select)?;
        retry("msgrcv", || self.recv_call(selector, flags | filter, buffer))?;
        Ok(buffer.message_type())
    }

    /// `message` is the type followed by the text.
    #[inline]
    fn send_call(&self, message: &[u8], flags: c_int) -> core::result::Result<(), Errno> {
        let text_bytes = message.len().checked_sub(buffer::TYPE_BYTES).ok_or(Errno::INVAL)?;
        // SAFETY: the kernel reads the type and `text_bytes` after it, which is all of the slice.
        checked(unsafe { libc::msgsnd(self.id, message.as_ptr().cast(), text_bytes, flags) })
            .map(drop)
    }

    #[inline]
    fn recv_call(
        &self,
        selector: c_long,
        flags: c_int,
        buffer: &mut Buffer,
    ) -> core::result::Result<(), Errno> {
        let (message, capacity_bytes) = buffer.start_receiving();
        // SAFETY: the kernel writes the type and at most `capacity_bytes` after it, for which
        // `message` has room.
        let received =
            unsafe { libc::msgrcv(self.id, message.cast(), capacity_bytes, selector, flags) };
        let text_bytes = usize::try_from(received).map_err(|_| last_errno())?;
        buffer.received(text_bytes);
        Ok(())
    }
}

/// A queue's state and permissions, from `msgctl(IPC_STAT)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Messages in the queue.
    pub queued_messages: u64,
    /// Bytes of their texts.
    pub queued_bytes: u64,
    /// Bytes of text the queue holds before a sender blocks.
    pub max_bytes: u64,
    /// The last sender's process id, which may have passed on to another process since; 0 if
    /// nobody sent yet, or one from a PID namespace that is not visible here.
    pub last_sender_pid: u32,
    /// The last receiver's process id, likewise.
    pub last_receiver_pid: u32,
    /// The owner's user id.
    pub owner: u32,
    /// The owning group's id.
    pub group: u32,
    /// The creator's user id, which has the owner's rights for good.
    pub creator: u32,
    /// The creator's group id, which has the group's rights for good.
    pub creator_group: u32,
    /// Permission bits.
    pub mode: u32,
    /// The key it was created with; 0 for a private queue.
    pub key: i32,
}

/// The limits on System V queues in this IPC namespace; [`MessageQueue`] says what happens beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of the largest text: `msgmax`.
    pub max_message_bytes: u32,
    /// Bytes that a new queue holds: `msgmnb`.
    pub default_queue_bytes: u32,
    /// Queues at a time: `msgmni`.
    pub max_queues: u32,
}

/// `msgctl(IPC_INFO)`: the limits.
#[must_use]
pub fn limits() -> Limits {
    // SAFETY: msginfo is integers only; all zeroes is a valid value.
    let mut found: msginfo = unsafe { std::mem::zeroed() };
    // SAFETY: for IPC_INFO, msgctl takes a pointer to a msginfo in place of a msqid_ds, writes one
    // msginfo, and cannot fail with a pointer that is valid.
    unsafe { libc::msgctl(0, IPC_INFO, (&raw mut found).cast()) };
    Limits {
        max_message_bytes: found.msgmax.cast_unsigned(),
        default_queue_bytes: found.msgmnb.cast_unsigned(),
        max_queues: found.msgmni.cast_unsigned(),
    }
}

/// From `linux/msg.h`: copy a message instead of taking it.
const MSG_COPY: c_int = 0o40000;

/// From `linux/ipc.h`.
const IPC_INFO: c_int = 3;

/// The `msgtyp` of `msgrcv(2)`, and its flag.
#[inline]
fn selector(select: Select) -> Result<(c_long, c_int)> {
    let (Select::Type(number) | Select::UpTo(number) | Select::Except(number)) = select else {
        return Ok((0, 0));
    };
    // Zero and below would mean another selection to the kernel.
    if number <= 0 {
        return Err(Error::new("msgrcv", Errno::INVAL));
    }
    Ok(match select {
        Select::UpTo(_) => (-number, 0),
        Select::Except(_) => (number, libc::MSG_EXCEPT),
        Select::Type(_) | Select::Any => (number, 0),
    })
}

//! What is known of a signal that was taken: why, from whom, with which value.
//!
//! Source: `sigaction(2)` ("The siginfo_t argument to a SA_SIGINFO handler"), `signalfd(2)`.

#![allow(unsafe_code)]

use core::ptr;

use rustix::io::Errno;

use super::Signal;
use crate::error::{Error, Result};

/// A signal that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Which one.
    pub signal: Signal,
    /// How it came to be.
    pub code: Code,
    /// The process that sent it, or the child it tells of; `None` when the kernel sent it for
    /// another reason, or the sender is in a process namespace that this process does not see.
    pub pid: Option<u32>,
    /// The real user id of that process.
    pub uid: Option<u32>,
    /// What was sent with it.
    pub value: Option<i32>,
}

impl Received {
    /// Whether the kernel filled in `pid` and `uid`, or another process may have made them up.
    ///
    /// The kernel does for [`Code::Kill`], [`Code::Thread`] and what it sends itself. With a value
    /// (`sigqueue`), it passes on what the sender wrote; it does check that the sender may signal
    /// this process at all: it has the same user, or privilege.
    #[must_use]
    pub fn is_sender_verified(&self) -> bool {
        self.pid.is_some()
            && matches!(self.code, Code::Kill | Code::Thread | Code::Child { .. } | Code::Kernel(_))
    }
}

/// How a signal came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Code {
    /// `SI_USER`: `kill(2)`.
    Kill,
    /// `SI_TKILL`: `tgkill(2)`, to a thread; `raise(3)`.
    Thread,
    /// `SI_QUEUE`: `sigqueue(3)`, with a value.
    Queue,
    /// `SI_TIMER`: a timer of `timer_create(2)` expired.
    Timer,
    /// `SI_MESGQ`: a message came to an empty POSIX message queue, `mq_notify(3)`.
    MessageQueue,
    /// SIGCHLD: a child changed. `reason` is `CLD_EXITED` (1), `CLD_KILLED` (2), `CLD_DUMPED` (3),
    /// `CLD_TRAPPED` (4), `CLD_STOPPED` (5) or `CLD_CONTINUED` (6); `status` is its exit code, or
    /// the signal's number.
    Child {
        /// Which change.
        reason: i32,
        /// Exit code or signal number.
        status: i32,
    },
    /// Another code of the kernel's, above zero: a fault, the terminal (`SI_KERNEL`, 128), `SIGIO`.
    Kernel(i32),
    /// Another code of a process's, below zero.
    Other(i32),
}

/// The fields of a signal's description, from whichever structure they were read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields {
    pub(crate) number: i32,
    pub(crate) code: i32,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    /// The value, or a child's status.
    pub(crate) value: i32,
}

impl Fields {
    /// # Safety
    /// `info` was filled in by the kernel.
    #[inline]
    pub(crate) unsafe fn of(info: &libc::siginfo_t) -> Self {
        // SAFETY: a siginfo_t of the kernel is initialised throughout, and these members of its
        // union are integers: whichever was meant, any bits are valid for them.
        let pid = unsafe { info.si_pid() };
        // SAFETY: as above.
        let uid = unsafe { info.si_uid() };
        let value = if info.si_signo == libc::SIGCHLD && info.si_code > 0 {
            // SAFETY: as above.
            unsafe { info.si_status() }
        } else {
            let place = ptr::from_ref(info).cast::<u8>().wrapping_add(VALUE_OFFSET);
            // SAFETY: within `info`, aligned as an int; the int of a sigval lies at its start.
            unsafe { place.cast::<i32>().read() }
        };
        Self { number: info.si_signo, code: info.si_code, pid: pid.cast_unsigned(), uid, value }
    }

    /// What a sender of a value writes for the receiver.
    #[inline]
    pub(crate) fn to_siginfo(self) -> libc::siginfo_t {
        // SAFETY: siginfo_t is integers and pointers; all zeroes is a valid value.
        let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
        info.si_signo = self.number;
        info.si_code = self.code;
        let start = (&raw mut info).cast::<u8>();
        let ids = start.wrapping_add(UNION_OFFSET).cast::<[u32; 2]>();
        // SAFETY: within the 128 bytes of `info`, aligned to 4 as they are.
        unsafe { ids.write([self.pid, self.uid]) };
        // SAFETY: as above.
        unsafe { start.wrapping_add(VALUE_OFFSET).cast::<i32>().write(self.value) };
        info
    }

    /// What they mean.
    #[inline]
    pub(crate) fn received(self, call: &'static str) -> Result<Received> {
        let signal = Signal::from_number(self.number).ok_or(Error::new(call, Errno::INVAL))?;
        let code = match self.code {
            libc::SI_USER => Code::Kill,
            libc::SI_TKILL => Code::Thread,
            libc::SI_QUEUE => Code::Queue,
            libc::SI_TIMER => Code::Timer,
            libc::SI_MESGQ => Code::MessageQueue,
            reason if reason > 0 && signal == Signal::CHILD => {
                Code::Child { reason, status: self.value }
            }
            code if code > 0 => Code::Kernel(code),
            code => Code::Other(code),
        };
        let has_sender = matches!(
            code,
            Code::Kill | Code::Thread | Code::Queue | Code::MessageQueue | Code::Child { .. }
        );
        // The kernel says 0 for a process that is not in this one's namespace.
        let pid = (has_sender && self.pid != 0).then_some(self.pid);
        let uid = has_sender.then_some(self.uid);
        let has_value = matches!(code, Code::Queue | Code::Timer | Code::MessageQueue);
        Ok(Received { signal, code, pid, uid, value: has_value.then_some(self.value) })
    }
}

/// Where the union of a `siginfo_t` begins: after three `int`s, aligned for a pointer.
const UNION_OFFSET: usize = 12_usize.next_multiple_of(size_of::<usize>());
/// Where in it the value is: after process and user id.
const VALUE_OFFSET: usize = UNION_OFFSET + 8;

//! The two ends of a service over any transport: enums, matched on the hot path.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::shm::{ShmClient, ShmServer};
use super::{Receipt, StreamClient, StreamServer};
use crate::error::RecvError;
use crate::link::{Answer, Failure};
use crate::pattern::service::{CallError, CallState, ReplyError};

/// The calling end of any transport.
#[derive(Debug)]
pub(crate) enum ClientFlavor {
    Stream(Box<StreamClient>),
    Shm(Box<ShmClient>),
}

/// The answering end of any transport.
#[derive(Debug)]
pub(crate) enum ServerFlavor {
    Stream(Box<StreamServer>),
    Shm(Box<ShmServer>),
}

/// What there is of a reply. Bytes were given to whoever asked.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A part of it.
    Part,
    /// All of it, or the last part: the call is over.
    Reply,
    /// It is over otherwise.
    Over(Ending),
}

/// How a call ended, but for a reply.
#[derive(Debug)]
pub(crate) enum Ending {
    /// With the parts that came.
    Done,
    /// The server said that it failed.
    Failed(Failure),
    /// The server is gone.
    Gone { peer: String, started: bool },
    /// The server broke the protocol.
    Misbehaved { peer: String, problem: String, started: bool },
}

/// A part of a reply, as it waits for who asked.
pub(crate) type Part = Vec<u8>;

/// A request as it is handed to the server's program.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) receipt: Receipt,
    pub(crate) bytes: &'a [u8],
    /// When its client waits no more.
    pub(crate) deadline: Option<Instant>,
}

/// What a short cut found.
#[derive(Debug)]
pub(crate) enum Now<'a> {
    /// Its bytes.
    Taken(&'a [u8]),
    Nothing,
    /// Something that is no matter of a short cut.
    Else,
}

impl ClientFlavor {
    /// Makes a call: what it is known by. `Full` when no server takes one now.
    #[inline]
    pub(crate) fn try_call(
        &mut self,
        request: &[u8],
        timeout: Option<Duration>,
    ) -> Result<u64, CallError> {
        match self {
            Self::Stream(end) => end.try_call(request, timeout),
            Self::Shm(end) => end.try_call(request, timeout),
        }
    }

    /// The reply to a call, where there is nothing particular about it: a short cut, after which
    /// [`take`](Self::take) does the rest.
    #[inline]
    pub(crate) fn take_reply(&mut self, key: u64) -> Now<'_> {
        match self {
            Self::Stream(_) => Now::Else,
            Self::Shm(end) => end.take_reply(key),
        }
    }

    /// Gives what there is of a reply to `with`.
    #[inline]
    pub(crate) fn take(&mut self, key: u64, with: &mut dyn FnMut(&[u8])) -> Option<Heard> {
        match self {
            Self::Stream(end) => end.take(key, with),
            Self::Shm(end) => end.take(key, with),
        }
    }

    /// Whether a server has, or had, a call: it may begin.
    pub(crate) fn is_with_server(&mut self, key: u64) -> bool {
        match self {
            Self::Stream(end) => end.is_with_server(key),
            Self::Shm(end) => end.is_with_server(key),
        }
    }

    /// Gives a call up, if it is not over.
    pub(crate) fn cancel(&mut self, key: u64) {
        match self {
            Self::Stream(end) => end.cancel(key),
            Self::Shm(end) => end.cancel(key),
        }
    }

    /// Looks at what happened, without waiting. Whether there may be something now that was not there before.
    #[inline]
    pub(crate) fn look(&mut self) -> Result<bool, CallError> {
        match self {
            Self::Stream(end) => end.look().map(|()| true),
            Self::Shm(end) => end.look(),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), CallError> {
        match self {
            Self::Stream(end) => end.wait(deadline),
            Self::Shm(end) => end.wait(deadline),
        }
    }

    pub(crate) fn peers(&self) -> usize {
        match self {
            Self::Stream(end) => end.peers(),
            Self::Shm(end) => end.peers(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(end) => end.fd(),
            Self::Shm(end) => end.fd(),
        }
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        match self {
            Self::Stream(end) => end.local_address(),
            Self::Shm(_) => None,
        }
    }
}

impl ServerFlavor {
    /// The request of the next call, where there is nothing particular about it: a short cut, after which
    /// [`take`](Self::take) does the rest.
    #[inline]
    pub(crate) fn take_request(&mut self) -> Now<'_> {
        match self {
            Self::Stream(_) => Now::Else,
            Self::Shm(end) => end.take_request(),
        }
    }

    /// Whose request it was, and when its client waits no more.
    #[inline]
    pub(crate) fn taken(&self) -> (Receipt, Option<Instant>) {
        match self {
            Self::Stream(_) => Default::default(),
            Self::Shm(end) => (end.taken(), end.taken_until()),
        }
    }

    /// Hands out a call that waits, if one does.
    #[inline]
    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Request<'_>)) -> Result<bool, RecvError> {
        match self {
            Self::Stream(end) => end.take(with),
            Self::Shm(end) => end.take(with),
        }
    }

    #[inline]
    pub(crate) fn answer(
        &mut self,
        receipt: Receipt,
        answer: Answer<'_>,
    ) -> Result<(), ReplyError> {
        match self {
            Self::Stream(end) => end.answer(receipt, answer),
            Self::Shm(end) => end.answer(receipt, answer),
        }
    }

    /// Sends a part of a reply. `Full` when the client takes none now.
    pub(crate) fn try_part(&mut self, receipt: Receipt, bytes: &[u8]) -> Result<(), ReplyError> {
        match self {
            Self::Stream(end) => end.try_part(receipt, bytes),
            Self::Shm(end) => end.try_part(receipt, bytes),
        }
    }

    /// Whether a call's client waits for it still, after a look at what happened.
    pub(crate) fn state(&mut self, receipt: Receipt) -> CallState {
        match self {
            Self::Stream(end) => end.state(receipt),
            Self::Shm(end) => end.state(receipt),
        }
    }

    /// Whether a call was read that was not handed out.
    pub(crate) fn has_call(&self) -> bool {
        match self {
            Self::Stream(end) => end.has_call(),
            Self::Shm(end) => end.has_call(),
        }
    }

    /// Looks at what happened, without waiting.
    pub(crate) fn look(&mut self) -> Result<(), RecvError> {
        match self {
            Self::Stream(end) => end.look(),
            Self::Shm(end) => end.look(),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        match self {
            Self::Stream(end) => end.wait(deadline),
            Self::Shm(end) => end.wait(deadline),
        }
    }

    /// Waits for a client to take a part; what is to be reported is kept.
    pub(crate) fn wait_for_room(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        match self {
            Self::Stream(end) => end.wait_for_room(deadline),
            Self::Shm(end) => end.wait_for_room(deadline),
        }
    }

    /// Takes no more calls. Whether everything that was answered is with the kernel, and nothing is
    /// left to be answered.
    pub(crate) fn finish(&mut self) -> Result<bool, RecvError> {
        match self {
            Self::Stream(end) => end.finish(),
            Self::Shm(end) => end.finish(),
        }
    }

    pub(crate) fn peers(&self) -> usize {
        match self {
            Self::Stream(end) => end.peers(),
            Self::Shm(end) => end.peers(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stream(end) => end.fd(),
            Self::Shm(end) => end.fd(),
        }
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        match self {
            Self::Stream(end) => end.local_address(),
            Self::Shm(_) => None,
        }
    }
}

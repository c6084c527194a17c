//! The calling end of a service.

use std::cell::{Ref, RefCell};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::{CallError, Code, Progress, Status};
use crate::address::Address;
use crate::message::{EncodingError, Message};
use crate::transport::{ClientFlavor, Ending, Heard, Now};

/// The calling end of a service.
///
/// Any number of calls can be under way at a time ([`start`](Self::start)); they may end in any order. It
/// runs no thread: it moves while one of its methods, or of its calls', runs. It can be moved to another
/// thread, and is used by one at a time; several threads open a client each.
///
/// Dropping it says the end; servers drop what it had asked for.
#[derive(Debug)]
pub struct Client<Q, A> {
    flavor: RefCell<ClientFlavor>,
    address: Address,
    message: PhantomData<fn(Q) -> A>,
}

impl<Q: Message, A: Message> Client<Q, A> {
    pub(crate) fn new(flavor: ClientFlavor, address: Address) -> Self {
        Self { flavor: RefCell::new(flavor), address, message: PhantomData }
    }

    /// Calls, and waits for the reply as long as it takes: for a server to appear, too.
    ///
    /// # Errors
    /// `Status` is the server's own error. `ServerGone` and `PeerMisbehaved` say what is known of the
    /// call. A call that its server had not begun when it died goes to another, if one is there.
    /// `BadReply`, `TooLarge`, `Encoding`, `Interrupted`, `Failed`.
    pub fn call(&self, request: &Q) -> Result<A, CallError> {
        self.start(request)?.wait()
    }

    /// As [`call`](Self::call), for at most `timeout`. The server is told how long, and does not begin what
    /// is over by then.
    ///
    /// # Errors
    /// `TimedOut` when the time is over; otherwise as [`call`](Self::call).
    pub fn call_timeout(&self, request: &Q, timeout: Duration) -> Result<A, CallError> {
        self.start_timeout(request, timeout)?.wait()
    }

    /// Calls, for a reply in parts: they come from the iterator.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn call_streaming(&self, request: &Q) -> Result<Replies<'_, Q, A>, CallError> {
        Ok(self.start(request)?.into_replies())
    }

    /// Makes a call and does not wait for its reply. Waits until a server takes it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn start(&self, request: &Q) -> Result<Pending<'_, Q, A>, CallError> {
        self.start_until(request, None)
    }

    /// As [`start`](Self::start), for at most `timeout`, counted from now to the last part of the reply.
    ///
    /// # Errors
    /// `TimedOut` when no server took it in time; otherwise as [`call`](Self::call).
    pub fn start_timeout(
        &self,
        request: &Q,
        timeout: Duration,
    ) -> Result<Pending<'_, Q, A>, CallError> {
        self.start_until(request, Some(timeout))
    }

    /// As [`start`](Self::start), without waiting.
    ///
    /// # Errors
    /// `Full` when no server takes it now; otherwise as [`call`](Self::call).
    pub fn try_start(&self, request: &Q) -> Result<Pending<'_, Q, A>, CallError> {
        let key = self.try_make(request, None)?;
        Ok(Pending { client: self, key: Some(key), deadline: Deadline::NEVER })
    }

    fn start_until(
        &self,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<Pending<'_, Q, A>, CallError> {
        let deadline = Deadline::from_timeout(timeout);
        let made = request.encode(|bytes| {
            loop {
                let mut flavor = self.flavor.borrow_mut();
                match flavor.try_call(bytes, timeout.and(deadline.remaining())) {
                    Err(CallError::Full) if deadline.passed() => {
                        return Err(CallError::TimedOut { progress: Progress::NotStarted });
                    }
                    Err(CallError::Full) => flavor.wait(deadline)?,
                    result => return result,
                }
            }
        });
        let key = made.map_err(CallError::Encoding)??;
        Ok(Pending { client: self, key: Some(key), deadline })
    }

    pub(crate) fn try_make(
        &self,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<u64, CallError> {
        let made = request.encode(|bytes| self.flavor.borrow_mut().try_call(bytes, timeout));
        made.map_err(CallError::Encoding)?
    }

    /// What there is of a call's reply. `Full`: nothing yet. `None`: it ended with the parts that came.
    pub(crate) fn poll(&self, key: u64) -> Result<Option<(A, bool)>, CallError> {
        let mut taken = None;
        let heard = self.flavor.borrow_mut().take(key, &mut |bytes| taken = Some(decode(bytes)));
        let last = match heard {
            None => return Err(CallError::Full),
            Some(Heard::Part) => false,
            Some(Heard::Reply) => true,
            Some(Heard::Over(Ending::Done)) => return Ok(None),
            Some(Heard::Over(ending)) => return Err(error_of(ending)),
        };
        taken.map(|reply| reply.map(|reply| (reply, last))).transpose()
    }

    pub(crate) fn give_up(&self, key: u64) {
        self.flavor.borrow_mut().cancel(key);
    }

    /// What is known of a call that is not over.
    pub(crate) fn progress(&self, key: u64) -> Progress {
        Progress::of(self.flavor.borrow_mut().is_with_server(key))
    }

    /// Looks what happened. Whether there may be something now that was not there before.
    pub(crate) fn look(&self) -> Result<bool, CallError> {
        self.flavor.borrow_mut().look()
    }

    /// Waits for the next part of a reply.
    fn poll_until(&self, key: u64, deadline: Deadline) -> Result<Option<(A, bool)>, CallError> {
        loop {
            match self.poll(key) {
                Err(CallError::Full) => {}
                result => return result,
            }
            // What comes while the time runs out counts.
            let is_over = deadline.passed();
            if self.look()? || (is_over && deadline != Deadline::AT_ONCE) {
                match self.poll(key) {
                    Err(CallError::Full) => {}
                    result => return result,
                }
            }
            if is_over {
                return Err(CallError::TimedOut { progress: self.progress(key) });
            }
            self.flavor.borrow_mut().wait(deadline)?;
        }
    }

    /// Moves on what can move without waiting. For callers with an event loop of their own, when the
    /// descriptor is ready.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn drive(&self) -> Result<(), CallError> {
        self.look().map(drop)
    }

    /// Servers connected now.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.flavor.borrow().peers()
    }

    /// Waits until so many servers are connected.
    ///
    /// # Errors
    /// `TimedOut` when the time is over; otherwise as [`call`](Self::call).
    pub fn wait_for_peers(&self, count: usize, timeout: Option<Duration>) -> Result<(), CallError> {
        let deadline = Deadline::from_timeout(timeout);
        loop {
            self.look()?;
            if self.peers() >= count {
                return Ok(());
            }
            if deadline.passed() {
                return Err(CallError::TimedOut { progress: Progress::NotStarted });
            }
            self.flavor.borrow_mut().wait(deadline)?;
        }
    }

    /// The address it calls.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The address this end is bound to (`?bind`), with the port that was chosen; `None` if it is not
    /// bound.
    #[must_use]
    pub fn local_address(&self) -> Option<String> {
        self.flavor.borrow().local_address()
    }

    /// Gives its wake-up descriptor to `with`: when it is readable, [`drive`](Self::drive) it and try the
    /// calls again. It is always the same one.
    pub fn with_fd<R>(&self, with: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
        let flavor: Ref<'_, ClientFlavor> = self.flavor.borrow();
        with(flavor.fd())
    }

    /// A duplicate of the wake-up descriptor, to keep in an event loop.
    ///
    /// # Errors
    /// When this process may have no more descriptors.
    pub fn wake_fd(&self) -> Result<std::os::fd::OwnedFd, crate::Error> {
        self.with_fd(|fd| switchboard_kernel::io::duplicate(fd.as_fd()))
            .map_err(|error| crate::Error::system(&self.address, "cannot duplicate", error))
    }
}

#[inline]
fn decode<A: Message>(bytes: &[u8]) -> Result<A, CallError> {
    A::decode(bytes).map_err(|problem| bad_reply(problem, bytes))
}

#[cold]
fn bad_reply(problem: EncodingError, bytes: &[u8]) -> CallError {
    CallError::BadReply { problem, bytes: bytes.to_vec() }
}

fn error_of(ending: Ending) -> CallError {
    match ending {
        Ending::Done => in_parts(Vec::new(), "there is none"),
        Ending::Failed(failure) => CallError::Status(Status {
            code: Code::from_number(failure.code),
            message: failure.text,
            details: failure.details,
        }),
        Ending::Gone { peer, started } => {
            CallError::ServerGone { peer, progress: Progress::of(started) }
        }
        Ending::Misbehaved { peer, problem, started } => {
            CallError::PeerMisbehaved { peer, problem, progress: Progress::of(started) }
        }
    }
}

const IN_PARTS: &str = "the reply comes in parts, and one was expected";

impl CallError {
    #[cfg(feature = "tokio")]
    pub(crate) fn in_parts() -> Self {
        in_parts(Vec::new(), IN_PARTS)
    }
}

fn in_parts(bytes: Vec<u8>, problem: &str) -> CallError {
    CallError::BadReply { problem: EncodingError::new(problem), bytes }
}

/// A call under way. Dropping it cancels it: its server is told at once.
#[must_use = "dropping a call cancels it"]
#[derive(Debug)]
pub struct Pending<'a, Q: Message, A: Message> {
    client: &'a Client<Q, A>,
    /// None once it is over.
    key: Option<u64>,
    deadline: Deadline,
}

impl<'a, Q: Message, A: Message> Pending<'a, Q, A> {
    /// Waits for the reply, until the call's timeout if it has one.
    ///
    /// # Errors
    /// As [`Client::call`], and `TimedOut`.
    pub fn wait(mut self) -> Result<A, CallError> {
        self.take_one(self.deadline)
    }

    /// Waits for the reply for at most `timeout`. After `TimedOut` the call goes on, and can be waited for again,
    /// unless its own time is over.
    ///
    /// # Errors
    /// As [`Client::call`]. After any other error it is over.
    pub fn wait_timeout(&mut self, timeout: Duration) -> Result<A, CallError> {
        self.take_one(self.deadline.min(Deadline::after(timeout)))
    }

    /// The reply, if it is there: `Full` if not.
    ///
    /// # Errors
    /// As [`Client::call`]. After any other error it is over.
    #[inline]
    pub fn try_wait(&mut self) -> Result<A, CallError> {
        if let Some(key) = self.key {
            match self.client.flavor.borrow_mut().take_reply(key) {
                Now::Taken(bytes) => {
                    self.key = None;
                    return decode(bytes);
                }
                Now::Nothing if self.deadline == Deadline::NEVER => return Err(CallError::Full),
                Now::Nothing | Now::Else => {}
            }
        }
        self.try_take_one()
    }

    #[inline(never)]
    fn try_take_one(&mut self) -> Result<A, CallError> {
        match self.take_one(Deadline::AT_ONCE) {
            Err(CallError::TimedOut { .. }) if !self.deadline.passed() => Err(CallError::Full),
            result => result,
        }
    }

    fn take_one(&mut self, deadline: Deadline) -> Result<A, CallError> {
        let Some(key) = self.key else { return Err(in_parts(Vec::new(), "the call is over")) };
        match self.client.poll_until(key, deadline) {
            Ok(Some((reply, true))) => {
                self.key = None;
                Ok(reply)
            }
            Ok(Some((part, false))) => {
                let bytes = part.encode(<[u8]>::to_vec).unwrap_or_default();
                self.end();
                Err(in_parts(bytes, IN_PARTS))
            }
            Ok(None) => {
                self.key = None;
                Err(in_parts(Vec::new(), "the reply has no parts, and one was expected"))
            }
            Err(CallError::TimedOut { progress }) if !self.deadline.passed() => {
                Err(CallError::TimedOut { progress })
            }
            Err(error) => {
                self.end();
                Err(error)
            }
        }
    }

    /// The reply in parts.
    #[must_use]
    pub fn into_replies(self) -> Replies<'a, Q, A> {
        Replies { pending: self }
    }

    /// Gives it up. Its server is told at once.
    pub fn cancel(self) {}

    fn end(&mut self) {
        if let Some(key) = self.key.take() {
            self.client.give_up(key);
        }
    }
}

impl<Q: Message, A: Message> Drop for Pending<'_, Q, A> {
    fn drop(&mut self) {
        self.end();
    }
}

/// The parts of a reply, one after the other; dropping it before the last one cancels the call.
///
/// Waits for each, until the call's timeout if it has one. An error is the last item. The server sends
/// as many parts ahead as this client's [`prefetch`](crate::Options#structfield.prefetch_messages) says.
#[derive(Debug)]
pub struct Replies<'a, Q: Message, A: Message> {
    pending: Pending<'a, Q, A>,
}

impl<Q: Message, A: Message> Replies<'_, Q, A> {
    /// The next part, if it is there: `Full` if not; `None` after the last one.
    ///
    /// # Errors
    /// As [`Client::call`]. After any other error it is over.
    pub fn try_next(&mut self) -> Result<Option<A>, CallError> {
        match self.next_until(Deadline::AT_ONCE) {
            Err(CallError::TimedOut { .. }) if !self.pending.deadline.passed() => {
                Err(CallError::Full)
            }
            result => result,
        }
    }

    /// The next part, waiting for at most `timeout`; `None` after the last one. After `TimedOut` it can be
    /// waited for again, unless the call's own time is over.
    ///
    /// # Errors
    /// As [`Client::call`]. After any other error it is over.
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<A>, CallError> {
        self.next_until(self.pending.deadline.min(Deadline::after(timeout)))
    }

    fn next_until(&mut self, deadline: Deadline) -> Result<Option<A>, CallError> {
        let Some(key) = self.pending.key else { return Ok(None) };
        match self.pending.client.poll_until(key, deadline) {
            Ok(Some((part, last))) => {
                if last {
                    self.pending.key = None;
                }
                Ok(Some(part))
            }
            Ok(None) => {
                self.pending.key = None;
                Ok(None)
            }
            Err(CallError::TimedOut { progress }) if !self.pending.deadline.passed() => {
                Err(CallError::TimedOut { progress })
            }
            Err(error) => {
                self.pending.end();
                Err(error)
            }
        }
    }
}

impl<Q: Message, A: Message> Iterator for Replies<'_, Q, A> {
    type Item = Result<A, CallError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_until(self.pending.deadline).transpose()
    }
}

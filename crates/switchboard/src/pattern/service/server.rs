//! The answering end of a service.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use switchboard_kernel::io::Deadline;

use super::{CallState, Code, ReplyError, Status};
use crate::address::Address;
use crate::error::{Error, RecvError};
use crate::link::Answer;
use crate::message::{EncodingError, Message};
use crate::transport::{Now, Receipt, ServerFlavor, Setup};

/// The answering end of a service.
///
/// Calls of one client come in its order, and clients take turns. Any number of calls can be held at a
/// time and answered in any order. It runs no thread: it moves while one of its methods, or of its
/// calls', runs. It can be moved to another thread, and is used by one at a time.
///
/// Dropping it tells clients that what was not handed out was not started, and ends what was.
#[derive(Debug)]
pub struct Server<Q, A> {
    flavor: RefCell<ServerFlavor>,
    setup: Setup,
    message: PhantomData<fn(Q) -> A>,
}

impl<Q: Message, A: Message> Server<Q, A> {
    pub(crate) fn new(flavor: ServerFlavor, setup: Setup) -> Self {
        Self { flavor: RefCell::new(flavor), setup, message: PhantomData }
    }

    /// Receives a call, waiting as long as it takes.
    ///
    /// # Errors
    /// `PeerMisbehaved` and `PeerRefused` report one client, once; receiving again goes on with the
    /// others. `Interrupted`. `Ended`: of a server that connects (`?connect`) and does not do so again. A
    /// client that dies is told by its call alone ([`Call::state`]). A request that is no `Q` is answered
    /// with `InvalidArgument`.
    pub fn recv_call(&self) -> Result<Call<'_, Q, A>, RecvError> {
        self.recv_until(Deadline::NEVER)
    }

    /// As [`recv_call`](Self::recv_call), for at most `timeout`.
    ///
    /// # Errors
    /// `Empty` when the time is over; otherwise as [`recv_call`](Self::recv_call).
    pub fn recv_call_timeout(&self, timeout: Duration) -> Result<Call<'_, Q, A>, RecvError> {
        self.recv_until(Deadline::after(timeout))
    }

    /// Receives a call without waiting.
    ///
    /// # Errors
    /// `Empty` when there is none now; otherwise as [`recv_call`](Self::recv_call).
    #[inline]
    pub fn try_recv_call(&self) -> Result<Call<'_, Q, A>, RecvError> {
        let mut flavor = self.flavor.borrow_mut();
        match flavor.take_request() {
            Now::Taken(bytes) => {
                let request = Q::decode(bytes);
                let (receipt, until) = flavor.taken();
                drop(flavor);
                let ticket = CallTicket { receipt, until };
                match request {
                    Ok(request) => {
                        let held = Held { server: self, ticket, open: true };
                        return Ok(Call { request, held });
                    }
                    Err(error) => self.refuse(ticket, &error),
                }
            }
            Now::Nothing => return Err(RecvError::Empty),
            Now::Else => drop(flavor),
        }
        self.try_recv_any_call()
    }

    #[inline(never)]
    fn try_recv_any_call(&self) -> Result<Call<'_, Q, A>, RecvError> {
        loop {
            let mut taken = None;
            let took = self.flavor.borrow_mut().take(&mut |request| {
                taken = Some((Q::decode(request.bytes), request.receipt, request.deadline));
            })?;
            let Some((request, receipt, until)) = taken.filter(|_| took) else {
                return Err(RecvError::Empty);
            };
            let ticket = CallTicket { receipt, until };
            match request {
                Ok(request) => {
                    let held = Held { server: self, ticket, open: true };
                    return Ok(Call { request, held });
                }
                Err(error) => self.refuse(ticket, &error),
            }
        }
    }

    /// Answers a request that is none.
    #[cold]
    fn refuse(&self, ticket: CallTicket, problem: &EncodingError) {
        let status = Status::new(Code::InvalidArgument, problem.to_string());
        // Whoever sent it may be gone by now.
        let _ = self.fail_to(ticket, &status);
    }

    fn recv_until(&self, deadline: Deadline) -> Result<Call<'_, Q, A>, RecvError> {
        loop {
            match self.try_recv_call() {
                Err(RecvError::Empty) if !deadline.passed() => {
                    self.flavor.borrow_mut().wait(deadline)?;
                }
                result => return result,
            }
        }
    }

    /// Answers one call after the other with what `answer` makes of the request, until an error ends it.
    /// A client that misbehaves, does not fit or went is no reason to end.
    ///
    /// # Errors
    /// `Interrupted`, `Ended`, `Failed`.
    pub fn serve(&self, mut answer: impl FnMut(Q) -> Result<A, Status>) -> Result<(), RecvError> {
        loop {
            let Call { request, held } = match self.recv_call() {
                Ok(call) => call,
                Err(RecvError::PeerMisbehaved { .. } | RecvError::PeerRefused { .. }) => continue,
                Err(error) => return Err(error),
            };
            let answer = answer(request);
            let ticket = held.let_go();
            // Its client may have gone meanwhile: then nobody waits for it.
            let _ = match answer {
                Ok(reply) => self.reply_to(ticket, &reply),
                Err(status) => self.fail_to(ticket, &status),
            };
        }
    }

    /// Answers a call by its ticket. The ticket of a call that is over answers nothing.
    ///
    /// # Errors
    /// As [`Call::reply`].
    pub fn reply_to(&self, ticket: CallTicket, reply: &A) -> Result<(), ReplyError> {
        let sent = reply.encode(|bytes| self.answer(ticket, Answer::Reply(bytes)));
        let sent = sent.map_err(ReplyError::Encoding).and_then(|sent| sent);
        if let Err(error @ (ReplyError::TooLarge { .. } | ReplyError::Encoding(_))) = &sent {
            // Its client would wait for ever.
            let _ = self.fail_to(ticket, &Status::new(Code::Internal, error.to_string()));
        }
        sent
    }

    /// Says by a call's ticket that it failed.
    ///
    /// # Errors
    /// As [`Call::fail`].
    pub fn fail_to(&self, ticket: CallTicket, status: &Status) -> Result<(), ReplyError> {
        let answer = Answer::Fail(status.code as u16, &status.message, &status.details);
        self.answer(ticket, answer)
    }

    /// Sends a part of the reply by a call's ticket, for at most `timeout`.
    ///
    /// # Errors
    /// As [`Call::send`].
    pub fn send_to(
        &self,
        ticket: CallTicket,
        part: &A,
        timeout: Option<Duration>,
    ) -> Result<(), ReplyError> {
        let deadline = Deadline::from_timeout(timeout);
        part.encode(|bytes| self.send_until(ticket, bytes, deadline))
            .map_err(ReplyError::Encoding)
            .and_then(|sent| sent)
    }

    /// Says by a call's ticket that the parts were all.
    ///
    /// # Errors
    /// As [`Call::finish`].
    pub fn finish_to(&self, ticket: CallTicket) -> Result<(), ReplyError> {
        self.answer(ticket, Answer::Done)
    }

    /// How a call stands, by its ticket.
    #[must_use]
    pub fn state_of(&self, ticket: CallTicket) -> CallState {
        self.flavor.borrow_mut().state(ticket.receipt)
    }

    fn answer(&self, ticket: CallTicket, answer: Answer<'_>) -> Result<(), ReplyError> {
        self.flavor.borrow_mut().answer(ticket.receipt, answer)
    }

    fn send_until(
        &self,
        ticket: CallTicket,
        bytes: &[u8],
        deadline: Deadline,
    ) -> Result<(), ReplyError> {
        loop {
            let mut flavor = self.flavor.borrow_mut();
            match flavor.try_part(ticket.receipt, bytes) {
                Err(ReplyError::Full) => {}
                result => return result,
            }
            // What it took may have been said already.
            if flavor.state(ticket.receipt) == CallState::ClientGone {
                return Err(ReplyError::ClientGone);
            }
            match flavor.try_part(ticket.receipt, bytes) {
                Err(ReplyError::Full) if !deadline.passed() => {}
                result => return result,
            }
            match flavor.wait_for_room(deadline) {
                Ok(()) => {}
                Err(RecvError::Interrupted) => return Err(ReplyError::Interrupted),
                Err(RecvError::Failed(error)) => return Err(ReplyError::Failed(error)),
                Err(_) => return Err(ReplyError::ClientGone),
            }
        }
    }

    /// Moves on what can move without waiting: accepts, reads, writes. For callers with an event loop
    /// of their own that take no call now. What it reads is not told by the descriptor again: whoever
    /// takes calls asks [`has_call`](Self::has_call) before sleeping on that.
    ///
    /// # Errors
    /// As [`recv_call`](Self::recv_call).
    pub fn drive(&self) -> Result<(), RecvError> {
        self.flavor.borrow_mut().look()
    }

    /// Whether a call was read that was not taken, by [`drive`](Self::drive) or
    /// [`state_of`](Self::state_of), say: the descriptor does not tell of it again. Looks at nothing new.
    #[must_use]
    pub fn has_call(&self) -> bool {
        self.flavor.borrow().has_call()
    }

    /// Takes no more calls, and waits until what was handed out by ticket is answered and everything is
    /// written; at most for the [`linger`](crate::Options#structfield.linger) of the options. Clients
    /// give what was not started to other servers.
    ///
    /// # Errors
    /// `Empty` when the time is over; otherwise as [`recv_call`](Self::recv_call).
    pub fn close(self) -> Result<(), RecvError> {
        let deadline = Deadline::from_timeout(self.setup.options.linger);
        let mut flavor = self.flavor.borrow_mut();
        while !flavor.finish()? {
            if deadline.passed() {
                return Err(RecvError::Empty);
            }
            flavor.wait_for_room(deadline)?;
        }
        Ok(())
    }

    /// Clients connected now.
    #[must_use]
    pub fn peers(&self) -> usize {
        self.flavor.borrow().peers()
    }

    /// The address it serves.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.setup.address
    }

    /// The address this end is bound to, with the port that was chosen; `None` if it is not bound.
    #[must_use]
    pub fn local_address(&self) -> Option<String> {
        self.flavor.borrow().local_address()
    }

    /// Gives its wake-up descriptor to `with`: when it is readable,
    /// [`try_recv_call`](Self::try_recv_call). It is always the same one.
    pub fn with_fd<R>(&self, with: impl FnOnce(BorrowedFd<'_>) -> R) -> R {
        with(self.flavor.borrow().fd())
    }

    /// A duplicate of the wake-up descriptor, to keep in an event loop.
    ///
    /// # Errors
    /// When this process may have no more descriptors.
    pub fn wake_fd(&self) -> Result<std::os::fd::OwnedFd, Error> {
        self.with_fd(|fd| switchboard_kernel::io::duplicate(fd))
            .map_err(|error| Error::system(&self.setup.address, "cannot duplicate", error))
    }
}

/// A call that was received. Dropping it unanswered tells its client that it failed (`Internal`).
#[must_use = "a call that is dropped unanswered fails"]
#[derive(Debug)]
pub struct Call<'a, Q: Message, A: Message> {
    /// What was asked.
    pub request: Q,
    held: Held<'a, Q, A>,
}

/// A call that fails if it is dropped.
#[derive(Debug)]
struct Held<'a, Q: Message, A: Message> {
    server: &'a Server<Q, A>,
    ticket: CallTicket,
    open: bool,
}

impl<Q: Message, A: Message> Held<'_, Q, A> {
    fn let_go(mut self) -> CallTicket {
        self.open = false;
        self.ticket
    }
}

/// Stands for a call in a later [`Server::reply_to`], from another thread's work or a table of one's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTicket {
    receipt: Receipt,
    until: Option<Instant>,
}

impl CallTicket {
    /// How long its client waits still; `None` for ever.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

impl<Q: Message, A: Message> Call<'_, Q, A> {
    /// Answers it.
    ///
    /// # Errors
    /// `Cancelled` and `ClientGone`: nobody waits for it any more. `TooLarge` and `Encoding`: its client is
    /// told that the call failed.
    pub fn reply(self, reply: &A) -> Result<(), ReplyError> {
        let server = self.held.server;
        server.reply_to(self.held.let_go(), reply)
    }

    /// Says that it failed, and how.
    ///
    /// # Errors
    /// `Cancelled` and `ClientGone`, as [`reply`](Self::reply).
    pub fn fail(self, status: &Status) -> Result<(), ReplyError> {
        let server = self.held.server;
        server.fail_to(self.held.let_go(), status)
    }

    /// Sends a part of the reply; [`finish`](Self::finish) or [`reply`](Self::reply) ends it. Waits while the
    /// client has as many parts that it has not taken as it allows.
    ///
    /// # Errors
    /// `Cancelled` and `ClientGone`: the call is over. `Interrupted`, `TooLarge`, `Encoding`.
    pub fn send(&mut self, part: &A) -> Result<(), ReplyError> {
        self.held.server.send_to(self.held.ticket, part, None)
    }

    /// As [`send`](Self::send), for at most `timeout`.
    ///
    /// # Errors
    /// `Full` when the time is over; otherwise as [`send`](Self::send).
    pub fn send_timeout(&mut self, part: &A, timeout: Duration) -> Result<(), ReplyError> {
        self.held.server.send_to(self.held.ticket, part, Some(timeout))
    }

    /// As [`send`](Self::send), without waiting.
    ///
    /// # Errors
    /// `Full` when the client takes none now; otherwise as [`send`](Self::send).
    pub fn try_send(&mut self, part: &A) -> Result<(), ReplyError> {
        self.held.server.send_to(self.held.ticket, part, Some(Duration::ZERO))
    }

    /// Says that the parts were all.
    ///
    /// # Errors
    /// `Cancelled` and `ClientGone`, as [`reply`](Self::reply).
    pub fn finish(self) -> Result<(), ReplyError> {
        let server = self.held.server;
        server.finish_to(self.held.let_go())
    }

    /// How it stands, after a look at what its client said: a long piece of work asks now and then.
    #[must_use]
    pub fn state(&self) -> CallState {
        self.held.server.state_of(self.held.ticket)
    }

    /// Whether nobody waits for it any more: it was cancelled, its time is over, or its client is gone.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state() != CallState::Wanted
    }

    /// How long its client waits still; `None` for ever.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.held.ticket.remaining()
    }

    /// The request, and a ticket to answer it by. A ticket that is lost leaves its client waiting.
    pub fn into_parts(self) -> (Q, CallTicket) {
        (self.request, self.held.let_go())
    }
}

impl<Q: Message, A: Message> Drop for Held<'_, Q, A> {
    fn drop(&mut self) {
        if self.open {
            let status = Status::new(Code::Internal, "the server dropped the call unanswered");
            // Nobody may be left to tell.
            let _ = self.server.fail_to(self.ticket, &status);
        }
    }
}

//! The ends of a service for tasks.

use std::os::fd::OwnedFd;
use std::time::Duration;

use ::tokio::io::Interest;
use switchboard_kernel::io;

use super::{BACKSTOP, failed, watch};
use crate::Address;
use crate::error::{Error, ErrorKind, RecvError};
use crate::message::Message;
use crate::pattern::service::{
    CallError, CallState, CallTicket, Client, Progress, ReplyError, Server, Status,
};

/// Waits until an end may have something to do.
async fn ready(fd: OwnedFd, address: &Address, most: Duration) -> Result<(), Error> {
    let watched = watch(fd, Interest::READABLE).map_err(|error| failed(address, &error))?;
    let _ = ::tokio::time::timeout(most, watched.readable()).await;
    Ok(())
}

fn duplicate(fd: switchboard_kernel::Result<OwnedFd>, address: &Address) -> Result<OwnedFd, Error> {
    fd.map_err(|error| {
        Error::new(ErrorKind::System, address, format!("cannot watch the descriptor: {error}"))
    })
}

/// The calling end of a service in a task. Dropping the future of a call cancels it.
#[derive(Debug)]
pub struct AsyncClient<Q, A>(Client<Q, A>);

/// A call that is given up when it is dropped.
struct Waiting<'a, Q: Message, A: Message> {
    client: &'a mut Client<Q, A>,
    key: Option<u64>,
}

impl<Q: Message, A: Message> AsyncClient<Q, A> {
    /// Wraps a client. Inside a runtime with I/O and time enabled.
    #[must_use]
    pub fn new(client: Client<Q, A>) -> Self {
        Self(client)
    }

    /// Calls, and waits for the reply.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call(&mut self, request: &Q) -> Result<A, CallError> {
        self.call_within(request, None).await
    }

    /// As [`call`](Self::call), for at most `timeout`, of which the server is told.
    ///
    /// # Errors
    /// `TimedOut` when the time is over; otherwise as [`Client::call`].
    pub async fn call_timeout(&mut self, request: &Q, timeout: Duration) -> Result<A, CallError> {
        self.call_within(request, Some(timeout)).await
    }

    async fn call_within(
        &mut self,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<A, CallError> {
        let mut replies = self.start(request, timeout).await?;
        match replies.next().await {
            Ok(Some(reply)) if replies.0.key.is_none() => Ok(reply),
            Ok(_) => Err(CallError::in_parts()),
            Err(error) => Err(error),
        }
    }

    /// Calls, for a reply in parts.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn call_streaming(
        &mut self,
        request: &Q,
    ) -> Result<AsyncReplies<'_, Q, A>, CallError> {
        self.start(request, None).await
    }

    async fn start(
        &mut self,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<AsyncReplies<'_, Q, A>, CallError> {
        let deadline = io::Deadline::from_timeout(timeout);
        let key = loop {
            match self.0.try_make(request, timeout.and(deadline.remaining())) {
                Err(CallError::Full) if deadline.passed() => {
                    return Err(CallError::TimedOut { progress: Progress::NotStarted });
                }
                Err(CallError::Full) => wait_for(&mut self.0, deadline).await?,
                result => break result?,
            }
        };
        Ok(AsyncReplies(Waiting { client: &mut self.0, key: Some(key) }, deadline))
    }

    /// The client itself.
    #[must_use]
    pub fn into_inner(self) -> Client<Q, A> {
        self.0
    }
}

async fn wait_for<Q: Message, A: Message>(
    client: &mut Client<Q, A>,
    deadline: io::Deadline,
) -> Result<(), CallError> {
    let address = client.address().clone();
    let fd = duplicate(client.with_fd(|fd| io::duplicate(fd)), &address)?;
    let most = deadline.remaining().map_or(BACKSTOP, |left| left.min(BACKSTOP));
    Ok(ready(fd, &address, most).await?)
}

/// The parts of a reply, for a task; dropping it before the last one cancels the call.
#[derive(Debug)]
pub struct AsyncReplies<'a, Q: Message, A: Message>(Waiting<'a, Q, A>, io::Deadline);

impl<Q: Message, A: Message> AsyncReplies<'_, Q, A> {
    /// The next part; `None` after the last one.
    ///
    /// # Errors
    /// As [`Client::call`]; after one it is over.
    pub async fn next(&mut self) -> Result<Option<A>, CallError> {
        let Self(waiting, deadline) = self;
        let Some(key) = waiting.key else { return Ok(None) };
        loop {
            waiting.client.look()?;
            match waiting.client.poll(key) {
                Err(CallError::Full) if deadline.passed() => {
                    return Err(CallError::TimedOut { progress: waiting.client.progress(key) });
                }
                Err(CallError::Full) => wait_for(waiting.client, *deadline).await?,
                Ok(Some((part, last))) => {
                    if last {
                        waiting.key = None;
                    }
                    return Ok(Some(part));
                }
                Ok(None) => {
                    waiting.key = None;
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl<Q: Message, A: Message> Drop for Waiting<'_, Q, A> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.client.give_up(key);
        }
    }
}

impl<Q: Message, A: Message> std::fmt::Debug for Waiting<'_, Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("key", &self.key).finish_non_exhaustive()
    }
}

/// The answering end of a service in a task. Calls are answered by ticket.
#[derive(Debug)]
pub struct AsyncServer<Q, A>(Server<Q, A>);

impl<Q: Message, A: Message> AsyncServer<Q, A> {
    /// Wraps a server. Inside a runtime with I/O and time enabled.
    #[must_use]
    pub fn new(server: Server<Q, A>) -> Self {
        Self(server)
    }

    /// Receives a call.
    ///
    /// # Errors
    /// As [`Server::recv_call`].
    pub async fn recv_call(&mut self) -> Result<(Q, CallTicket), RecvError> {
        loop {
            match self.0.try_recv_call() {
                Err(RecvError::Empty) => {}
                result => return result.map(crate::Call::into_parts),
            }
            self.wait().await?;
        }
    }

    async fn wait(&mut self) -> Result<(), Error> {
        let address = self.0.address().clone();
        let fd = duplicate(self.0.with_fd(|fd| io::duplicate(fd)), &address)?;
        ready(fd, &address, BACKSTOP).await
    }

    /// Answers a call.
    ///
    /// # Errors
    /// As [`Server::reply_to`].
    pub fn reply(&mut self, ticket: CallTicket, reply: &A) -> Result<(), ReplyError> {
        self.0.reply_to(ticket, reply)
    }

    /// Says that a call failed.
    ///
    /// # Errors
    /// As [`Server::fail_to`].
    pub fn fail(&mut self, ticket: CallTicket, status: &Status) -> Result<(), ReplyError> {
        self.0.fail_to(ticket, status)
    }

    /// Sends a part of a reply, when the client takes it.
    ///
    /// # Errors
    /// As [`Server::send_to`].
    pub async fn send(&mut self, ticket: CallTicket, part: &A) -> Result<(), ReplyError> {
        loop {
            match self.0.send_to(ticket, part, Some(Duration::ZERO)) {
                Err(ReplyError::Full) => self.wait().await.map_err(ReplyError::Failed)?,
                result => return result,
            }
        }
    }

    /// Says that the parts were all.
    ///
    /// # Errors
    /// As [`Server::finish_to`].
    pub fn finish(&mut self, ticket: CallTicket) -> Result<(), ReplyError> {
        self.0.finish_to(ticket)
    }

    /// How a call stands.
    #[must_use]
    pub fn state_of(&mut self, ticket: CallTicket) -> CallState {
        self.0.state_of(ticket)
    }

    /// The server itself.
    #[must_use]
    pub fn into_inner(self) -> Server<Q, A> {
        self.0
    }
}

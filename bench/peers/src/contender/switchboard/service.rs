//! Switchboard's services: a call with a request of so many bytes, and a reply of as many.

use std::marker::PhantomData;
use std::time::Duration;

use ::switchboard::transport::TABLE;
use ::switchboard::{CallError, CallTicket, Client, Options, RecvError, Server, Service};

use super::Scheme;
use crate::Failure;
use crate::contender::{Can, Meeting, Port};
use crate::job::{Case, Measure};

/// How long a client waits for its server.
const JOINING: Duration = Duration::from_secs(5);

pub(crate) fn can<S: Scheme>(case: &Case) -> Can {
    let carried =
        TABLE.iter().any(|row| row.scheme == S::SCHEME && row.patterns().contains(&"service"));
    if carried && case.measure == Measure::Service { Can::Yes } else { Can::NotAsked }
}

/// A request, or a reply.
type Line = [u8; 32];

/// The near side calls, the far one serves.
pub(crate) struct Calls<S> {
    end: End,
    kind: PhantomData<S>,
}

enum End {
    Client { client: Client<Line, Line>, request: Line },
    Server { server: Server<Line, Line>, ticket: Option<CallTicket> },
}

impl<S: Scheme> Port for Calls<S> {
    const COPIES: bool = true;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let service = Service::open_with(&S::address(meeting, 0), Options::default())?;
        let end = if meeting.near() {
            End::Client { client: service.client()?, request: Line::default() }
        } else {
            End::Server { server: service.server()?, ticket: None }
        };
        Ok(Self { end, kind: PhantomData })
    }

    fn joined(&mut self) -> Result<(), Failure> {
        match &self.end {
            End::Client { client, .. } => Ok(client.wait_for_peers(1, Some(JOINING))?),
            // Its client comes meanwhile.
            End::Server { server, .. } => {
                while server.peers() == 0 {
                    server.drive()?;
                }
                Ok(())
            }
        }
    }

    #[inline(always)]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        match &mut self.end {
            // It goes with the call, whose reply is asked for next.
            End::Client { request, .. } => fill(request),
            End::Server { server, ticket } => {
                let mut reply = Line::default();
                fill(&mut reply);
                server.reply_to(ticket.take().ok_or("a reply without a call")?, &reply)?;
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        match &mut self.end {
            End::Client { client, request } => {
                let mut pending = client.start(request)?;
                loop {
                    match pending.try_wait() {
                        Ok(reply) => return Ok(Some(read(&reply))),
                        Err(CallError::Full) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            End::Server { server, ticket } => match server.try_recv_call() {
                Ok(call) => {
                    let (request, its) = call.into_parts();
                    *ticket = Some(its);
                    Ok(Some(read(&request)))
                }
                Err(RecvError::Empty) => Ok(None),
                Err(error) => Err(error.into()),
            },
        }
    }
}

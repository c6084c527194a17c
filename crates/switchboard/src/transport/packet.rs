//! Datagrams: the ends that `unix-dgram:` and `udp:` share.
//!
//! A datagram is a message. On UDP a header numbers them, so that gaps are seen; with
//! `?framing=raw`, and on Unix sockets, the payload is bare.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use switchboard_kernel as kernel;
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::unix_socket;

use super::udp::{Counted, Numbering, Senders};
use super::{Raw, Setup, wait_or_cancel};
use crate::error::{Error, RecvError, SendError};

/// Connects again, after the receiver was gone.
pub(crate) type Dial = fn(&Setup) -> Result<Option<OwnedFd>, Error>;

/// The sending end.
#[derive(Debug)]
pub(crate) struct PacketSender {
    setup: Setup,
    dial: Dial,
    fd: Option<OwnedFd>,
    /// What the caller waits on while nobody is there: a timer.
    timer: kernel::timerfd::TimerFd,
    numbering: Option<Numbering>,
    sent: u64,
    frame: Vec<u8>,
}

const REDIAL: Duration = Duration::from_millis(20);

impl PacketSender {
    pub(crate) fn new(setup: Setup, dial: Dial, numbered: bool) -> Result<Self, Error> {
        let timer = kernel::timerfd::TimerFd::new()
            .map_err(|error| setup.system("cannot set a timer", error))?;
        let fd = dial(&setup)?;
        if fd.is_none() && !setup.options.wait {
            return Err(Error::new(
                crate::ErrorKind::NotFound,
                &setup.address,
                "nobody is there, and waiting was not wanted",
            ));
        }
        let numbering = numbered.then(Numbering::new);
        Ok(Self { setup, dial, fd, timer, numbering, sent: 0, frame: Vec::new() })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().map_or(self.timer.as_fd(), AsFd::as_fd)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.sent
    }

    pub(crate) fn try_send(
        &mut self,
        payload: &[u8],
        _priority: u32,
        _more: bool,
    ) -> Result<(), SendError> {
        let limit_bytes = self.setup.largest_message_bytes() as usize;
        if payload.len() > limit_bytes {
            return Err(SendError::TooLarge {
                len_bytes: payload.len(),
                limit_bytes,
                limit: self.setup.limit_name().into(),
            });
        }
        let frame: &[u8] = match &mut self.numbering {
            None => payload,
            Some(numbering) => {
                self.frame.clear();
                numbering.write_message(&mut self.frame, payload);
                &self.frame
            }
        };
        if self.fd.is_none() {
            let _ = self.timer.clear();
            self.fd = (self.dial)(&self.setup)?;
        }
        let Some(fd) = &self.fd else { return Err(self.nobody_yet()) };
        use kernel::ErrorKind as K;
        match unix_socket::send(fd, frame) {
            Ok(_) => {
                self.sent += 1;
                if let Some(numbering) = &mut self.numbering {
                    numbering.sent();
                }
                Ok(())
            }
            Err(error) => match error.kind() {
                K::WouldBlock | K::OutOfMemory => Err(SendError::Full),
                K::ConnectionRefused | K::ConnectionReset | K::BrokenPipe | K::NotFound => {
                    self.fd = None;
                    if !self.setup.options.reconnect {
                        return Err(SendError::PeerDied { unacknowledged: 0 });
                    }
                    Err(self.nobody_yet())
                }
                K::MessageTooLarge => Err(SendError::TooLarge {
                    len_bytes: payload.len(),
                    limit_bytes: payload.len().saturating_sub(1),
                    limit: "the socket's send buffer (net.core.wmem_default)".into(),
                }),
                _ => Err(Error::system(&self.setup.address, "cannot send", error).into()),
            },
        }
    }

    fn nobody_yet(&self) -> SendError {
        let _ = self.timer.arm(REDIAL, None);
        SendError::Full
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        let interest = if self.fd.is_some() { Interest::Writable } else { Interest::Readable };
        let cancel = self.setup.options.cancel.as_ref();
        // A full Unix datagram queue wakes its senders, but a dead receiver's does not always.
        let deadline = deadline.min(Deadline::after(Duration::from_millis(100)));
        match wait_or_cancel(self.fd(), interest, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SendError::Interrupted),
            Err(error) => Err(self.setup.system("cannot wait", error).into()),
        }
    }

    /// Says the end where datagrams are numbered, so that the receiver can tell what is missing.
    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        if let (Some(numbering), Some(fd)) = (&mut self.numbering, &self.fd) {
            let mut frame = Vec::new();
            numbering.write_end(&mut frame);
            // Any of them may be lost; the receiver's timeout is what it can rely on.
            for _ in 0..3 {
                let _ = unix_socket::send(fd, &frame);
            }
        }
        Ok(true)
    }
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct PacketReceiver {
    setup: Setup,
    fd: OwnedFd,
    buffer: Vec<u8>,
    local: Option<String>,
    /// Where datagrams are numbered: what is next from each sender.
    numbered: Option<Senders>,
    /// A path to remove at the end, with its identity.
    made: Option<(PathBuf, (u64, u64))>,
}

impl PacketReceiver {
    pub(crate) fn new(
        setup: Setup,
        fd: OwnedFd,
        local: Option<String>,
        numbered: bool,
        made: Option<(PathBuf, (u64, u64))>,
    ) -> Self {
        // One byte more than the limit shows that a datagram was over it.
        let buffer = vec![0; setup.largest_message_bytes() as usize + Numbering::HEADER_BYTES + 1];
        let numbered = numbered.then(Senders::default);
        Self { setup, fd, buffer, local, numbered, made }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        self.local.clone()
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        // Unnumbered or old datagrams are passed over; a bound keeps a flood of them from holding on.
        for _ in 0..1024 {
            let received = match unix_socket::recv_whole(&self.fd, &mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == kernel::ErrorKind::WouldBlock => {
                    return self.nothing();
                }
                Err(error) => return Err(self.setup.system("cannot receive", error).into()),
            };
            if received.truncated {
                return Err(RecvError::PeerMisbehaved {
                    peer: "a sender".into(),
                    problem: format!(
                        "a datagram of {} bytes is larger than this side takes and was not received",
                        received.len
                    ),
                });
            }
            let Some(seen) = &mut self.numbered else {
                with(Raw::bare(&self.buffer[..received.len]));
                return Ok(true);
            };
            let Some(number) = Numbering::read(&self.buffer[..received.len]) else {
                return Err(RecvError::PeerMisbehaved {
                    peer: "a sender".into(),
                    problem: "a datagram without Switchboard's numbers; for other programs add \
                              ?framing=raw"
                        .into(),
                });
            };
            let problem = match seen.count(number) {
                Counted::Message { lost_before } => {
                    let payload = &self.buffer[Numbering::HEADER_BYTES..received.len];
                    with(Raw { lost_before, ..Raw::bare(payload) });
                    return Ok(true);
                }
                Counted::End { lost_before: 0 } | Counted::EndAgain => continue,
                Counted::End { lost_before } => {
                    let problem = format!("the last {lost_before} messages of a sender are lost");
                    return Err(RecvError::PeerMisbehaved { peer: "the network".into(), problem });
                }
                Counted::TooFar { sequence, next } => format!(
                    "a datagram with the number {sequence}, where {next} is next, is not believed and \
                     was not received"
                ),
            };
            return Err(RecvError::PeerMisbehaved { peer: "a sender".into(), problem });
        }
        Ok(false)
    }

    fn nothing(&self) -> Result<bool, RecvError> {
        let over = self.numbered.as_ref().is_some_and(Senders::all_ended);
        if over && !self.setup.options.follow { Err(RecvError::Ended) } else { Ok(false) }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        let cancel = self.setup.options.cancel.as_ref();
        match wait_or_cancel(self.fd.as_fd(), Interest::Readable, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecvError::Interrupted),
            Err(error) => Err(self.setup.system("cannot wait", error).into()),
        }
    }
}

impl Drop for PacketReceiver {
    fn drop(&mut self) {
        if let Some((path, identity)) = &self.made
            && self.setup.is_here()
            && super::unix::identity(path).as_ref() == Some(identity)
        {
            let _ = unix_socket::unlink(path);
        }
    }
}

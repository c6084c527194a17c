//! The four ends of `shm:`, as every transport has them.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use switchboard_kernel::io::Deadline;

use super::endpoint::Endpoint;
use super::publisher::PublisherCore;
use super::receiver::ReceiverCore;
use super::sender::SenderCore;
use super::subscriber::SubscriberCore;
use crate::error::{Error, ErrorKind, RecvError, SendError};
use crate::options::Overflow;
use crate::transport::{Raw, Receipt, Setup};

/// The publishing end.
#[derive(Debug)]
pub(crate) struct ShmPublisher {
    end: Endpoint<PublisherCore>,
    setup: Setup,
}

/// The sending end.
#[derive(Debug)]
pub(crate) struct ShmSender {
    end: Endpoint<SenderCore>,
    setup: Setup,
}

/// The subscribing end.
#[derive(Debug)]
pub(crate) struct ShmSubscriber {
    end: Endpoint<SubscriberCore>,
    setup: Setup,
}

/// The receiving end.
#[derive(Debug)]
pub(crate) struct ShmReceiver {
    end: Endpoint<ReceiverCore>,
    setup: Setup,
}

/// A topic's end is open when it has met whoever is there, so that it misses nothing, or after this long:
/// somebody who is stopped, or is driven by a caller that is elsewhere.
const MEETS_WITHIN: Duration = Duration::from_millis(500);

fn failed(setup: &Setup, error: switchboard_kernel::Error) -> Error {
    setup.system("cannot go on", error)
}

/// What all of them have.
macro_rules! ends {
    ($($name:ident($core:ident);)*) => {$(
        impl $name {
            pub(crate) fn open(setup: &Setup) -> Result<Self, Error> {
                let core = $core::open(setup.again())?;
                if !setup.options.wait && $core::NEEDS_PEER && core.control().wanted() == 0 {
                    let problem = "nobody is there, and waiting was not wanted";
                    return Err(Error::new(ErrorKind::NotFound, &setup.address, problem)
                        .hint("start the other side first, or leave out --no-wait"));
                }
                let epoll = core.control().epoll()?;
                let mut end = Endpoint::new(core, epoll, setup.options.io_thread)
                    .map_err(|error| setup.system("cannot open", error))?;
                let deadline = Deadline::after(MEETS_WITHIN);
                while !end.enter().is_ok_and(|core| core.has_met()) && !deadline.passed() {
                    end.wait(deadline).map_err(|error| setup.system("cannot open", error))?;
                }
                Ok(Self { end, setup: setup.again() })
            }

            /// The descriptor of the control path, for event loops: the caller drives it from now on.
            pub(crate) fn fd(&self) -> BorrowedFd<'_> {
                self.end.fd()
            }

            /// Peers that are there now.
            pub(crate) fn peers(&self) -> usize {
                self.end.ask(|core| core.peers()).unwrap_or(0)
            }
        }
    )*};
}

ends! {
    ShmPublisher(PublisherCore);
    ShmSender(SenderCore);
    ShmSubscriber(SubscriberCore);
    ShmReceiver(ReceiverCore);
}

impl ShmPublisher {
    #[inline]
    pub(crate) fn try_send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.end.look_now_and_then();
        match self.end.enter() {
            Ok(mut core) => core.try_send(payload),
            Err(error) => Err(SendError::Failed(failed(&self.setup, error))),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        self.end.wait(deadline).map_err(|error| SendError::Failed(failed(&self.setup, error)))?;
        self.check()
    }

    /// What went wrong on the control path.
    fn check(&mut self) -> Result<(), SendError> {
        match self.end.enter() {
            Ok(mut core) => core.check(),
            Err(error) => Err(SendError::Failed(failed(&self.setup, error))),
        }
    }

    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        self.end.look();
        self.check()
    }

    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        match self.end.enter() {
            Ok(mut core) => core.finish(),
            // A child of fork has nothing to end.
            Err(_) => Ok(true),
        }
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.end.ask(|core| core.published()).unwrap_or(0)
    }

    pub(crate) fn pending(&self) -> u64 {
        self.end.ask(|core| core.pending()).unwrap_or(0)
    }

    /// Whether sending waits when there is no room.
    pub(crate) fn waits(&self) -> bool {
        self.setup.options.overflow == Overflow::Block
    }

    pub(crate) fn slow_peer(&self) -> Option<String> {
        self.end.ask(|core| core.slow_peer()).flatten()
    }
}

impl ShmSender {
    #[inline]
    pub(crate) fn try_send(&mut self, payload: &[u8], priority: u32) -> Result<(), SendError> {
        self.end.look_now_and_then();
        match self.end.enter() {
            Ok(mut core) => core.try_send(payload, priority),
            Err(error) => Err(SendError::Failed(failed(&self.setup, error))),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        self.end.wait(deadline).map_err(|error| SendError::Failed(failed(&self.setup, error)))?;
        match self.end.enter() {
            Ok(mut core) => core.check(),
            Err(error) => Err(SendError::Failed(failed(&self.setup, error))),
        }
    }

    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        self.end.look();
        self.drive().map(drop)
    }

    /// Moves on what can move. What was accepted is in memory that the receivers see, or waits for one.
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        match self.end.enter() {
            Ok(mut core) => core.drive().map(|()| true),
            Err(error) => Err(SendError::Failed(failed(&self.setup, error))),
        }
    }

    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        match self.end.enter() {
            Ok(mut core) => core.finish(),
            // A child of fork has nothing to end.
            Err(_) => Ok(true),
        }
    }

    pub(crate) fn leave(&mut self) -> Result<bool, SendError> {
        match self.end.enter() {
            Ok(mut core) => core.leave(),
            Err(_) => Ok(true),
        }
    }

    pub(crate) fn pending(&self) -> u64 {
        self.end.ask(|core| core.pending()).unwrap_or(0)
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.end.ask(|core| core.acknowledged()).unwrap_or(0)
    }

    pub(crate) fn rejected(&self) -> u64 {
        self.end.ask(|core| core.rejected()).unwrap_or(0)
    }
}

impl ShmSubscriber {
    #[inline]
    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        self.end.look_now_and_then();
        match self.end.enter() {
            Ok(mut core) => {
                if core.take(with)? {
                    return Ok(true);
                }
            }
            Err(error) => return Err(RecvError::Failed(failed(&self.setup, error))),
        }
        if self.end.arm_descriptor() { self.take_again(with) } else { Ok(false) }
    }

    /// Something came while nothing was found.
    fn take_again(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        match self.end.enter() {
            Ok(mut core) => core.take(with),
            Err(error) => Err(RecvError::Failed(failed(&self.setup, error))),
        }
    }

    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        self.end.enter().map_or(0, |mut core| core.take_more(most, with))
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        self.end.wait(deadline).map_err(|error| RecvError::Failed(failed(&self.setup, error)))
    }
}

impl ShmReceiver {
    #[inline]
    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        self.end.look_now_and_then();
        match self.end.enter() {
            Ok(mut core) => {
                if core.take(with)? {
                    return Ok(true);
                }
            }
            Err(error) => return Err(RecvError::Failed(failed(&self.setup, error))),
        }
        if self.end.arm_descriptor() { self.take_again(with) } else { Ok(false) }
    }

    fn take_again(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        match self.end.enter() {
            Ok(mut core) => core.take(with),
            Err(error) => Err(RecvError::Failed(failed(&self.setup, error))),
        }
    }

    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        self.end.enter().map_or(0, |mut core| core.take_more(most, with))
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        self.end.wait(deadline).map_err(|error| RecvError::Failed(failed(&self.setup, error)))
    }

    #[inline]
    pub(crate) fn acknowledge(&mut self, receipt: Receipt) -> bool {
        self.end.enter().is_ok_and(|mut core| core.acknowledge(receipt))
    }

    pub(crate) fn acknowledge_all(&mut self, receipts: &[Receipt]) {
        if let Ok(mut core) = self.end.enter() {
            core.acknowledge_all(receipts);
        }
    }

    pub(crate) fn reject(&mut self, receipt: Receipt) -> bool {
        self.end.enter().is_ok_and(|mut core| core.reject(receipt))
    }
}

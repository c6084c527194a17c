//! `sysv:PATH`, `sysv:PATH#ID`, `sysv:0xKEY`: System V message queues.
//!
//! Source: `sysvipc(7)`, `msgop(2)`. The queue is made if it is not there, and stays until it is
//! removed: it outlives its processes, not a reboot. Messages are bare, sent with `?type=` (1 unless
//! said otherwise) and received in order, of all types unless one is given.
//!
//! These queues have no descriptor and no timed calls. An endpoint that may wait without limit and
//! cannot be cancelled sleeps in the kernel; every other wait looks again after 0.2 ms, then less
//! often, up to every 10 ms. The wake-up descriptor is a timer with that rhythm.

use std::os::fd::BorrowedFd;

use switchboard_kernel as kernel;
use switchboard_kernel::io::Deadline;
use switchboard_kernel::sysv_msg::{self, Buffer, CreateOptions, MessageQueue, Select};

use super::rhythm::Rhythm;
use super::{Raw, ReceiverFlavor, SenderFlavor, Setup};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind, RecvError, SendError};
use crate::object::{cannot_unlink, no_name};

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    let queue = open(setup)?;
    let limits = sysv_msg::limits();
    let queue_bytes = queue.status().map_or(usize::MAX, |status| status.max_bytes as usize);
    let limit_bytes = (limits.max_message_bytes as usize)
        .min(queue_bytes)
        .min(setup.largest_message_bytes() as usize);
    Ok(SenderFlavor::Sysv(SysvSender {
        rhythm: Rhythm::new(setup)?,
        setup: setup.again(),
        queue,
        message_type: setup.address.query.message_type.unwrap_or(1),
        limit_bytes,
        sent: 0,
    }))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let queue = open(setup)?;
    let select = setup.address.query.message_type.map_or(Select::Any, Select::Type);
    let limits = sysv_msg::limits();
    Ok(ReceiverFlavor::Sysv(SysvReceiver {
        rhythm: Rhythm::new(setup)?,
        setup: setup.again(),
        queue,
        select,
        buffer: Buffer::with_capacity(limits.max_message_bytes as usize),
        waited: false,
    }))
}

/// Makes the queue, to stay until it is removed.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    make(address, true).map(drop)
}

/// Removes the queue, also for those who use it.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::SysvKey(key) = &address.target else { return Err(no_name(address)) };
    MessageQueue::open(key)
        .and_then(|queue| queue.remove())
        .map_err(|error| cannot_unlink(address, error))
}

/// Makes the queue as an address and its options say.
///
/// # Errors
/// Limits of the system, by name.
fn make(address: &Address, exclusive: bool) -> Result<MessageQueue, Error> {
    let Target::SysvKey(key) = &address.target else {
        return Err(Error::new(ErrorKind::BadAddress, address, "no key"));
    };
    let query = &address.query;
    let mut options =
        CreateOptions::default().permissions(query.permissions()).exclusive(exclusive);
    options.max_bytes = query.capacity_bytes;
    MessageQueue::create(key, &options).map_err(|error| {
        let failed = Error::system(address, "cannot make the queue", error);
        match (error.kind(), error.call()) {
            (kernel::ErrorKind::NoSpace, _) => failed.kinded(ErrorKind::LimitReached).hint(
                format!(
                    "the system has {} System V queues at most: raise it with sysctl kernel.msgmni, \
                     or remove some (ipcs -q shows them)",
                    sysv_msg::limits().max_queues
                ),
            ),
            (kernel::ErrorKind::PermissionDenied, "msgctl") => failed.hint(format!(
                "more than kernel.msgmnb bytes ({}) takes privilege",
                sysv_msg::limits().default_queue_bytes
            )),
            (kernel::ErrorKind::NotFound, _) => {
                failed.hint("the path of a key has to exist: it is only a name, any file will do")
            }
            _ => failed,
        }
    })
}

fn open(setup: &Setup) -> Result<MessageQueue, Error> {
    let Target::SysvKey(key) = &setup.address.target else {
        return Err(Error::new(ErrorKind::BadAddress, &setup.address, "no key"));
    };
    match MessageQueue::open(key) {
        Ok(queue) => Ok(queue),
        Err(error) if error.kind() == kernel::ErrorKind::NotFound && setup.options.wait => {
            make(&setup.address, false)
        }
        // Of `stat` it is the file of the key that is not there.
        Err(error) if error.kind() == kernel::ErrorKind::NotFound && error.call() == "msgget" => {
            let problem = "there is no queue with this key, and waiting was not wanted";
            Err(Error::new(ErrorKind::NotFound, &setup.address, problem)
                .hint("make it first: switchboard create"))
        }
        Err(error) => Err(setup.system("cannot open the queue", error)),
    }
}

#[derive(Debug)]
pub(crate) struct SysvSender {
    setup: Setup,
    queue: MessageQueue,
    message_type: i64,
    limit_bytes: usize,
    sent: u64,
    rhythm: Rhythm,
}

impl SysvSender {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.rhythm.fd()
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
        if payload.len() > self.limit_bytes {
            return Err(SendError::TooLarge {
                len_bytes: payload.len(),
                limit_bytes: self.limit_bytes,
                limit: "the queue's size and kernel.msgmax (raise them with ?capacity= and sysctl)"
                    .into(),
            });
        }
        match self.queue.try_send(self.message_type, payload) {
            Ok(()) => {
                self.sent += 1;
                self.rhythm.moved();
                Ok(())
            }
            Err(error) if error.kind() == kernel::ErrorKind::WouldBlock => {
                self.rhythm.rest();
                Err(SendError::Full)
            }
            Err(error) => Err(failed(&self.setup, &self.queue, "cannot send", error).into()),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        if self.rhythm.wait(&self.setup, deadline)? { Ok(()) } else { Err(SendError::Interrupted) }
    }
}

#[derive(Debug)]
pub(crate) struct SysvReceiver {
    setup: Setup,
    queue: MessageQueue,
    select: Select,
    buffer: Buffer,
    /// The buffer holds a message that a blocking wait received.
    waited: bool,
    rhythm: Rhythm,
}

impl SysvReceiver {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.rhythm.fd()
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        if !std::mem::take(&mut self.waited) {
            match self.queue.try_recv(self.select, &mut self.buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == kernel::ErrorKind::WouldBlock => {
                    self.rhythm.rest();
                    return Ok(false);
                }
                Err(error) => {
                    return Err(failed(&self.setup, &self.queue, "cannot receive", error).into());
                }
            }
        }
        self.rhythm.moved();
        with(Raw::bare(self.buffer.text()));
        Ok(true)
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        if deadline == Deadline::NEVER && self.setup.options.cancel.is_none() {
            // Nothing can end this wait but a message, so the kernel may keep it.
            match self.queue.recv(self.select, &mut self.buffer) {
                Ok(_) => self.waited = true,
                Err(error) => {
                    return Err(failed(&self.setup, &self.queue, "cannot receive", error).into());
                }
            }
            return Ok(());
        }
        if self.rhythm.wait(&self.setup, deadline)? { Ok(()) } else { Err(RecvError::Interrupted) }
    }
}

/// The error of a call on the queue, which may have been removed meanwhile: whoever slept learns it from
/// the kernel, whoever comes later finds an identifier that stands for nothing.
fn failed(setup: &Setup, queue: &MessageQueue, doing: &str, error: kernel::Error) -> Error {
    use kernel::ErrorKind as K;
    let is_gone = |error: kernel::Error| matches!(error.kind(), K::Gone | K::InvalidInput);
    let removed = error.kind() == K::Gone || is_gone(error) && queue.status().is_err_and(is_gone);
    if removed {
        let problem = format!("{doing}: the queue was removed");
        return Error::new(ErrorKind::NotFound, &setup.address, problem)
            .hint("somebody removed it; start again to make a new one");
    }
    setup.system(doing, error)
}

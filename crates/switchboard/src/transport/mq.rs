//! `mq:/NAME`: POSIX message queues.
//!
//! Source: `mq_overview(7)`. The queue is made if it is not there, and stays until it is unlinked: it
//! outlives its processes, not a reboot. Messages are bare; higher priorities are received first.

use std::os::fd::{AsFd, BorrowedFd};

use switchboard_kernel as kernel;
use switchboard_kernel::io::{Deadline, Interest};
use switchboard_kernel::posix_mq::{self, Access, CreateOptions, MessageQueue};

use super::{Raw, ReceiverFlavor, SenderFlavor, Setup, wait_or_cancel};
use crate::address::{Address, Target};
use crate::error::{Error, ErrorKind, RecvError, SendError};
use crate::object::{cannot_unlink, no_name};

pub(crate) fn open_sender(setup: &Setup) -> Result<SenderFlavor, Error> {
    let (queue, limit_bytes) = open(setup, Access::Send)?;
    Ok(SenderFlavor::Mq(MqSender { setup: setup.again(), queue, limit_bytes, sent: 0 }))
}

pub(crate) fn open_receiver(setup: &Setup) -> Result<ReceiverFlavor, Error> {
    let (queue, limit_bytes) = open(setup, Access::Receive)?;
    let buffer = vec![0; limit_bytes];
    Ok(ReceiverFlavor::Mq(MqReceiver { setup: setup.again(), queue, buffer }))
}

/// Makes the queue, to stay until it is unlinked.
pub(crate) fn create(address: &Address) -> Result<(), Error> {
    make(address, true).map(drop)
}

/// Removes its name.
pub(crate) fn unlink(address: &Address) -> Result<(), Error> {
    let Target::QueueName(name) = &address.target else { return Err(no_name(address)) };
    posix_mq::unlink(name).map_err(|error| cannot_unlink(address, error))
}

/// Makes the queue as an address and its options say.
///
/// # Errors
/// Limits of the system and of the user, by name.
fn make(address: &Address, exclusive: bool) -> Result<MessageQueue, Error> {
    let Target::QueueName(name) = &address.target else {
        return Err(Error::new(ErrorKind::BadAddress, address, "no queue name"));
    };
    let limits = posix_mq::limits();
    let query = &address.query;
    // What an ordinary user may have at most, where the address does not say.
    let messages = query.max_messages.unwrap_or_else(|| limits.max_messages.min(10));
    let bytes = query.max_message_bytes.unwrap_or_else(|| limits.max_message_size_bytes.min(8192));
    let options = CreateOptions::default()
        .max_messages(messages)
        .message_size_bytes(bytes)
        .permissions(query.permissions())
        .exclusive(exclusive);
    MessageQueue::create(name, Access::Both, &options)
        .map_err(|error| explain(address, messages, bytes, error))
}

/// Says which limit it was, and how to raise it.
fn explain(address: &Address, messages: u32, bytes: u32, error: kernel::Error) -> Error {
    let limits = posix_mq::limits();
    let failed = Error::system(address, "cannot make the queue", error);
    match error.kind() {
        kernel::ErrorKind::InvalidInput if messages > limits.max_messages => {
            let problem = format!(
                "a queue of {messages} messages: fs.mqueue.msg_max allows {}",
                limits.max_messages
            );
            Error::new(ErrorKind::LimitReached, address, problem)
                .hint("raise it with sysctl fs.mqueue.msg_max, or ask for fewer (?max-messages=)")
        }
        kernel::ErrorKind::InvalidInput if bytes > limits.max_message_size_bytes => {
            let problem = format!(
                "messages of {bytes} bytes: fs.mqueue.msgsize_max allows {}",
                limits.max_message_size_bytes
            );
            Error::new(ErrorKind::LimitReached, address, problem)
                .hint("raise it with sysctl fs.mqueue.msgsize_max, or ask for less (?max-message=)")
        }
        kernel::ErrorKind::TooManyFiles => failed.kinded(ErrorKind::LimitReached).hint(format!(
            "all queues of a user take at most RLIMIT_MSGQUEUE bytes ({}): raise it with ulimit -q or \
             LimitMSGQUEUE=, unlink queues, or ask for less (?max-messages=, ?max-message=); \
             RLIMIT_NOFILE gives the same error",
            limits.user_bytes
        )),
        kernel::ErrorKind::NoSpace => failed.kinded(ErrorKind::LimitReached).hint(format!(
            "the system has {} queues at most: raise it with sysctl fs.mqueue.queues_max",
            limits.max_queues
        )),
        _ => failed,
    }
}

fn open(setup: &Setup, access: Access) -> Result<(MessageQueue, usize), Error> {
    let Target::QueueName(name) = &setup.address.target else {
        return Err(Error::new(ErrorKind::BadAddress, &setup.address, "no queue name"));
    };
    let queue = match MessageQueue::open(name, access) {
        Ok(queue) => queue,
        Err(error) if error.kind() == kernel::ErrorKind::NotFound => {
            if !setup.options.wait {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    &setup.address,
                    "there is no queue of this name",
                ));
            }
            make(&setup.address, false)?
        }
        Err(error) => return Err(setup.system("cannot open the queue", error)),
    };
    let attributes =
        queue.attributes().map_err(|error| setup.system("cannot look at the queue", error))?;
    Ok((queue, attributes.message_size_bytes as usize))
}

#[derive(Debug)]
pub(crate) struct MqSender {
    setup: Setup,
    queue: MessageQueue,
    limit_bytes: usize,
    sent: u64,
}

impl MqSender {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    pub(crate) fn acknowledged(&self) -> u64 {
        self.sent
    }

    pub(crate) fn try_send(
        &mut self,
        payload: &[u8],
        priority: u32,
        _more: bool,
    ) -> Result<(), SendError> {
        if payload.len() > self.limit_bytes {
            return Err(SendError::TooLarge {
                len_bytes: payload.len(),
                limit_bytes: self.limit_bytes,
                limit: "what the queue was made for (create it with ?max-message=, up to \
                        fs.mqueue.msgsize_max)"
                    .into(),
            });
        }
        match self.queue.try_send(payload, priority) {
            Ok(()) => {
                self.sent += 1;
                Ok(())
            }
            Err(error) if error.kind() == kernel::ErrorKind::WouldBlock => Err(SendError::Full),
            Err(error) => Err(self.setup.system("cannot send", error).into()),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        let cancel = self.setup.options.cancel.as_ref();
        match wait_or_cancel(self.queue.as_fd(), Interest::Writable, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(SendError::Interrupted),
            Err(error) => Err(self.setup.system("cannot wait", error).into()),
        }
    }
}

#[derive(Debug)]
pub(crate) struct MqReceiver {
    setup: Setup,
    queue: MessageQueue,
    buffer: Vec<u8>,
}

impl MqReceiver {
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.queue.as_fd()
    }

    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        match self.queue.try_recv(&mut self.buffer) {
            Ok((len, priority)) => {
                with(Raw { priority, ..Raw::bare(&self.buffer[..len]) });
                Ok(true)
            }
            Err(error) if error.kind() == kernel::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(self.setup.system("cannot receive", error).into()),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        let cancel = self.setup.options.cancel.as_ref();
        match wait_or_cancel(self.queue.as_fd(), Interest::Readable, cancel, deadline) {
            Ok(true) => Ok(()),
            Ok(false) => Err(RecvError::Interrupted),
            Err(error) => Err(self.setup.system("cannot wait", error).into()),
        }
    }
}

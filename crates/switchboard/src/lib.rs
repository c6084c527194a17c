//! Every way for processes to talk, behind one address.
//!
//! ```no_run
//! use switchboard::{Queue, Text};
//!
//! // One process:
//! let mut sender = Queue::<Text>::open("unix:/run/jobs.sock")?.sender()?;
//! sender.send(&Text("press".into()))?;
//! sender.close()?;
//!
//! // Another; either may start first:
//! let mut receiver = Queue::<Text>::open("unix:/run/jobs.sock")?.receiver()?;
//! let delivery = receiver.recv()?;
//! println!("{}", delivery.message.0);
//! receiver.acknowledge(delivery)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Change the address, keep the code: `fifo:/tmp/jobs`, `mq:/jobs`, `tcp:127.0.0.1:7000` …
//! [`transport::TABLE`] says what each can do.
//!
//! An endpoint moves while one of its methods runs; its descriptor (`as_fd`) says when to call one, in an
//! event loop or, with the feature `tokio`, in a task. The library starts no thread, but for one that serves
//! all ends of `shm:` ([`Options::io_thread`]).

#![forbid(unsafe_code)]

mod access;
pub mod address;
pub mod counters;
pub mod error;
pub mod framing;
pub mod link;
mod log;
pub mod message;
pub mod object;
pub mod options;
pub mod pattern;
#[cfg(feature = "tokio")]
pub mod tokio;
pub mod transport;

pub use address::{Address, AddressError};
pub use error::{CloseError, Error, ErrorKind, RecvError, SendError, WaitError};
pub use framing::Framing;
pub use message::{Bytes, EncodingError, InPlace, Json, Message, Named, Plain, Text};
pub use options::{Options, Overflow};
pub use pattern::event::{Event, Listener, Notifier, Occurrence, Origin};
pub use pattern::queue::{
    Borrowed, Delivery, Incoming, Loan, Queue, Receiver, Rejection, Sender, Ticket,
};
pub use pattern::service::{
    Call, CallError, CallState, CallTicket, Client, Code, Pending, Progress, Replies, ReplyError,
    Server, Service, Status,
};
pub use pattern::state::{Layout, State, Value};
pub use pattern::topic::{BorrowedSample, Publisher, Sample, Start, Subscriber, Topic};

/// Where the crate's own tests start processes: [`switchboard_testkit::child`].
#[cfg(test)]
#[test]
fn child_process() {
    switchboard_testkit::child::enter(transport::ROLES);
}

//! What endpoints of every transport share: how they are opened, and how a message is handed on.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use switchboard_kernel::fork::Opener;
use switchboard_kernel::io::{self, Deadline, Interest};

use crate::address::Address;
use crate::error::{Error, ErrorKind};
use crate::framing::Framing;
use crate::link::Pattern;
use crate::message::Schema;
use crate::options::Options;
use crate::pattern::topic::Start;

/// The largest message over a link. A receiver holds one such message per connection.
pub(crate) const LINK_MESSAGE_BYTES: u32 = 16 << 20;

/// What an endpoint is opened with.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) address: Address,
    pub(crate) options: Options,
    pub(crate) schema: Schema,
    /// `None` where children of `fork` cannot be told from their parent.
    opener: Option<Opener>,
}

impl Setup {
    pub(crate) fn new(address: Address, options: Options, schema: Schema) -> Self {
        Self { address, options, schema, opener: Opener::this().ok() }
    }

    /// Whether this is the process that opened the endpoint. A child of `fork` has a copy, which says and undoes nothing when it
    /// is dropped: what would be said is the parent's to say, and what was made is the parent's.
    pub(crate) fn is_here(&self) -> bool {
        self.opener.is_none_or(Opener::is_here)
    }

    /// The largest message this side takes: the least of the row, the address and the options.
    pub(crate) fn largest_message_bytes(&self) -> u32 {
        let row = match self.address.transport().framing {
            // A stream of bytes has no messages that could be too long.
            Some(_) if self.framing() == Framing::Raw => LINK_MESSAGE_BYTES,
            _ => self.address.transport().capabilities.largest_message_bytes,
        };
        [self.address.query.max_message_bytes, self.options.max_message_bytes]
            .into_iter()
            .flatten()
            .fold(row, u32::min)
    }

    /// What that limit is, for an error: whose it is, and how to change it where that is possible.
    pub(crate) fn limit_name(&self) -> &'static str {
        let largest = Some(self.largest_message_bytes());
        if self.address.query.max_message_bytes == largest {
            "what this address takes (?max-message=)"
        } else if self.options.max_message_bytes == largest {
            "what this side takes"
        } else if self.address.scheme() == "fifo" {
            "PIPE_BUF, what a pipe keeps whole, less the framing"
        } else {
            "the most that this transport carries"
        }
    }

    /// The framing: the address's, else the row's.
    pub(crate) fn framing(&self) -> Framing {
        let row = self.address.transport().framing.unwrap_or(Framing::Raw);
        self.address.query.framing.unwrap_or(row)
    }

    /// A copy, for the endpoint to keep.
    pub(crate) fn again(&self) -> Self {
        Self {
            address: self.address.clone(),
            options: self.options.clone(),
            schema: self.schema.clone(),
            opener: self.opener,
        }
    }

    /// Whether waiting should end now.
    pub(crate) fn is_cancelled(&self) -> bool {
        let now = Deadline::after(Duration::ZERO);
        let cancel = self.options.cancel.as_ref();
        // A descriptor that cannot be waited for ends nothing.
        cancel.is_some_and(|fd| io::wait_for(fd, Interest::Readable, now).unwrap_or(false))
    }

    /// An error of a system call made for this address.
    pub(crate) fn system(&self, doing: &str, error: switchboard_kernel::Error) -> Error {
        Error::system(&self.address, doing, error)
    }
}

/// Whether an endpoint of this pattern over links can be opened: its framing, and options that mean
/// nothing for it.
///
/// # Errors
/// What does not fit.
pub(crate) fn check_for_links(setup: &Setup, pattern: Pattern) -> Result<(), Error> {
    let (address, query) = (&setup.address, &setup.address.query);
    let of_topics = [
        ("overflow", query.overflow.is_some()),
        ("history", query.history_messages.is_some()),
        ("capacity", query.capacity_bytes.is_some()),
    ];
    let misfit = of_topics.into_iter().find(|(_, given)| *given && pattern != Pattern::Topic);
    if let Some((option, _)) = misfit {
        let this = pattern.name();
        let problem = format!("?{option}= means something for a topic only, and this is a {this}");
        return Err(Error::new(ErrorKind::BadAddress, address, problem));
    }
    if pattern == Pattern::State && query.bind.is_some() {
        let problem = "the writer of a state binds and readers connect: so there is one writer";
        return Err(Error::new(ErrorKind::BadAddress, address, problem)
            .hint("leave out ?bind and ?connect"));
    }
    if pattern != Pattern::Queue && setup.framing() != Framing::Link {
        let this = pattern.name();
        let problem =
            format!("a {this} goes over links: programs that are not ours cannot join it");
        return Err(Error::new(ErrorKind::NotSupported, address, problem)
            .hint("leave out ?framing=, or use a queue (send, recv)"));
    }
    Ok(())
}

/// Whether a subscriber over links can begin so: a publisher keeps the last messages, and no places.
///
/// # Errors
/// It cannot.
pub(crate) fn starts_over_links(setup: &Setup, start: Start) -> Result<(), Error> {
    let what = match start {
        Start::New | Start::Oldest => return Ok(()),
        Start::Number(_) => "a message's number",
        Start::Time(_) => "a time",
    };
    let problem = format!("a subscriber here begins with what is there, not with {what}");
    Err(Error::new(ErrorKind::NotSupported, &setup.address, problem)
        .hint("a publisher's ?history=N is what comes first here; a log (file:) keeps everything"))
}

/// A message as it was received; its bytes are borrowed for the length of a call.
#[derive(Debug)]
pub(crate) struct Raw<'a> {
    pub(crate) payload: &'a [u8],
    pub(crate) receipt: Receipt,
    pub(crate) redelivered: bool,
    pub(crate) deliveries: u16,
    pub(crate) lost_before: u64,
    pub(crate) priority: u32,
    /// When it was sent, ns since 1970; 0 where that is not known.
    pub(crate) published_ns: u64,
}

/// Where an acknowledgement has to go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) connection: u64,
    pub(crate) sequence: u64,
}

impl<'a> Raw<'a> {
    /// A message of a transport that neither acknowledges nor redelivers.
    pub(crate) fn bare(payload: &'a [u8]) -> Self {
        Self {
            payload,
            receipt: Receipt::default(),
            redelivered: false,
            deliveries: 0,
            lost_before: 0,
            priority: 0,
            published_ns: 0,
        }
    }
}

/// Waits for a descriptor or the cancel descriptor. `false` when cancelled.
pub(crate) fn wait_or_cancel(
    fd: BorrowedFd<'_>,
    interest: Interest,
    cancel: Option<&Arc<OwnedFd>>,
    deadline: Deadline,
) -> switchboard_kernel::Result<bool> {
    let Some(cancel) = cancel else {
        io::wait_for(fd, interest, deadline)?;
        return Ok(true);
    };
    let ready = io::poll([(fd, interest), (cancel.as_fd(), Interest::Readable)], deadline)?;
    Ok(!ready[1].any())
}

//! Options of the ends of a queue or a topic. What an address says (`?mode=0640`) wins over these.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// What a publisher does when a subscriber is too slow for it: when what waits for that subscriber
/// has reached the [`capacity`](Options#structfield.capacity_bytes).
///
/// In an address: `?overflow=block`, `drop-oldest` or `fail`. It is the publisher's word; a
/// subscriber may have it in its address too, where it means nothing. Nor does it in a log (`file:`),
/// which keeps everything and waits for nobody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overflow {
    /// Publishing waits until the subscriber has taken enough: nothing is lost, and the slowest
    /// subscriber sets the pace. `send` returns when every subscriber's buffers in the kernel have the
    /// message; the capacity is for what is sent without waiting (`try_send`, `feed`) or with a timeout.
    /// `try_send` and `send_timeout` fail with [`Slow`](crate::SendError::Slow), which names the
    /// subscriber, and nobody gets the message.
    #[default]
    Block,
    /// The oldest messages that wait for that subscriber are dropped, for it alone. It is told how
    /// many: [`Gap`](crate::RecvError::Gap). Publishing waits for nobody, but that `send` waits up to
    /// 10 ms for subscribers that had everything before, so that no long message stays half written;
    /// `try_send` does not.
    DropOldest,
    /// Publishing fails at once with [`Slow`](crate::SendError::Slow), and nobody gets the message.
    /// Otherwise as `DropOldest`.
    Fail,
}

impl Overflow {
    /// Its name in an address.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropOldest => "drop-oldest",
            Self::Fail => "fail",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Block, Self::DropOldest, Self::Fail].into_iter().find(|it| it.name() == name)
    }
}

/// How the ends of a queue or a topic behave. Each setting says its default, its unit and its
/// consequence.
///
/// ```
/// use std::time::Duration;
/// use switchboard::Options;
///
/// let options = Options::default().prefetch(1).linger(Some(Duration::from_secs(5)));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Wait for the other side to appear. Default `true`: either side may start first. Without it a
    /// sender to a log (`file:`) that is full does not wait for a receiver to make room either: `send`
    /// fails with `Full`, as `try_send` does.
    pub wait: bool,
    /// Connect again when the other side dies. Default `true`. Without it a sender gives up with
    /// its unacknowledged messages, which a stream of bytes must (its middle is of no use).
    pub reconnect: bool,
    /// Keep receiving when all senders have ended or died. Default `false`. A death is reported
    /// (`PeerDied`) all the same, and receiving again goes on.
    pub follow: bool,
    /// How many messages a receiver takes ahead of its acknowledgements. Default 64. More makes a
    /// fast stream faster; fewer spread work over receivers more evenly, and 1 makes strict turns.
    pub prefetch_messages: u32,
    /// The same in bytes. Default 4 MiB. A larger message goes alone.
    pub prefetch_bytes: u32,
    /// The largest message this side takes, in bytes. Default: what the transport's row declares.
    pub max_message_bytes: Option<u32>,
    /// How often a message is given out until it counts as undeliverable, when receivers reject it.
    /// Default 5. The sender's option over a link, the receiver's in a log.
    pub max_deliveries: u16,
    /// Acknowledgements are written once this many wait, or when nothing is left to receive.
    /// Default 1: each at once. More make a fast stream faster; after a death up to this many
    /// messages come again, marked.
    pub acknowledge_every: u32,
    /// How long closing or dropping a sender waits for acknowledgements. Default: as long as it takes.
    pub linger: Option<Duration>,
    /// Ends every wait with `Interrupted` while it is readable; it is never read.
    pub cancel: Option<Arc<OwnedFd>>,
    /// The kernel's send and receive buffers of a connection, in bytes. Default: the system's.
    pub buffer_bytes: Option<u32>,
    /// What a topic's publisher does about a subscriber that is too slow (`?overflow=`). Default
    /// [`Block`](Overflow::Block).
    pub overflow: Overflow,
    /// How many of its last messages a topic's publisher keeps for subscribers that come later
    /// (`?history=`): each of them gets these first. Default 0. They die with their publisher. Fewer
    /// are kept where they are longer than the transport's bound on them, in bytes.
    pub history_messages: u32,
    /// How many bytes of a topic may wait for a slow subscriber before [`overflow`](Self::overflow)
    /// acts (`?capacity=`), beyond what the kernel's buffers hold. Default: the transport's. More
    /// rides out longer pauses and takes more memory. A message that is longer goes alone.
    pub capacity_bytes: Option<u32>,
    /// Whether a thread of this process moves an end of `shm:` on while the caller is elsewhere: lets peers
    /// join, notices deaths. Default `true`: one thread for all ends of the process, made with the first of
    /// them. Without it an end moves while one of its methods runs, and sleeping and waking take longer.
    /// Taking the end's descriptor (`as_fd`) has the same effect.
    pub io_thread: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wait: true,
            reconnect: true,
            follow: false,
            prefetch_messages: 64,
            prefetch_bytes: 4 << 20,
            max_message_bytes: None,
            max_deliveries: 5,
            acknowledge_every: 1,
            linger: None,
            cancel: None,
            buffer_bytes: None,
            overflow: Overflow::Block,
            history_messages: 0,
            capacity_bytes: None,
            io_thread: true,
        }
    }
}

/// A setter per option, chained.
macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident($field:ident: $type:ty);)*) => {
        impl Options {
            $($(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            })*
        }
    };
}

setters! {
    /// Sets [`wait`](Self#structfield.wait).
    wait_for_peer(wait: bool);
    /// Sets [`reconnect`](Self#structfield.reconnect).
    reconnect(reconnect: bool);
    /// Sets [`follow`](Self#structfield.follow).
    follow(follow: bool);
    /// Sets [`prefetch_messages`](Self#structfield.prefetch_messages). 0 counts as 1.
    prefetch(prefetch_messages: u32);
    /// Sets [`prefetch_bytes`](Self#structfield.prefetch_bytes). 0 counts as 1.
    prefetch_bytes(prefetch_bytes: u32);
    /// Sets [`max_message_bytes`](Self#structfield.max_message_bytes).
    max_message_bytes(max_message_bytes: Option<u32>);
    /// Sets [`max_deliveries`](Self#structfield.max_deliveries).
    max_deliveries(max_deliveries: u16);
    /// Sets [`acknowledge_every`](Self#structfield.acknowledge_every).
    acknowledge_every(acknowledge_every: u32);
    /// Sets [`linger`](Self#structfield.linger).
    linger(linger: Option<Duration>);
    /// Sets [`cancel`](Self#structfield.cancel).
    cancel(cancel: Option<Arc<OwnedFd>>);
    /// Sets [`buffer_bytes`](Self#structfield.buffer_bytes).
    buffer_bytes(buffer_bytes: Option<u32>);
    /// Sets [`overflow`](Self#structfield.overflow).
    overflow(overflow: Overflow);
    /// Sets [`history_messages`](Self#structfield.history_messages).
    history(history_messages: u32);
    /// Sets [`io_thread`](Self#structfield.io_thread).
    io_thread(io_thread: bool);
    /// Sets [`capacity_bytes`](Self#structfield.capacity_bytes). 0 counts as 1.
    capacity_bytes(capacity_bytes: Option<u32>);
}

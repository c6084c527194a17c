//! What victims do, and what is around them: a row for each operation.

mod calls;

use switchboard_testkit::killstep::How;

use super::super::ends::Pattern;

pub(super) use calls::CALLS;

/// What the victim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Publisher,
    Subscriber,
    Sender,
    Receiver,
}

impl End {
    pub(super) fn pattern(self) -> Pattern {
        match self {
            Self::Publisher | Self::Subscriber => Pattern::Topic,
            Self::Sender | Self::Receiver => Pattern::Queue,
        }
    }

    pub(super) fn writes(self) -> bool {
        matches!(self, Self::Publisher | Self::Sender)
    }
}

/// What the victim does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Comes, and meets who is there: a writer until it has a peer, a reader until it has a message.
    Join,
    /// Goes: a writer says its end.
    Leave,
    /// Sends so many messages, one after the other.
    Send(u64),
    /// Sends one with a priority.
    SendUrgent,
    /// Sends so many as a batch.
    Feed(u64),
    /// Sends so many in one call, each built where its readers read it.
    SendEach(u64),
    /// Builds one where its readers read it.
    Loan,
    /// Builds so many so, one after the other.
    Loans(u64),
    /// Builds one so, and does not send it.
    LoanInVain,
    /// Gives out again what a receiver has left.
    GiveOutAgain,
    /// Takes one message; waits for it, if it is not there.
    Receive,
    /// Looks at one message where it lies.
    Borrow,
    /// Looks at two: the room of the first is free when the second is looked for.
    BorrowTwo,
    /// Looks at one and acknowledges it.
    BorrowAndAcknowledge,
    /// Looks at one and gives it back.
    BorrowAndReject,
    /// Takes so many as a batch, and acknowledges them, if it is a receiver.
    ReceiveEach(u64),
    /// Acknowledges messages of these numbers, in this order.
    Acknowledge(&'static [u64]),
    /// Gives back the message of this number.
    Reject(u64),
}

/// What the others do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// Nothing, until they are asked.
    Idle,
    /// They sleep: a reader for the next message, a writer for room.
    Asleep,
    /// A reader sleeps for the next message of one of two writers, and so on its descriptor.
    AsleepForTwo,
}

/// What is tried where not all can be: some operations are long, and some change nothing that is shared, so
/// that one death is like the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quick {
    Both,
    Deaths,
    Stops,
    Neither,
}

impl Quick {
    pub(super) fn has(self, how: How) -> bool {
        match how {
            How::Kill => matches!(self, Self::Both | Self::Deaths),
            How::Stop => matches!(self, Self::Both | Self::Stops),
        }
    }
}

/// An operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operation {
    pub(super) name: &'static str,
    pub(super) end: End,
    pub(super) act: Act,
    /// Appended to the address.
    pub(super) query: &'static str,
    pub(super) len_bytes: usize,
    /// How many messages the writer has sent before.
    pub(super) before: u64,
    /// How many of those the reader has taken.
    pub(super) taken: u64,
    /// How many of those the victim has acknowledged, if it is a receiver.
    pub(super) settled: u64,
    /// Another receiver had all of them before, and left.
    pub(super) again: bool,
    pub(super) others: Others,
    /// How many messages the receiver takes ahead.
    pub(super) window: u32,
    /// The victim has an I/O thread. Where its control path is what matters, it has none, so that all it does
    /// is looked at.
    pub(super) io_thread: bool,
    pub(super) quick: Quick,
}

/// A publisher that sends one small message.
const PUBLISH: Operation = Operation {
    name: "",
    end: End::Publisher,
    act: Act::Send(1),
    query: "",
    len_bytes: 24,
    before: 2,
    taken: 2,
    settled: 0,
    again: false,
    others: Others::Idle,
    window: 64,
    io_thread: true,
    quick: Quick::Both,
};

const SEND: Operation = Operation { end: End::Sender, ..PUBLISH };

const SUBSCRIBE: Operation =
    Operation { end: End::Subscriber, act: Act::Receive, before: 3, taken: 1, ..PUBLISH };

const RECEIVE: Operation = Operation { end: End::Receiver, ..SUBSCRIBE };

const ACKNOWLEDGE: Operation = Operation { before: 5, taken: 4, settled: 1, ..RECEIVE };

/// So many frames of this length fit into the smallest ring, and a pad. Each fills lines of the cache, so that
/// it is no longer where frames begin at lines.
const SMALL_RING: &str = "&capacity=4096";
const WRAPPING_BYTES: usize = 184;
const WRAPPING_COUNT: u64 = 21;
/// A quarter of the smallest ring: with a prefix, the largest frame.
const LARGEST_BYTES: usize = 1024;
/// More than that. Two of them lie in one segment: another one would come while they are taken.
const LARGE_BYTES: usize = 1200;

/// Of the data path: on a few thousand instructions.
pub(super) const STEPS: &[Operation] = &[
    Operation { name: "publish", ..PUBLISH },
    Operation { name: "publish to a sleeping subscriber", others: Others::Asleep, ..PUBLISH },
    Operation {
        name: "publish to a subscriber asleep for two",
        others: Others::AsleepForTwo,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation {
        name: "publish three over the ring's end",
        act: Act::Feed(3),
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT - 1,
        taken: WRAPPING_COUNT - 1,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation { name: "publish three together", act: Act::Feed(3), ..PUBLISH },
    Operation {
        name: "publish three together to a sleeping subscriber",
        act: Act::Feed(3),
        others: Others::Asleep,
        ..PUBLISH
    },
    Operation { name: "publish each of three", act: Act::SendEach(3), ..PUBLISH },
    Operation {
        name: "publish each of three to a sleeping subscriber",
        act: Act::SendEach(3),
        others: Others::Asleep,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation {
        name: "publish each of three over the ring's end",
        act: Act::SendEach(3),
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT - 1,
        taken: WRAPPING_COUNT - 1,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation {
        name: "publish into a full ring",
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT,
        taken: 0,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation {
        name: "publish over the oldest",
        act: Act::Send(3),
        query: "&capacity=4096&overflow=drop-oldest",
        len_bytes: 200,
        before: 25,
        taken: 0,
        ..PUBLISH
    },
    Operation {
        name: "publish a large message",
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation { name: "publish a loan", act: Act::Loan, ..PUBLISH },
    // The second one is of what the first one's commit granted.
    Operation { name: "publish two loans", act: Act::Loans(2), ..PUBLISH },
    Operation {
        name: "publish two loans over the ring's end",
        act: Act::Loans(2),
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT - 1,
        taken: WRAPPING_COUNT - 1,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation {
        name: "publish two large loans",
        act: Act::Loans(2),
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation {
        name: "publish a loan over the oldest",
        act: Act::Loan,
        query: "&capacity=4096&overflow=drop-oldest",
        len_bytes: 200,
        before: 25,
        taken: 0,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation {
        name: "build a loan over the ring's end in vain",
        act: Act::LoanInVain,
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT,
        taken: WRAPPING_COUNT,
        quick: Quick::Deaths,
        ..PUBLISH
    },
    Operation { name: "send", ..SEND },
    Operation { name: "send a loan", act: Act::Loan, ..SEND },
    Operation {
        name: "send a large loan",
        act: Act::Loan,
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        quick: Quick::Deaths,
        ..SEND
    },
    Operation { name: "send no loan", act: Act::LoanInVain, quick: Quick::Neither, ..SEND },
    Operation { name: "send to a sleeping receiver", others: Others::Asleep, ..SEND },
    Operation {
        name: "send to a receiver asleep for two",
        others: Others::AsleepForTwo,
        quick: Quick::Deaths,
        ..SEND
    },
    Operation {
        name: "send with a priority",
        act: Act::SendUrgent,
        taken: 0,
        quick: Quick::Deaths,
        ..SEND
    },
    Operation {
        name: "send to a receiver that has enough",
        before: 2,
        taken: 0,
        window: 2,
        quick: Quick::Deaths,
        ..SEND
    },
    Operation {
        name: "send three over the ring's end",
        act: Act::Feed(3),
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT - 1,
        taken: WRAPPING_COUNT - 1,
        quick: Quick::Stops,
        ..SEND
    },
    Operation { name: "send each of three", act: Act::SendEach(3), quick: Quick::Stops, ..SEND },
    Operation {
        name: "send a large message",
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        quick: Quick::Deaths,
        ..SEND
    },
    Operation {
        name: "give out again what a receiver left",
        act: Act::GiveOutAgain,
        before: 4,
        taken: 0,
        io_thread: false,
        ..SEND
    },
    Operation { name: "subscribe: take", ..SUBSCRIBE },
    Operation {
        name: "subscribe: take the last one",
        before: 2,
        quick: Quick::Deaths,
        ..SUBSCRIBE
    },
    Operation { name: "subscribe: sleep and take", before: 1, quick: Quick::Deaths, ..SUBSCRIBE },
    Operation {
        name: "subscribe: sleep on the descriptor and take",
        before: 1,
        io_thread: false,
        quick: Quick::Deaths,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: take from a full ring, and wake its publisher",
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT,
        taken: 2,
        others: Others::Asleep,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: take each of three",
        act: Act::ReceiveEach(3),
        before: 4,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: take each of three from a full ring, and wake its publisher",
        act: Act::ReceiveEach(3),
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT,
        taken: 2,
        others: Others::Asleep,
        quick: Quick::Deaths,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: take what was overtaken",
        query: "&capacity=4096&overflow=drop-oldest",
        len_bytes: 200,
        before: 25,
        taken: 0,
        quick: Quick::Stops,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: take a large message",
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        before: 2,
        quick: Quick::Neither,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: take a large message before it is overwritten",
        query: "&capacity=4096&overflow=drop-oldest",
        len_bytes: LARGE_BYTES,
        before: 2,
        quick: Quick::Stops,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: borrow and release",
        act: Act::Borrow,
        query: SMALL_RING,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: borrow two from a full ring, and wake its publisher",
        act: Act::BorrowTwo,
        query: SMALL_RING,
        len_bytes: WRAPPING_BYTES,
        before: WRAPPING_COUNT,
        taken: 2,
        others: Others::Asleep,
        ..SUBSCRIBE
    },
    Operation {
        name: "subscribe: borrow a large message and release it",
        act: Act::Borrow,
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        before: 2,
        quick: Quick::Deaths,
        ..SUBSCRIBE
    },
    Operation { name: "receive", quick: Quick::Stops, ..RECEIVE },
    Operation { name: "receive: sleep and take", before: 1, quick: Quick::Deaths, ..RECEIVE },
    Operation {
        name: "receive a large message",
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        before: 2,
        quick: Quick::Stops,
        ..RECEIVE
    },
    Operation { name: "receive what another one had", again: true, quick: Quick::Stops, ..RECEIVE },
    Operation {
        name: "receive what another one had, as long as fits",
        again: true,
        query: SMALL_RING,
        len_bytes: LARGEST_BYTES,
        quick: Quick::Neither,
        ..RECEIVE
    },
    Operation {
        name: "receive three and acknowledge them",
        act: Act::ReceiveEach(3),
        before: 4,
        ..RECEIVE
    },
    Operation { name: "borrow and acknowledge", act: Act::BorrowAndAcknowledge, ..RECEIVE },
    Operation {
        name: "borrow a large message and acknowledge it",
        act: Act::BorrowAndAcknowledge,
        query: SMALL_RING,
        len_bytes: LARGE_BYTES,
        before: 2,
        quick: Quick::Deaths,
        ..RECEIVE
    },
    Operation { name: "borrow and let go", act: Act::Borrow, quick: Quick::Neither, ..RECEIVE },
    Operation {
        name: "borrow and reject",
        act: Act::BorrowAndReject,
        quick: Quick::Deaths,
        ..RECEIVE
    },
    Operation { name: "acknowledge in order", act: Act::Acknowledge(&[2, 3]), ..ACKNOWLEDGE },
    Operation {
        name: "acknowledge out of order",
        act: Act::Acknowledge(&[4, 3, 2]),
        ..ACKNOWLEDGE
    },
    Operation {
        name: "acknowledge, and wake the sender",
        act: Act::Acknowledge(&[2]),
        window: 4,
        others: Others::Asleep,
        ..ACKNOWLEDGE
    },
    Operation { name: "reject", act: Act::Reject(3), io_thread: false, ..ACKNOWLEDGE },
];

impl Operation {
    /// So many messages fill the smallest ring several times.
    pub(super) fn more_than_fit(&self) -> u64 {
        // A large one takes the frame of its place alone.
        let frame_bytes =
            if self.len_bytes > LARGEST_BYTES { 40 } else { 8 + self.len_bytes as u64 };
        3 * 4096 / frame_bytes
    }

    /// Whether a publisher drops the oldest.
    pub(super) fn drops(&self) -> bool {
        self.query.contains("drop-oldest")
    }
}

/// All of them: a number stands for one of these.
pub(super) fn all() -> impl Iterator<Item = &'static Operation> {
    STEPS.iter().chain(CALLS)
}

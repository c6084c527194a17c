//! The two ends of any transport: enums, matched on the hot path.

use std::os::fd::BorrowedFd;

use switchboard_kernel::io::Deadline;

use super::{
    Raw, Receipt, StreamPublisher, StreamReceiver, StreamSender, file, mq, packet, shm, sysv,
};
use crate::error::{RecvError, SendError};
use crate::pattern::queue::Rejection;

/// The sending end of any transport.
#[derive(Debug)]
pub(crate) enum SenderFlavor {
    Stream(Box<StreamSender>),
    Publisher(Box<StreamPublisher>),
    Mq(mq::MqSender),
    Sysv(sysv::SysvSender),
    Packet(packet::PacketSender),
    File(Box<file::FileSender>),
    ShmPublisher(Box<shm::ShmPublisher>),
    ShmSender(Box<shm::ShmSender>),
}

/// The receiving end of any transport.
#[derive(Debug)]
pub(crate) enum ReceiverFlavor {
    Stream(Box<StreamReceiver>),
    Mq(mq::MqReceiver),
    Sysv(sysv::SysvReceiver),
    Packet(packet::PacketReceiver),
    File(Box<file::FileReceiver>),
    Subscriber(Box<file::FileSubscriber>),
    ShmSubscriber(Box<shm::ShmSubscriber>),
    ShmReceiver(Box<shm::ShmReceiver>),
}

/// Calls a method of whichever flavor it is: those that both ends have, and further ones.
macro_rules! each {
    ($flavor:expr, $end:ident => $call:expr $(, $further:ident)*) => {
        match $flavor {
            Self::Stream($end) => $call,
            Self::Mq($end) => $call,
            Self::Sysv($end) => $call,
            Self::Packet($end) => $call,
            Self::File($end) => $call,
            $(Self::$further($end) => $call,)*
        }
    };
}

impl SenderFlavor {
    /// Sends without waiting. With `more`, the message may wait for the next ones to fill a write.
    #[inline]
    pub(crate) fn try_send(
        &mut self,
        payload: &[u8],
        priority: u32,
        more: bool,
    ) -> Result<(), SendError> {
        match self {
            Self::ShmPublisher(end) => end.try_send(payload),
            Self::ShmSender(end) => end.try_send(payload, priority),
            Self::Stream(end) => end.try_send(payload, priority, more),
            Self::Publisher(end) => end.try_send(payload, priority, more),
            Self::Mq(end) => end.try_send(payload, priority, more),
            Self::Sysv(end) => end.try_send(payload, priority, more),
            Self::Packet(end) => end.try_send(payload, priority, more),
            Self::File(end) => end.try_send(payload, priority, more),
        }
    }

    /// Accepts a message that waits for the next ones, where that needs no look at anything; otherwise
    /// [`try_send`](Self::try_send) does it. It is counted in `sent`, or [here](Self::gathered).
    #[inline]
    pub(crate) fn feed_next(&mut self, payload: &[u8], sent: &mut u64) -> bool {
        match self {
            Self::ShmPublisher(end) => end.feed_next(payload),
            Self::File(end) => {
                let is_fed = end.feed_next(payload);
                *sent += u64::from(is_fed);
                is_fed
            }
            _ => false,
        }
    }

    /// Accepts messages of up to so many bytes that `fill` writes in place, where nothing has to be looked at before each.
    /// How many there were, and whether it said that there are no more.
    #[inline]
    pub(crate) fn fill_each(
        &mut self,
        len: usize,
        fill: &mut impl FnMut(&mut [u8]) -> Option<usize>,
    ) -> (usize, bool) {
        match self {
            Self::ShmPublisher(end) => end.fill_each(len, fill),
            _ => (0, false),
        }
    }

    /// Messages that it has counted itself: those that waited for others in shared memory.
    pub(crate) fn gathered(&self) -> u64 {
        match self {
            Self::ShmPublisher(end) => end.gathered(),
            _ => 0,
        }
    }

    /// Whether what it lends is where receivers read.
    pub(crate) fn has_own_memory(&self) -> bool {
        matches!(self, Self::ShmPublisher(_) | Self::ShmSender(_))
    }

    /// Moves on whatever can move without waiting. Whether everything accepted is with the kernel.
    pub(crate) fn drive(&mut self) -> Result<bool, SendError> {
        match self {
            Self::Stream(end) => end.drive(),
            Self::Publisher(end) => end.drive(),
            Self::File(end) => end.drive(),
            Self::ShmPublisher(end) => end.drive(),
            Self::ShmSender(end) => end.drive(),
            _ => Ok(true),
        }
    }

    /// Shows what waits for others, where that takes nothing but a look for who sleeps.
    pub(crate) fn show(&mut self) {
        if let Self::ShmPublisher(end) = self {
            let _ = end.drive();
        }
    }

    /// Looks at what happened: acknowledgements, lost connections. Does not wait.
    pub(crate) fn look(&mut self) -> Result<(), SendError> {
        match self {
            Self::Stream(end) => end.look(),
            Self::Publisher(end) => end.look(),
            Self::ShmPublisher(end) => end.look(),
            Self::ShmSender(end) => end.look(),
            _ => Ok(()),
        }
    }

    /// Waits until something may have changed.
    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), SendError> {
        each!(self, end => end.wait(deadline), ShmPublisher, ShmSender, Publisher)
    }

    /// Says that no message follows, and moves towards the end. Whether it is reached.
    pub(crate) fn finish(&mut self) -> Result<bool, SendError> {
        match self {
            Self::Stream(end) => end.finish(),
            Self::Publisher(end) => end.finish(),
            Self::Packet(end) => end.finish(),
            Self::ShmPublisher(end) => end.finish(),
            Self::ShmSender(end) => end.finish(),
            Self::File(end) => end.drive(),
            _ => Ok(true),
        }
    }

    /// As [`finish`](Self::finish), without waiting for an answer to the end.
    pub(crate) fn leave(&mut self) -> Result<bool, SendError> {
        match self {
            Self::Stream(end) => end.leave(),
            Self::ShmSender(end) => end.leave(),
            _ => self.finish(),
        }
    }

    /// Messages sent and not acknowledged.
    pub(crate) fn unacknowledged(&self) -> u64 {
        match self {
            Self::Stream(end) => end.unacknowledged(),
            Self::Publisher(end) => end.unacknowledged(),
            Self::File(end) => end.unacknowledged(),
            Self::ShmSender(end) => end.pending(),
            Self::ShmPublisher(end) => end.pending(),
            _ => 0,
        }
    }

    /// Those of them that still can be.
    pub(crate) fn pending(&self) -> u64 {
        match self {
            Self::Stream(end) => end.pending(),
            Self::Publisher(end) => end.pending(),
            Self::ShmSender(end) => end.pending(),
            Self::ShmPublisher(end) => end.pending(),
            _ => 0,
        }
    }

    /// Messages acknowledged; on transports without acknowledgements, accepted by the kernel.
    pub(crate) fn acknowledged(&self) -> u64 {
        each!(self, end => end.acknowledged(), ShmPublisher, ShmSender, Publisher)
    }

    pub(crate) fn rejected(&self) -> u64 {
        match self {
            Self::Stream(end) => end.rejected(),
            Self::ShmSender(end) => end.rejected(),
            _ => 0,
        }
    }

    /// What was noticed when it was opened.
    pub(crate) fn remark(&self) -> Option<&str> {
        match self {
            Self::File(end) => end.remark(),
            _ => None,
        }
    }

    /// Whether sending waits when there is no room: not where a topic says so.
    pub(crate) fn waits(&self) -> bool {
        match self {
            Self::Publisher(end) => end.waits(),
            Self::ShmPublisher(end) => end.waits(),
            _ => true,
        }
    }

    /// How long a wait is at most, where something else than the descriptor ends it.
    #[cfg(feature = "tokio")]
    pub(crate) fn patience(&self) -> Option<std::time::Duration> {
        match self {
            Self::Publisher(end) => end.patience(),
            _ => None,
        }
    }

    /// The peer that holds the others up, where one can.
    pub(crate) fn slow_peer(&self) -> Option<String> {
        match self {
            Self::Publisher(end) => end.slow_peer(),
            Self::ShmPublisher(end) => end.slow_peer(),
            _ => None,
        }
    }

    /// Messages of a topic that were dropped, each counted for each subscriber.
    pub(crate) fn dropped(&self) -> u64 {
        match self {
            Self::Publisher(end) => end.dropped(),
            _ => 0,
        }
    }

    /// Whether [`peers`](Self::peers) knows who is there.
    pub(crate) fn counts_peers(&self) -> bool {
        matches!(
            self,
            Self::Stream(_) | Self::Publisher(_) | Self::ShmSender(_) | Self::ShmPublisher(_)
        )
    }

    /// Peers connected now; on transports without connections, 1.
    pub(crate) fn peers(&self) -> usize {
        match self {
            Self::Stream(end) => end.peers(),
            Self::Publisher(end) => end.peers(),
            Self::ShmPublisher(end) => end.peers(),
            Self::ShmSender(end) => end.peers(),
            _ => 1,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        each!(self, end => end.fd(), ShmPublisher, ShmSender, Publisher)
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        match self {
            Self::Stream(end) => end.local_address(),
            Self::Publisher(end) => end.local_address(),
            _ => None,
        }
    }

    /// Lends [room](Self::room) for a message, where there is nothing particular about it: a short cut.
    #[inline]
    pub(crate) fn lend_plain(&mut self, len: usize) -> bool {
        match self {
            Self::ShmPublisher(end) => end.lend_plain(len),
            Self::ShmSender(end) => end.lend_plain(len),
            _ => false,
        }
    }

    /// Lends [room](Self::room) for a message, without waiting; `false` where messages are copied anyway.
    pub(crate) fn lend(&mut self, len: usize) -> Result<bool, SendError> {
        match self {
            Self::ShmPublisher(end) => end.lend(len).map(|()| true),
            Self::ShmSender(end) => end.lend(len).map(|()| true),
            _ => Ok(false),
        }
    }

    /// The room that was lent.
    #[inline]
    pub(crate) fn room(&mut self) -> &mut [u8] {
        match self {
            Self::ShmPublisher(end) => end.room(),
            Self::ShmSender(end) => end.room(),
            _ => &mut [],
        }
    }

    /// What was built there so far.
    #[inline]
    pub(crate) fn built(&self) -> &[u8] {
        match self {
            Self::ShmPublisher(end) => end.built(),
            Self::ShmSender(end) => end.built(),
            _ => &[],
        }
    }

    /// Sends the first bytes of what was built, where there is nothing particular about it: a short cut.
    #[inline]
    pub(crate) fn commit_plain(&mut self, len: usize) -> bool {
        match self {
            Self::ShmPublisher(end) => end.commit_plain(len),
            Self::ShmSender(end) => end.commit_plain(len),
            _ => false,
        }
    }

    /// Sends the first bytes of what was built.
    pub(crate) fn commit_loan(&mut self, len: usize) -> Result<(), SendError> {
        match self {
            Self::ShmPublisher(end) => end.commit_loan(len),
            Self::ShmSender(end) => end.commit_loan(len),
            _ => Ok(()),
        }
    }

    /// Takes a loan back, of which nothing becomes.
    pub(crate) fn cancel_loan(&mut self) {
        match self {
            Self::ShmPublisher(end) => end.cancel_loan(),
            Self::ShmSender(end) => end.cancel_loan(),
            _ => {}
        }
    }

    /// The room where a message of up to `len` bytes can be built in place.
    pub(crate) fn reserve(&mut self, len: usize) -> Result<Option<&mut [u8]>, SendError> {
        match self {
            Self::Stream(end) => end.reserve(len),
            _ => Ok(None),
        }
    }

    /// Sends what was built in the room last reserved.
    pub(crate) fn commit(&mut self, len: usize, more: bool) -> Result<(), SendError> {
        match self {
            Self::Stream(end) => end.commit(len, more),
            _ => Ok(()),
        }
    }
}

impl ReceiverFlavor {
    /// Takes one message without waiting. Whether there was one.
    #[inline]
    pub(crate) fn take(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        each!(self, end => end.take(with), Subscriber, ShmSubscriber, ShmReceiver)
    }

    /// The same, for who goes on to [`take_more`](Self::take_more).
    #[inline]
    pub(crate) fn take_first(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        match self {
            Self::ShmSubscriber(end) => end.take_first(with),
            Self::ShmReceiver(end) => end.take_first(with),
            _ => self.take(with),
        }
    }

    /// A short cut, after which [`lend`](Self::lend) does the rest. Whether there was a message, which is now
    /// [`lent`](Self::lent); `None` where that is not known.
    #[inline]
    pub(crate) fn lend_plain(&mut self) -> Option<bool> {
        match self {
            Self::ShmSubscriber(end) => end.lend_plain(),
            Self::ShmReceiver(end) => end.lend_plain(),
            _ => None,
        }
    }

    /// Takes one message without waiting. Where it can be left where it lies, it is [`lent`](Self::lent);
    /// elsewhere `with` is called with it.
    pub(crate) fn lend(&mut self, with: &mut dyn FnMut(Raw<'_>)) -> Result<bool, RecvError> {
        match self {
            Self::ShmSubscriber(end) => end.lend(),
            Self::ShmReceiver(end) => end.lend(),
            _ => self.take(with).map(|_| false),
        }
    }

    /// The payload of what was lent last.
    #[inline]
    pub(crate) fn lent_payload(&self) -> &[u8] {
        match self {
            Self::ShmSubscriber(end) => end.lent_payload(),
            Self::ShmReceiver(end) => end.lent_payload(),
            _ => &[],
        }
    }

    /// What was lent last.
    #[inline]
    pub(crate) fn lent(&self) -> Raw<'_> {
        match self {
            Self::ShmSubscriber(end) => end.lent(),
            Self::ShmReceiver(end) => end.lent(),
            _ => Raw::bare(&[]),
        }
    }

    /// Takes up to `most` messages that are already in this process's memory.
    pub(crate) fn take_more(&mut self, most: usize, with: &mut dyn FnMut(Raw<'_>)) -> usize {
        match self {
            Self::Stream(end) => end.take_more(most, with),
            Self::File(end) => end.take_more(most, with),
            Self::Subscriber(end) => end.take_more(most, with),
            Self::ShmSubscriber(end) => end.take_more(most, with),
            Self::ShmReceiver(end) => end.take_more(most, with),
            _ => 0,
        }
    }

    pub(crate) fn acknowledge_all(&mut self, receipts: &[Receipt]) -> Result<(), RecvError> {
        match self {
            Self::Stream(end) => end.acknowledge_all(receipts),
            Self::File(end) => end.acknowledge_all(receipts),
            Self::Subscriber(end) => end.acknowledge_all(receipts),
            Self::ShmReceiver(end) => {
                end.acknowledge_all(receipts);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn acknowledge(&mut self, receipt: Receipt) -> Result<bool, RecvError> {
        match self {
            Self::Stream(end) => end.acknowledge(receipt),
            Self::File(end) => end.acknowledge(receipt),
            Self::Subscriber(end) => end.acknowledge(receipt),
            Self::ShmReceiver(end) => Ok(end.acknowledge(receipt)),
            _ => Ok(true),
        }
    }

    pub(crate) fn reject(&mut self, receipt: Receipt) -> Result<Rejection, RecvError> {
        match self {
            Self::Stream(end) => end.reject(receipt).map(Rejection::by_sender),
            Self::File(end) => end.reject(receipt),
            Self::Subscriber(end) => end.reject(receipt),
            Self::ShmReceiver(end) => Ok(Rejection::by_sender(end.reject(receipt))),
            _ => Ok(Rejection::NotTaken),
        }
    }

    pub(crate) fn give_back(&mut self, receipt: Receipt) -> Result<Rejection, RecvError> {
        match self {
            // A link has no word for it.
            Self::Stream(end) => end.reject(receipt).map(Rejection::by_sender),
            Self::File(end) => end.give_back(receipt),
            Self::Subscriber(end) => end.reject(receipt),
            Self::ShmReceiver(end) => Ok(Rejection::by_sender(end.reject(receipt))),
            _ => Ok(Rejection::NotTaken),
        }
    }

    /// A subscriber's messages count as taken when they are acknowledged from now on.
    pub(crate) fn count_acknowledged(&mut self) {
        match self {
            Self::Stream(end) => end.count_acknowledged(),
            Self::Subscriber(end) => end.count_acknowledged(),
            _ => {}
        }
    }

    /// Writes acknowledgements that wait.
    pub(crate) fn flush(&mut self) -> Result<(), RecvError> {
        match self {
            Self::Stream(end) => end.flush_acknowledgements(),
            Self::File(end) => end.flush(),
            Self::Subscriber(end) => end.flush(),
            _ => Ok(()),
        }
    }

    pub(crate) fn wait(&mut self, deadline: Deadline) -> Result<(), RecvError> {
        each!(self, end => end.wait(deadline), Subscriber, ShmSubscriber, ShmReceiver)
    }

    pub(crate) fn peers(&self) -> usize {
        match self {
            Self::Stream(end) => end.peers(),
            Self::ShmSubscriber(end) => end.peers(),
            Self::ShmReceiver(end) => end.peers(),
            _ => 1,
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        each!(self, end => end.fd(), Subscriber, ShmSubscriber, ShmReceiver)
    }

    pub(crate) fn local_address(&self) -> Option<String> {
        match self {
            Self::Stream(end) => end.local_address(),
            Self::Packet(end) => end.local_address(),
            _ => None,
        }
    }
}

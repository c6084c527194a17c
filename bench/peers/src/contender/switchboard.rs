//! Switchboard: the same code for every address and both patterns that carry messages; a row of the
//! table is an address and a pattern.
//!
//! A row is asked if the library's own table of transports has it.

pub(crate) mod service;

use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use ::switchboard::transport::TABLE;
use ::switchboard::{
    Bytes, Error, Options, Overflow, Queue, Receiver, RecvError, SendError, Sender, Start, Topic,
};

use super::{Can, Meeting, Port, copying};
use crate::Failure;
use crate::job::{Case, Manner, Measure};

/// How long a publisher waits for its subscriber.
const JOINING: Duration = Duration::from_secs(5);

/// Messages that a queue's receiver takes ahead, and acknowledges together at most.
const PREFETCH: u32 = 1024;
const ACKNOWLEDGE_EVERY: u32 = 64;

/// Messages that one call hands out at most.
const AT_A_TIME: usize = 256;

/// What kind of address.
pub(crate) trait Scheme {
    const SCHEME: &'static str;
    /// Payload is built where the receiver reads it.
    const LOANS: bool;
    /// Senders look for room, and receivers of streams for messages, again and again instead of sleeping;
    /// a process that is pinned to one processor would sleep at once. Such senders send from a buffer.
    const POLLS: bool;
    /// Streams are sent by one call.
    const MANY: bool = false;
    fn address(meeting: &Meeting<'_>, way: usize) -> String;
}

/// `unix:PATH`.
pub(crate) struct Unix;

impl Scheme for Unix {
    const SCHEME: &'static str = "unix";
    const LOANS: bool = false;
    const POLLS: bool = false;

    fn address(meeting: &Meeting<'_>, way: usize) -> String {
        format!("unix:{}", meeting.path(&format!("switchboard-{way}")).display())
    }
}

/// `shm:NAME`, met in the folder of this measurement.
pub(crate) struct Shm;

impl Scheme for Shm {
    const SCHEME: &'static str = "shm";
    const LOANS: bool = true;
    const POLLS: bool = true;

    fn address(meeting: &Meeting<'_>, way: usize) -> String {
        format!("shm:{}-{way}?scope={}", meeting.name, meeting.job.folder.display())
    }
}

/// The same, with many messages in one call, and a ring of so many bytes; 0 for the usual one.
pub(crate) struct ManyShm<const CAPACITY_BYTES: usize>;

impl<const CAPACITY_BYTES: usize> Scheme for ManyShm<CAPACITY_BYTES> {
    const SCHEME: &'static str = Shm::SCHEME;
    const LOANS: bool = true;
    const POLLS: bool = true;
    const MANY: bool = true;

    fn address(meeting: &Meeting<'_>, way: usize) -> String {
        let address = Shm::address(meeting, way);
        match CAPACITY_BYTES {
            0 => address,
            capacity => format!("{address}&capacity={capacity}"),
        }
    }
}

/// What kind of pattern.
pub(crate) trait Pattern {
    const NAME: &'static str;
    const ACKNOWLEDGES: bool;
    fn sender(address: &str, options: Options) -> Result<Sender<Bytes>, Error>;
    fn receiver(address: &str, options: Options) -> Result<Receiver<Bytes>, Error>;
}

/// Each message to one receiver, and acknowledged.
pub(crate) struct AsQueue;

impl Pattern for AsQueue {
    const NAME: &'static str = "queue";
    const ACKNOWLEDGES: bool = true;

    fn sender(address: &str, options: Options) -> Result<Sender<Bytes>, Error> {
        Queue::open_with(address, options)?.sender()
    }

    fn receiver(address: &str, options: Options) -> Result<Receiver<Bytes>, Error> {
        Queue::open_with(address, options)?.receiver()
    }
}

/// Each message to all subscribers.
pub(crate) struct AsTopic;

impl Pattern for AsTopic {
    const NAME: &'static str = "topic";
    const ACKNOWLEDGES: bool = false;

    fn sender(address: &str, options: Options) -> Result<Sender<Bytes>, Error> {
        Ok(Topic::open_with(address, options)?.publisher()?.into())
    }

    fn receiver(address: &str, options: Options) -> Result<Receiver<Bytes>, Error> {
        Ok(Topic::open_with(address, options)?.subscriber(Start::New)?.into())
    }
}

/// Whether the library has it, and the question is for it.
pub(super) fn can<S: Scheme, P: Pattern>(case: &Case) -> Can {
    let carried =
        TABLE.iter().any(|row| row.scheme == S::SCHEME && row.patterns().contains(&P::NAME));
    let is_small_stream =
        case.measure == Measure::Stream && case.bytes <= 64 && case.manner == Manner::Best;
    match case {
        _ if !carried || case.measure == Measure::Service => Can::NotAsked,
        _ if S::MANY && !is_small_stream => Can::NotAsked,
        Case { measure: Measure::Publish, .. } if P::ACKNOWLEDGES => {
            Can::No("each message to one receiver")
        }
        Case { manner: Manner::InPlace | Manner::Untouched, .. } if !S::LOANS => copying(case),
        _ => Can::Yes,
    }
}

/// An end each way.
pub(crate) struct Ends<S, P> {
    out: Option<Sender<Bytes>>,
    from: Option<Receiver<Bytes>>,
    kind: PhantomData<(S, P)>,
}

fn one_way() -> Failure {
    "this end goes the other way only".into()
}

impl<S: Scheme, P: Pattern> Ends<S, P> {
    #[inline(always)]
    fn take<R>(
        &mut self,
        timeout: Option<Duration>,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let mut result = None;
        let from = self.from.as_mut().ok_or_else(one_way)?;
        if S::LOANS {
            let found = match timeout {
                Some(Duration::ZERO) => from.try_borrow(),
                Some(timeout) => from.borrow_timeout(timeout),
                None => from.borrow(),
            };
            return match found {
                Ok(message) => {
                    result = Some(read(&message));
                    if P::ACKNOWLEDGES {
                        message.acknowledge()?;
                    }
                    Ok(result)
                }
                Err(RecvError::Empty) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        let looked = from.recv_each(1, timeout, |incoming, _| {
            result = Some(read(incoming.bytes));
            P::ACKNOWLEDGES
        });
        match looked {
            Ok(_) => Ok(result),
            Err(RecvError::Empty) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the ends of a topic have found each other; neither waits for the other by itself.
    fn wait_for_other(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + JOINING;
        loop {
            let mut there = true;
            if let Some(out) = &mut self.out {
                out.drive()?;
                there &= P::ACKNOWLEDGES || out.peers() > 0;
            }
            if self.from.is_some() {
                if self.take(Some(Duration::ZERO), |_| ())?.is_some() {
                    return Err("a message came too early".into());
                }
                there &= P::ACKNOWLEDGES || self.from.as_ref().is_some_and(|from| from.peers() > 0);
            }
            if there {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the ends did not meet".into());
            }
        }
    }
}

impl<S: Scheme, P: Pattern> Port for Ends<S, P> {
    const COPIES: bool = !S::LOANS;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let measure = meeting.job.case.measure;
        let overflow =
            if measure == Measure::Publish { Overflow::DropOldest } else { Overflow::Block };
        let options = Options::default()
            .acknowledge_every(ACKNOWLEDGE_EVERY)
            .prefetch(PREFETCH)
            .overflow(overflow)
            .linger(Some(Duration::from_secs(1)));
        let (out, from) = meeting.ways();
        let sender = |way| P::sender(&S::address(meeting, way), options.clone());
        let receiver = |way| P::receiver(&S::address(meeting, way), options.clone());
        let mut ends = Self {
            from: from.map(receiver).transpose()?,
            out: out.map(sender).transpose()?,
            kind: PhantomData,
        };
        if measure == Measure::Open && meeting.near() {
            ends.wait_for_other()?;
        }
        Ok(ends)
    }

    fn joined(&mut self) -> Result<(), Failure> {
        self.wait_for_other()
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let out = self.out.as_mut().ok_or_else(one_way)?;
        if S::LOANS {
            loop {
                match out.try_loan_bytes(bytes) {
                    Ok(mut loan) => {
                        fill(&mut loan);
                        return Ok(loan.send()?);
                    }
                    Err(SendError::Full | SendError::Slow { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let mut fill = Some(fill);
        out.send_filled(bytes, |room| {
            if let Some(fill) = fill.take() {
                fill(&mut room[..bytes]);
            }
            Ok::<_, Failure>(bytes)
        })??;
        Ok(())
    }

    #[inline(always)]
    fn send_all(
        &mut self,
        bytes: usize,
        numbers: RangeInclusive<u64>,
        mut fill: impl FnMut(&mut [u8], u64),
    ) -> Result<(), Failure> {
        if !S::MANY {
            return numbers
                .into_iter()
                .try_for_each(|number| self.send(bytes, |room| fill(room, number)));
        }
        let (mut number, last) = numbers.into_inner();
        let out = self.out.as_mut().ok_or_else(one_way)?;
        out.send_each(bytes, |room| {
            if number > last {
                return None;
            }
            fill(room, number);
            number += 1;
            Some(bytes)
        })?;
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        self.take(Some(Duration::ZERO), read)
    }

    #[inline(always)]
    fn recv<R>(&mut self, _: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        loop {
            if let Some(result) = self.take(None, &mut read)? {
                return Ok(result);
            }
        }
    }

    #[inline(always)]
    fn recv_some(
        &mut self,
        _: usize,
        most: usize,
        mut read: impl FnMut(&[u8]),
    ) -> Result<usize, Failure> {
        let from = self.from.as_mut().ok_or_else(one_way)?;
        let timeout = S::POLLS.then_some(Duration::ZERO);
        loop {
            let received = from.recv_each(most.min(AT_A_TIME), timeout, |incoming, _| {
                read(incoming.bytes);
                P::ACKNOWLEDGES
            });
            match received {
                Err(RecvError::Empty) => {}
                result => return Ok(result?),
            }
        }
    }

    fn push(&mut self) -> Result<(), Failure> {
        Ok(self.out.as_mut().ok_or_else(one_way)?.push()?)
    }

    fn subscribers(&mut self) -> Result<usize, Failure> {
        let out = self.out.as_mut().ok_or_else(one_way)?;
        out.drive()?;
        Ok(out.peers())
    }
}

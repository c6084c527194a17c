//! The crate `crossbar`: publishing and subscribing in shared memory, three ways.
//!
//! - `Topic`: blocks of a pool, whose numbers go through a ring. The ring overwrites what was not read: in
//!   streams the receiver says through a topic of its own how far it is, and the sender waits for it.
//! - `Pinned`: one block, written and read in turns.
//! - `Bus`: values copied into a ring and out of it. It can wait for its subscribers by itself.
//!
//! A publisher comes first; its subscribers look until it is there.
//!
//! Source: docs.rs/crossbar and the crate's examples.

#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use ::crossbar::error::Error;
use ::crossbar::{BusSubscriber, Config, PodBus, Publisher, Stream, Subscriber};

use super::{Can, Meeting, Port, depth, one_way};
use crate::job::{Case, Job, Manner, Measure, Report};
use crate::{Failure, side};

/// How long a subscriber looks for its publisher, and a publisher for its subscriber.
const APPEARING: Duration = Duration::from_secs(5);

const URI: &str = "/measured";

pub(super) fn can_publish(case: &Case) -> Can {
    if case.measure == Measure::Service { Can::NotAsked } else { Can::Yes }
}

pub(super) fn can_pin(case: &Case) -> Can {
    match (case.measure, case.manner) {
        (Measure::Service, _) => Can::NotAsked,
        (Measure::Latency, Manner::Best) => Can::Yes,
        (Measure::Latency, _) => Can::No("like `crossbar`"),
        _ => Can::No("one block, so only in turns; it does not sleep"),
    }
}

pub(super) fn can_bus(case: &Case) -> Can {
    match (case.measure, case.manner) {
        (Measure::Service, _) => Can::NotAsked,
        (_, Manner::InPlace | Manner::Untouched) => Can::No("cannot loan"),
        (Measure::Sleep, _) => Can::No("only polls"),
        (Measure::Open, _) => Can::No("a publisher does not know whether anybody subscribes"),
        _ => Can::Yes,
    }
}

/// Tries until it works, or the time is over.
fn until_there<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Failure> {
    let deadline = Instant::now() + APPEARING;
    loop {
        match attempt() {
            Ok(result) => return Ok(result),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// The sending end.
struct Out {
    publisher: Publisher,
    topic: ::crossbar::Topic,
}

impl Out {
    fn open(name: &str, config: Config) -> Result<Self, Failure> {
        let mut publisher = Publisher::create(name, config)?;
        let topic = publisher.register(URI)?;
        Ok(Self { publisher, topic })
    }

    fn subscribers(&self) -> Result<usize, Failure> {
        Ok(self.publisher.subscriber_count(&self.topic)? as usize)
    }
}

/// The receiving end.
struct Incoming {
    stream: Stream,
    /// Holds the mapping that `stream` uses: dropped after it.
    _subscriber: Subscriber,
}

impl Incoming {
    fn open(name: &str) -> Result<Self, Failure> {
        until_there(|| {
            let subscriber = Subscriber::connect(name)?;
            let stream = subscriber.subscribe(URI)?;
            Ok(Self { stream, _subscriber: subscriber })
        })
    }
}

/// Both ends, opened: publishers first.
fn ends(
    meeting: &Meeting<'_>,
    ways: (Option<usize>, Option<usize>),
    config: Config,
) -> Result<(Option<Out>, Option<Incoming>), Failure> {
    let name = |way: usize| format!("{}-{way}", meeting.name);
    let out = ways.0.map(|way| Out::open(&name(way), config)).transpose()?;
    let from = ways.1.map(|way| Incoming::open(&name(way))).transpose()?;
    if let Some(out) = &out
        && meeting.job.case.measure != Measure::Publish
    {
        let deadline = Instant::now() + APPEARING;
        while out.subscribers()? == 0 {
            if Instant::now() > deadline {
                return Err("nobody subscribed".into());
            }
        }
    }
    Ok((out, from))
}

/// Of the ring and the pool. Blocks hold 8 bytes more than the message.
fn config(bytes: usize) -> Result<Config, Failure> {
    let block_size = u32::try_from((bytes + 8).next_multiple_of(64))?;
    let ring_depth = depth(bytes);
    Ok(Config {
        max_topics: 1,
        block_count: 4 * ring_depth,
        block_size,
        ring_depth,
        ..Config::default()
    })
}

/// Publish and subscribe.
pub(crate) struct Topic {
    out: Option<Out>,
    from: Option<Incoming>,
    streams: bool,
    wanted_subscribers: usize,
    sent: u64,
    received: u64,
    /// Of the messages sent, so many are received for certain.
    known: u64,
    window: u64,
}

impl Topic {
    #[inline(always)]
    fn wait_for_room(&mut self) -> Result<(), Failure> {
        while self.sent - self.known >= self.window {
            let from = self.from.as_ref().ok_or_else(one_way)?;
            if let Some(sample) = from.stream.try_recv() {
                self.known = sample.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn count_received(&mut self) -> Result<(), Failure> {
        self.received += 1;
        if self.streams && self.received.is_multiple_of(self.window / 4) {
            let out = self.out.as_mut().ok_or_else(one_way)?;
            out.publisher.publish(&out.topic, &self.received.to_ne_bytes())?;
        }
        Ok(())
    }
}

impl Port for Topic {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let case = meeting.job.case;
        let streams = case.measure == Measure::Stream;
        let ways = match (streams, meeting.near()) {
            (false, _) => meeting.ways(),
            (true, true) => (Some(0), Some(1)),
            (true, false) => (Some(1), Some(0)),
        };
        let (out, from) = ends(meeting, ways, config(case.bytes)?)?;
        let window = u64::from(depth(case.bytes)) / 2;
        Ok(Self {
            out,
            from,
            streams,
            wanted_subscribers: case.subscribers,
            sent: 0,
            received: 0,
            known: 0,
            window,
        })
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        if self.streams {
            self.wait_for_room()?;
            self.sent += 1;
        }
        let out = self.out.as_mut().ok_or_else(one_way)?;
        let mut loan = out.publisher.loan(&out.topic)?;
        fill(&mut loan.as_mut_slice()[..bytes]);
        loan.set_len(bytes)?;
        loan.publish();
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let from = self.from.as_ref().ok_or_else(one_way)?;
        let Some(sample) = from.stream.try_recv() else { return Ok(None) };
        let result = read(&sample);
        drop(sample);
        self.count_received()?;
        Ok(Some(result))
    }

    #[inline(always)]
    fn recv<R>(&mut self, _: usize, mut read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        let from = self.from.as_ref().ok_or_else(one_way)?;
        Ok(read(&from.stream.recv()?))
    }

    fn subscribers(&mut self) -> Result<usize, Failure> {
        let seen = self.out.as_ref().ok_or_else(one_way)?.subscribers()?;
        // It counts what was dropped in order; nobody leaves while this is measured.
        Ok(seen.min(self.wanted_subscribers))
    }
}

/// The same block again and again.
pub(crate) struct Pinned {
    out: Out,
    from: Incoming,
}

impl Port for Pinned {
    const COPIES: bool = false;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let (out, from) = ends(meeting, meeting.ways(), config(meeting.job.case.bytes)?)?;
        Ok(Self { out: out.ok_or_else(one_way)?, from: from.ok_or_else(one_way)? })
    }

    #[inline(always)]
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        let mut loan = self.out.publisher.loan_pinned(&self.out.topic)?;
        fill(&mut loan.as_mut_slice()[..bytes]);
        loan.set_len(bytes)?;
        loan.publish();
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        Ok(self.from.stream.try_recv_pinned().map(|sample| read(&sample)))
    }
}

/// Runs a side of the bus: its messages are of one type, and so of one size.
pub(super) fn run_bus(job: &Job) -> Result<Report, Failure> {
    match job.case.bytes {
        8 => side::run::<Bus<1>>(job),
        64 => side::run::<Bus<8>>(job),
        256 => side::run::<Bus<32>>(job),
        1024 => side::run::<Bus<128>>(job),
        4096 => side::run::<Bus<512>>(job),
        8192 => side::run::<Bus<1024>>(job),
        65536 => side::run::<Bus<8192>>(job),
        bytes => Err(format!("no type of {bytes} bytes").into()),
    }
}

/// A ring of values of so many words.
pub(crate) struct Bus<const WORDS: usize> {
    out: Option<PodBus<[u64; WORDS]>>,
    from: Option<BusSubscriber<[u64; WORDS]>>,
    outgoing: Box<[u64; WORDS]>,
    wanted_subscribers: usize,
}

/// The bytes of a message.
fn bytes_of<const WORDS: usize>(message: &[u64; WORDS]) -> &[u8] {
    // SAFETY: words are bytes, without gaps.
    unsafe { std::slice::from_raw_parts(message.as_ptr().cast(), WORDS * 8) }
}

fn bytes_of_mut<const WORDS: usize>(message: &mut [u64; WORDS]) -> &mut [u8] {
    // SAFETY: words are bytes, without gaps, and any bytes are words.
    unsafe { std::slice::from_raw_parts_mut(message.as_mut_ptr().cast(), WORDS * 8) }
}

impl<const WORDS: usize> Port for Bus<WORDS> {
    const COPIES: bool = true;

    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure> {
        let name = |way: usize| format!("{}-{way}", meeting.name);
        let case = meeting.job.case;
        let ring = depth(case.bytes) as usize;
        let lossless = case.measure != Measure::Publish;
        let (out, from) = meeting.ways();
        // A subscriber that looks too early holds the lock that a publisher needs.
        let create = |way| {
            until_there(|| {
                if lossless {
                    PodBus::create_bounded(&name(way), ring, 0)
                } else {
                    PodBus::create(&name(way), ring)
                }
            })
        };
        let out = out.map(create).transpose()?;
        let from =
            from.map(|way| until_there(|| BusSubscriber::connect(&name(way)))).transpose()?;
        let outgoing = Box::new([0; WORDS]);
        Ok(Self { out, from, outgoing, wanted_subscribers: case.subscribers })
    }

    #[inline(always)]
    fn send(&mut self, _: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure> {
        fill(bytes_of_mut(&mut self.outgoing));
        self.out.as_mut().ok_or_else(one_way)?.publish(*self.outgoing);
        Ok(())
    }

    #[inline(always)]
    fn try_recv<R>(
        &mut self,
        _: usize,
        mut read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure> {
        let from = self.from.as_mut().ok_or_else(one_way)?;
        Ok(from.try_recv().map(|message| read(bytes_of(&message))))
    }

    /// It does not know; they have all said that they are there.
    fn subscribers(&mut self) -> Result<usize, Failure> {
        Ok(self.wanted_subscribers)
    }
}

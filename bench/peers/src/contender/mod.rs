//! Who is compared: one row of [`TABLE`] and one [`Port`] each.
//!
//! Adding a contender is a file with a `Port`, and a row.

mod bare;
mod crossbar;
mod iceoryx;
mod interprocess;
mod ipc_channel;
mod posix_mq;
mod switchboard;
mod tonic;
mod unix;

use std::ops::RangeInclusive;
use std::path::PathBuf;

pub(crate) use posix_mq::names as queue_names;

use self::switchboard::service::Calls;
use self::switchboard::{AsQueue, AsTopic, Ends, ManyShm, Shm, Unix};
use crate::control::Control;
use crate::job::{Case, Job, Manner, Measure, Report, Side};
use crate::{Failure, side};

/// One end of a contender: it sends to the other side, and receives what that sends.
///
/// Where messages go one way only (all but latency and sleeping), the near end is not asked to receive, nor
/// the far one to send.
pub(crate) trait Port: Sized {
    /// Payload is copied in any case, by the library or by the kernel.
    const COPIES: bool;

    /// A stream is received by calls that sleep when there is nothing, since that is faster.
    const SLEEPS_IN_STREAMS: bool = false;

    /// Makes the end. What the near end sends from then on must not be lost.
    fn open(meeting: &Meeting<'_>) -> Result<Self, Failure>;

    /// Sends a message of so many bytes, a multiple of 8, which `fill` writes.
    fn send(&mut self, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), Failure>;

    /// Sends the messages of these numbers, which `fill` writes.
    #[inline(always)]
    fn send_all(
        &mut self,
        bytes: usize,
        mut numbers: RangeInclusive<u64>,
        mut fill: impl FnMut(&mut [u8], u64),
    ) -> Result<(), Failure> {
        numbers.try_for_each(|number| self.send(bytes, |room| fill(room, number)))
    }

    /// Hands the next message to `read`, if one is there.
    fn try_recv<R>(
        &mut self,
        bytes: usize,
        read: impl FnMut(&[u8]) -> R,
    ) -> Result<Option<R>, Failure>;

    /// Hands the next message to `read`; sleeps until there is one.
    fn recv<R>(&mut self, _bytes: usize, _read: impl FnMut(&[u8]) -> R) -> Result<R, Failure> {
        Err("it only polls".into())
    }

    /// Hands the next message of a stream to `read`, or up to `most` where one call of the library gives
    /// many; waits for the first one. Returns how many there were.
    #[inline(always)]
    fn recv_some(
        &mut self,
        bytes: usize,
        _most: usize,
        mut read: impl FnMut(&[u8]),
    ) -> Result<usize, Failure> {
        if Self::SLEEPS_IN_STREAMS {
            self.recv(bytes, read)?;
            return Ok(1);
        }
        while self.try_recv(bytes, &mut read)?.is_none() {}
        Ok(1)
    }

    /// Called once when both ends are made, before any message, where there are many.
    fn joined(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Sends off what may still wait on this side.
    fn push(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// How many subscribe, as far as this publisher knows.
    fn subscribers(&mut self) -> Result<usize, Failure> {
        Err("it cannot publish to many".into())
    }
}

/// What an end needs to know to find the other one.
pub(crate) struct Meeting<'a> {
    pub(crate) job: &'a Job,
    pub(crate) control: &'a Control,
    /// Nobody else on this machine uses it.
    pub(crate) name: String,
}

impl<'a> Meeting<'a> {
    /// The place of one run, or of one of several meetings in it.
    pub(crate) fn new(job: &'a Job, control: &'a Control, index: usize) -> Self {
        Self { job, control, name: format!("{}{}-{index}", job.prefix, job.run) }
    }

    /// Whether this is the near side, which sends first.
    pub(crate) fn near(&self) -> bool {
        self.job.side == Side::Near
    }

    /// Whether the far side sends too.
    pub(crate) fn both_ways(&self) -> bool {
        matches!(self.job.case.measure, Measure::Latency | Measure::Service | Measure::Sleep)
    }

    /// The ways this side sends on and receives on: 0 from near to far, 1 back.
    pub(crate) fn ways(&self) -> (Option<usize>, Option<usize>) {
        match (self.near(), self.both_ways()) {
            (true, true) => (Some(0), Some(1)),
            (true, false) => (Some(0), None),
            (false, true) => (Some(1), Some(0)),
            (false, false) => (None, Some(0)),
        }
    }

    /// A name in the folder of this measurement.
    pub(crate) fn path(&self, ending: &str) -> PathBuf {
        self.job.folder.join(format!("{}.{ending}", self.name))
    }
}

/// Whether a case is measured.
pub(crate) enum Can {
    Yes,
    /// It is said in the document why not.
    No(&'static str),
    /// The question is not for this contender.
    NotAsked,
}

/// A row.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// No library: what memory or the kernel can do.
    pub(crate) bare: bool,
    pub(crate) can: fn(&Case) -> Can,
    pub(crate) run: fn(&Job) -> Result<Report, Failure>,
}

/// What half a round trip of 8 bytes is compared with.
pub(crate) const LINE: &str = "bare line";
/// What half a round trip of more is compared with.
pub(crate) const HAND_OVER: &str = "bare hand-over";
/// What streams are compared with.
pub(crate) const STREAM: &str = "bare stream";
/// What sleeping is compared with.
pub(crate) const FUTEX: &str = "bare futex";

/// Whose figures are bound.
pub(crate) const SHM_TOPIC: &str = "switchboard shm: topic";
pub(crate) const SHM_MANY: &str = "switchboard shm: topic, many at a time";
pub(crate) const SHM_MANY_WIDE: &str = "switchboard shm: topic, many at a time, ring of 1 MiB";
pub(crate) const SHM_SERVICE: &str = "switchboard shm: service";

/// A ring that the reader's own cache does not hold.
const WIDE_BYTES: usize = 1 << 20;

/// Calls over a Unix socket, as many write them.
pub(crate) const TONIC: &str = "tonic over a unix socket";

/// Everybody.
pub(crate) const TABLE: &[Contender] = &[
    Contender { name: LINE, bare: true, can: bare::line, run: side::run::<bare::Line<false>> },
    Contender {
        name: "bare line, pausing",
        bare: true,
        can: bare::line,
        run: side::run::<bare::Line<true>>,
    },
    Contender {
        name: HAND_OVER,
        bare: true,
        can: bare::hand_over,
        run: bare::run_hand_over::<false>,
    },
    Contender {
        name: "bare hand-over, pausing",
        bare: true,
        can: bare::hand_over,
        run: bare::run_hand_over::<true>,
    },
    Contender { name: STREAM, bare: true, can: bare::stream, run: side::run::<bare::Stream> },
    Contender { name: FUTEX, bare: true, can: bare::futex, run: side::run::<bare::Futex> },
    Contender {
        name: SHM_TOPIC,
        bare: false,
        can: switchboard::can::<Shm, AsTopic>,
        run: side::run::<Ends<Shm, AsTopic>>,
    },
    Contender {
        name: SHM_MANY,
        bare: false,
        can: switchboard::can::<ManyShm<0>, AsTopic>,
        run: side::run::<Ends<ManyShm<0>, AsTopic>>,
    },
    Contender {
        name: SHM_MANY_WIDE,
        bare: false,
        can: switchboard::can::<ManyShm<WIDE_BYTES>, AsTopic>,
        run: side::run::<Ends<ManyShm<WIDE_BYTES>, AsTopic>>,
    },
    Contender {
        name: "switchboard shm: queue",
        bare: false,
        can: switchboard::can::<Shm, AsQueue>,
        run: side::run::<Ends<Shm, AsQueue>>,
    },
    Contender {
        name: SHM_SERVICE,
        bare: false,
        can: switchboard::service::can::<Shm>,
        run: side::run::<Calls<Shm>>,
    },
    Contender {
        name: "switchboard unix: service",
        bare: false,
        can: switchboard::service::can::<Unix>,
        run: side::run::<Calls<Unix>>,
    },
    Contender {
        name: "switchboard unix: topic",
        bare: false,
        can: switchboard::can::<Unix, AsTopic>,
        run: side::run::<Ends<Unix, AsTopic>>,
    },
    Contender {
        name: "switchboard unix: queue",
        bare: false,
        can: switchboard::can::<Unix, AsQueue>,
        run: side::run::<Ends<Unix, AsQueue>>,
    },
    Contender {
        name: "iceoryx2",
        bare: false,
        can: iceoryx::can_publish,
        run: side::run::<iceoryx::Topic>,
    },
    Contender {
        name: "iceoryx2 request",
        bare: false,
        can: iceoryx::can_request,
        run: side::run::<iceoryx::Service>,
    },
    Contender { name: TONIC, bare: false, can: tonic::can, run: tonic::run },
    Contender {
        name: "crossbar",
        bare: false,
        can: crossbar::can_publish,
        run: side::run::<crossbar::Topic>,
    },
    Contender {
        name: "crossbar pinned",
        bare: false,
        can: crossbar::can_pin,
        run: side::run::<crossbar::Pinned>,
    },
    Contender { name: "crossbar bus", bare: false, can: crossbar::can_bus, run: crossbar::run_bus },
    Contender {
        name: "ipc-channel",
        bare: false,
        can: copying,
        run: side::run::<ipc_channel::Channel>,
    },
    Contender {
        name: "interprocess",
        bare: false,
        can: copying,
        run: side::run::<interprocess::Local>,
    },
    Contender { name: "unix stream", bare: false, can: copying, run: side::run::<unix::Stream> },
    Contender {
        name: "unix seqpacket",
        bare: false,
        can: copying,
        run: side::run::<unix::Seqpacket>,
    },
    Contender {
        name: "posix queue",
        bare: false,
        can: posix_mq::can,
        run: side::run::<posix_mq::Queues>,
    },
];

/// Does a job.
pub(crate) fn run(job: &Job) -> Result<Report, Failure> {
    let contender = TABLE
        .iter()
        .find(|contender| contender.name == job.contender)
        .ok_or_else(|| format!("no such contender: {}", job.contender))?;
    (contender.run)(job)
}

/// Of what is asked for the way that it does not go.
fn one_way() -> Failure {
    "this end goes the other way only".into()
}

/// Messages that wait for a reader where the library lets one choose: about a hundred KiB, but enough not to
/// wait for each other at every turn.
fn depth(bytes: usize) -> u32 {
    if bytes <= 1024 { 1024 } else { 16 }
}

/// Of what copies, and has one receiver per connection.
fn copying(case: &Case) -> Can {
    match case {
        Case { measure: Measure::Service, .. } => Can::NotAsked,
        Case { measure: Measure::Publish, .. } => Can::No("no publishing to many"),
        Case { manner: Manner::InPlace | Manner::Untouched, .. } => Can::No("cannot loan"),
        _ => Can::Yes,
    }
}

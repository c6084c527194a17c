//! How large the parts are, and how they are made.

use switchboard_kernel::membarrier;
use switchboard_kernel::shared_memory::{Doorbell, OwnMemory};
use switchboard_shm::barrier::Busy;
use switchboard_shm::cursor::OwnCursor;
use switchboard_shm::feed::FeedWriter;
use switchboard_shm::layout::{self, PAGE_BYTES, writer};
use switchboard_shm::ring::RingWriter;

use super::memory::{Bell, Own};
use crate::error::{Error, ErrorKind};
use crate::transport::Setup;

/// The patterns, as they stand in memory and in a hello.
pub(super) const QUEUE: u32 = 1;
pub(super) const TOPIC: u32 = 2;

/// Of a ring, in bytes, unless asked otherwise.
const CAPACITY_BYTES: u64 = 32 << 10;

/// Bytes of a writer's memory that a reader takes.
pub(super) const RING_BYTES: std::ops::RangeInclusive<usize> =
    layout::writer_bytes(*writer::CAPACITY_BYTES.start() as usize)
        ..=layout::writer_bytes(*writer::CAPACITY_BYTES.end() as usize);

/// The largest payload of a frame of this endpoint's rings.
pub(super) fn largest_payload(setup: &Setup) -> u64 {
    switchboard_shm::ring::largest_payload(capacity_bytes(setup).unwrap_or(CAPACITY_BYTES))
}

/// A new ring, of the capacity that is asked for.
pub(super) fn ring(setup: &Setup, pattern: u32, lossy: bool) -> Result<RingWriter<Own>, Error> {
    let capacity = capacity_bytes(setup)?;
    let bytes = layout::writer_bytes(capacity as usize);
    let memory = OwnMemory::create("switchboard-ring", bytes)
        .map_err(|error| setup.system("no memory for a ring", error))?;
    RingWriter::create(Own(memory), pattern, capacity, lossy, busy())
        .map_err(|error| Error::new(ErrorKind::System, &setup.address, error.0))
}

fn capacity_bytes(setup: &Setup) -> Result<u64, Error> {
    let asked = setup.address.query.capacity_bytes.or(setup.options.capacity_bytes);
    let wanted = asked.map_or(CAPACITY_BYTES, u64::from);
    let (least, most) = (*writer::CAPACITY_BYTES.start(), *writer::CAPACITY_BYTES.end());
    if wanted > most {
        let problem = format!("a ring of {wanted} bytes; at most {most} are possible");
        return Err(Error::new(ErrorKind::NotSupported, &setup.address, problem)
            .hint("say less with ?capacity=; large messages do not need a large ring"));
    }
    Ok(wanted.next_power_of_two().max(least))
}

/// What this process does between storing something and looking whether somebody sleeps for it.
fn busy() -> Busy {
    if membarrier::take_part() { Busy::TakesPart } else { Busy::Fences }
}

/// Entries of an event or a state, unless asked otherwise.
const ENTRIES: u32 = 1024;

/// A new feed, with room for as many entries as are asked for.
pub(super) fn feed(setup: &Setup, pattern: u32) -> Result<FeedWriter<Own>, Error> {
    let entries = u64::from(setup.address.query.keys.unwrap_or(ENTRIES));
    let bytes = layout::feed::bytes(entries);
    let memory = OwnMemory::create("switchboard-feed", bytes as usize)
        .map_err(|error| setup.system("no memory for a feed", error))?;
    FeedWriter::create(Own(memory), pattern, entries, busy())
        .map_err(|error| Error::new(ErrorKind::System, &setup.address, error.0))
}

/// A new doorbell.
pub(super) fn bell(setup: &Setup) -> Result<Bell, Error> {
    Doorbell::create().map(Bell).map_err(|error| setup.system("no memory for a doorbell", error))
}

/// A new reader's page.
pub(super) fn page() -> switchboard_kernel::Result<OwnCursor<Own>> {
    OwnMemory::create("switchboard-reader", PAGE_BYTES)
        .map(|memory| OwnCursor::create(Own(memory), busy()))
}

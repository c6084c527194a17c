//! Death at every instruction: a publisher is killed, or stopped, while it appends a message or a batch.

use std::ops::RangeInclusive;

use switchboard::{Bytes, Publisher, Topic};
use switchboard_testkit::killstep::{self, Access, Boundary, Depth, How, Kind, Plan};
use switchboard_testkit::{Child, Scratch, share};

use super::crash::check_writer;
use super::{payload, publish, read_topic};

const HEADER_BYTES: u64 = 64;
/// Where the bell says how far the lanes are.
const ENDS: std::ops::Range<u64> = 1024..2048;

/// Role: publishes messages before this number, then this one under the harness's eyes.
pub(crate) fn publisher(arguments: &[String]) {
    let number: u64 = arguments[1].parse().expect("a number");
    let topic = Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let mut publisher: Publisher<Bytes> = topic.publisher().expect("a publisher");
    for n in 1..number {
        publisher.send(&Bytes(payload(n))).expect("published");
    }
    let message = Bytes(payload(number));
    killstep::begin();
    publisher.send(&message).expect("published");
    killstep::end();
    publisher.finish().expect("closed");
}

/// Role: publishes a batch of so many messages, then another one, which it pushes under the harness's eyes.
pub(crate) fn batch_publisher(arguments: &[String]) {
    let batch: u64 = arguments[1].parse().expect("a number");
    let topic = Topic::<Bytes>::open(&arguments[0]).expect("a topic");
    let mut publisher: Publisher<Bytes> = topic.publisher().expect("a publisher");
    let feed = |publisher: &mut Publisher<Bytes>, numbers: RangeInclusive<u64>| {
        numbers.for_each(|n| publisher.feed(&payload(n)).expect("taken"));
    };
    feed(&mut publisher, 1..=batch);
    publisher.push().expect("pushed");
    feed(&mut publisher, batch + 1..=2 * batch);
    killstep::begin();
    publisher.push().expect("pushed");
    killstep::end();
    publisher.finish().expect("closed");
}

struct World {
    scratch: Scratch,
    address: String,
}

impl World {
    fn new(query: &str) -> Self {
        let scratch = Scratch::new();
        let address = format!("file:{}?{query}", scratch.join("log").display());
        Self { scratch, address }
    }

    fn segments(&self) -> usize {
        let entries = std::fs::read_dir(self.scratch.join("log")).expect("a folder").flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "seg")).count()
    }
}

/// What a publisher does that is killed.
struct Appending {
    what: &'static str,
    query: &'static str,
    role: &'static str,
    /// What the role is told besides the address.
    argument: u64,
    /// Messages that are there before it and after it.
    before: u64,
    after: u64,
}

impl Appending {
    fn message(what: &'static str, number: u64) -> Self {
        let (role, before) = ("log-killstep", number - 1);
        Self { what, query: "segment=4096", role, argument: number, before, after: number }
    }

    fn batch(what: &'static str, query: &'static str, batch: u64) -> Self {
        let role = "log-killstep-batch";
        Self { what, query, role, argument: batch, before: batch, after: 2 * batch }
    }
}

impl Plan for Appending {
    type World = World;

    fn name(&self) -> String {
        format!("log, {}", self.what)
    }

    fn prepare(&self) -> World {
        World::new(self.query)
    }

    fn victim(&self, world: &mut World) -> Child {
        Child::role(self.role, &[&world.address, &self.argument.to_string()])
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        // Another one has a lane of its own, and nobody who reads is hindered.
        let seen = read_topic(&world.address).messages.len() as u64;
        if seen != self.after && seen != self.before {
            return Err(format!("{seen} messages"));
        }
        Ok(())
    }

    fn check(&self, world: &mut World, at: &Boundary) -> Result<(), String> {
        let acknowledged = if at.is_end() { self.after } else { self.before };
        let said = [format!("acknowledged {acknowledged}")];
        let seen = check_writer(&world.address, self.after, &said, "the next one");
        if seen != self.after && seen != self.before {
            return Err(format!("{seen} messages"));
        }
        Ok(())
    }

    /// A segment's header was written before it was mapped; the bell is counted up, or looked at, and says
    /// how far the lane is.
    fn allowed(&self, access: &Access) -> bool {
        let is_segment = access.file.extension().is_some_and(|end| end == "seg");
        if is_segment && access.kind.writes() {
            access.offset_bytes >= HEADER_BYTES
        } else {
            access.kind != Kind::Store || ENDS.contains(&access.offset_bytes)
        }
    }
}

/// The number of the first message that makes a segment.
fn first_of_second_segment() -> u64 {
    let world = World::new("segment=4096");
    let mut number = 0;
    loop {
        number += 1;
        publish(&world.address, number..number + 1);
        if world.segments() > 1 {
            return number;
        }
    }
}

#[test]
fn a_publisher_killed_anywhere_leaves_whole_messages() {
    if killstep::refused("a_publisher_killed_anywhere_leaves_whole_messages") {
        return;
    }
    let plans = [
        Appending::message("send", 4),
        Appending::message("send into a new segment", first_of_second_segment()),
        Appending::batch("push, written", "segment=64KiB&durability=written", 150),
        Appending::batch("push, synced", "segment=64KiB&durability=synced", 10),
    ];
    for (_, plan) in plans.into_iter().enumerate().filter(|(number, _)| share::is_mine(*number)) {
        let report = killstep::run(&plan, How::Kill, Depth::from_environment());
        report.expect_clean();
        // Of a batch, which is committed by a call, it is how far the lane is.
        let last = report.accesses.iter().rfind(|access| access.changed).expect("a store");
        assert_eq!((last.kind, last.len_bytes), (Kind::Store, 8), "the commit word: {last}");
        killstep::run(&plan, How::Stop, Depth::from_environment()).expect_clean();
    }
}

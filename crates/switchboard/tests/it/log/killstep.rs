//! Death at every instruction: a publisher is killed, or stopped, while it appends a message.

use switchboard::{Bytes, Publisher, Topic};
use switchboard_testkit::killstep::{self, Access, Boundary, Depth, How, Kind, Plan};
use switchboard_testkit::{Child, Scratch};

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

struct Appending {
    what: &'static str,
    number: u64,
}

struct World {
    scratch: Scratch,
    address: String,
}

impl World {
    fn new() -> Self {
        let scratch = Scratch::new();
        let address = format!("file:{}?segment=4096", scratch.join("log").display());
        Self { scratch, address }
    }

    fn segments(&self) -> usize {
        let entries = std::fs::read_dir(self.scratch.join("log")).expect("a folder").flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "seg")).count()
    }
}

impl Plan for Appending {
    type World = World;

    fn name(&self) -> String {
        format!("log, {}", self.what)
    }

    fn prepare(&self) -> World {
        World::new()
    }

    fn victim(&self, world: &mut World) -> Child {
        Child::role("log-killstep", &[&world.address, &self.number.to_string()])
    }

    fn while_stopped(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        // Another one has a lane of its own, and nobody who reads is hindered.
        let before = read_topic(&world.address).messages.len() as u64;
        if before != self.number && before + 1 != self.number {
            return Err(format!("{before} messages"));
        }
        Ok(())
    }

    fn check(&self, world: &mut World, at: &Boundary) -> Result<(), String> {
        let acknowledged = if at.is_end() { self.number } else { self.number - 1 };
        let before = read_topic(&world.address);
        if !before.reports.is_empty() || before.missing > 0 {
            return Err(format!("{before:?}"));
        }
        if before.messages.len() as u64 > self.number {
            return Err(format!("{} messages", before.messages.len()));
        }
        check_writer(&world.address, &[format!("acknowledged {acknowledged}")], "the next one");
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
    let world = World::new();
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
    for plan in [
        Appending { what: "send", number: 4 },
        Appending { what: "send into a new segment", number: first_of_second_segment() },
    ] {
        let report = killstep::run(&plan, How::Kill, Depth::from_environment());
        report.expect_clean();
        let last = report.accesses.iter().rfind(|access| access.changed).expect("a store");
        assert_eq!((last.kind, last.len_bytes), (Kind::Store, 8), "the commit word: {last}");
        killstep::run(&plan, How::Stop, Depth::from_environment()).expect_clean();
    }
}

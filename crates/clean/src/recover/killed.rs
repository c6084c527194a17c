//! Death at every system call of a removal, and of the recovery from one that was killed; and at every store of what takes messages out. Whoever comes
//! last finds each message once, and in order.
//!
//! Source: docs/design/clean.md, "Killed in the middle"; docs/design/killstep.md.

use std::path::PathBuf;
use std::time::Duration;

use switchboard_inspect::Kind;
use switchboard_kernel::Permissions;
use switchboard_kernel::posix_mq::{self, Access, CreateOptions, MessageQueue};
use switchboard_testkit::child::Role;
use switchboard_testkit::killstep::{self, Boundary, Depth, How, Plan};
use switchboard_testkit::{Child, Scratch, unique};

use super::recover;
use crate::journal::{Entry, Line, Size, State, TakenFrames};
use crate::remove::{Options, join, remove};
use crate::restore::restore;
use crate::target::{Place, Target};
use crate::{Journal, Limits};

pub(crate) const ROLES: &[(&str, Role)] =
    &[("recovers", recovers), ("joins", joins), ("removes", removes)];

const NOW: Options = Options { min_age: Duration::ZERO, partial: true };
const LONGEST: u32 = 99;
/// As they are received. Two of one priority; one that is all zeroes in a journal that forgets to say more.
const MESSAGES: [(&[u8], u32); 5] =
    [(b"high, first", 9), (b"", 9), (b"\xff\xff\xff", 4), (b"ends with zeroes\0\0", 4), (b"", 0)];
const VISITOR: (&[u8], u32) = (b"from one who came in between", 0);

fn journal(state: &str) -> Journal {
    Journal::open_in(state.as_ref()).expect("a journal")
}

fn recovers(arguments: &[String]) {
    let journal = journal(&arguments[0]);
    killstep::begin();
    let done = recover(&journal);
    killstep::end();
    done.expect("a journal");
}

fn joins(arguments: &[String]) {
    let queue = MessageQueue::open(&arguments[1], Access::Both).expect("a queue");
    let run = &journal(&arguments[0]).runs().expect("runs")[0];
    let run = journal(&arguments[0]).read(run).expect("a run");
    let body = run.body(1).expect("a body");
    killstep::begin();
    let done = join(&queue, &body);
    killstep::end();
    done.expect("joined");
}

fn removes(arguments: &[String]) {
    let target = target(&arguments[1]);
    let mut run = journal(&arguments[0]).begin(Limits::default()).expect("a run");
    killstep::begin();
    let done = remove(&mut run, &target, &[], NOW);
    killstep::end();
    done.expect("removed");
}

fn target(name: &str) -> Target {
    let queue = MessageQueue::open(name, Access::Both).expect("a queue");
    let found = rustix::fs::fstat(&queue).expect("a status");
    let (major, minor) = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
    let (object, place) = ("mq:x".to_owned(), Place::Queue(name.to_owned()));
    Target { object, kind: Kind::Mq, place, file: Some((major, minor, found.st_ino)) }
}

/// A journal, and a queue with messages.
struct World {
    scratch: Scratch,
    name: String,
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = posix_mq::unlink(&self.name);
    }
}

impl World {
    fn new() -> Self {
        let world = Self { scratch: Scratch::new(), name: format!("/{}", unique("killed")) };
        let options = CreateOptions::new().max_messages(8).message_size_bytes(LONGEST);
        let options = options.permissions(Permissions::new().mode(0o640));
        let queue = MessageQueue::create(&world.name, Access::Both, &options).expect("a queue");
        for at in [4, 2, 0, 3, 1] {
            queue.send(MESSAGES[at].0, MESSAGES[at].1).expect("sent");
        }
        world
    }

    fn state(&self) -> String {
        self.scratch.join("state").to_str().expect("text").to_owned()
    }

    fn journal(&self) -> Journal {
        journal(&self.state())
    }

    fn queue(&self) -> MessageQueue {
        MessageQueue::open(&self.name, Access::Both).expect("a queue")
    }

    fn child(&self, role: &str) -> Child {
        Child::role(role, &[&self.state(), &self.name])
    }

    /// As a run leaves it that was killed when it had taken so many messages, and perhaps one more of which it had not said how long it is.
    fn interrupted(&self, taken: usize, one_more: bool) {
        let queue = self.queue();
        let found = rustix::fs::fstat(&queue).expect("a status");
        let run = &mut self.journal().begin(Limits::default()).expect("a run");
        let number = run.number().expect("a number");
        let waiting = u32::try_from(MESSAGES.len()).expect("few");
        let entry = Entry {
            number,
            object: "mq:x".to_owned(),
            kind: Kind::Mq,
            place: Place::Queue(self.name.clone()),
            key: 0,
            identity: (found.st_dev, found.st_ino),
            owner: found.st_uid,
            group: found.st_gid,
            mode: found.st_mode & 0o777,
            size: Size::Messages(8, LONGEST, waiting),
            reasons: Vec::new(),
        };
        run.enter(entry, None).expect("entered");
        let body = run.body(number, 10_000).expect("a body");
        let mut frames = TakenFrames::new(&body, waiting, LONGEST).expect("room");
        for _ in 0..taken {
            assert!(frames.receive(&queue).expect("received"));
        }
        if one_more {
            frames.take(&queue).expect("received").expect("a message");
        }
    }

    /// What is in the queue at the end, which is emptied by that.
    fn all(&self) -> Vec<(Vec<u8>, u32)> {
        let (queue, mut found) = (self.queue(), Vec::new());
        let mut buffer = [0; LONGEST as usize];
        while let Ok((len, priority)) = queue.try_recv(&mut buffer) {
            found.push((buffer[..len].to_vec(), priority));
        }
        found
    }

    /// The last one recovers, and restores what was removed: each message is there, once, and in order.
    fn is_whole(&self, visited: bool) -> Result<(), String> {
        let journal = self.journal();
        if visited && let Ok(queue) = MessageQueue::open(&self.name, Access::Send) {
            queue.try_send(VISITOR.0, VISITOR.1).map_err(|error| error.to_string())?;
        }
        for done in recover(&journal).map_err(|error| error.to_string())? {
            done.outcome.map_err(|error| error.to_string())?;
        }
        if !recover(&journal).map_err(|error| error.to_string())?.is_empty() {
            return Err("something was left to do".to_owned());
        }
        for name in journal.runs().map_err(|error| error.to_string())? {
            let run = journal.read(&name).map_err(|error| error.to_string())?;
            if run.objects.get(&1).is_some_and(|kept| kept.state == State::Removed) {
                let restored = restore(&run, 1).map_err(|error| error.to_string())?;
                if restored.lost != Vec::<String>::new() {
                    return Err(format!("{restored:?}"));
                }
            }
        }
        let mode = rustix::fs::fstat(self.queue()).map_err(|error| error.to_string())?.st_mode;
        if mode & 0o777 != 0o640 {
            return Err(format!("mode {mode:o}"));
        }
        let mut found = self.all();
        let visitor = (VISITOR.0.to_vec(), VISITOR.1);
        let of_visitor = found.iter().filter(|one| **one == visitor).count();
        found.retain(|one| *one != visitor);
        // Whether the last one was put back cannot be told where others use the queue: it may be there twice.
        let expected = MESSAGES.map(|(text, priority)| (text.to_vec(), priority));
        let twice = (0..expected.len()).find(|&at| {
            let mut expected = expected.to_vec();
            expected.insert(at, expected[at].clone());
            found == expected
        });
        match found == expected || (visited && twice.is_some()) {
            true if of_visitor <= usize::from(visited) => Ok(()),
            _ => Err(format!("{found:?}, and {of_visitor} of the visitor")),
        }
    }
}

/// An interrupted run, and what the next one does about it.
struct Interrupted {
    role: &'static str,
    taken: usize,
    one_more: bool,
    visited: bool,
}

impl Plan for Interrupted {
    type World = World;

    fn name(&self) -> String {
        let more = if self.one_more { " and one half" } else { "" };
        let visited = if self.visited { ", used by others" } else { "" };
        format!("a queue, {}, {} messages taken{more}{visited}", self.role, self.taken)
    }

    fn prepare(&self) -> World {
        let world = World::new();
        world.interrupted(self.taken, self.one_more);
        world
    }

    fn shared(&self, world: &mut World) -> Vec<PathBuf> {
        let state = PathBuf::from(world.state()).join("switchboard/clean");
        let run = &world.journal().runs().expect("runs")[0];
        vec![state.join(run).join("00001.body")]
    }

    fn victim(&self, world: &mut World) -> Child {
        world.child(self.role)
    }

    fn check(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        world.is_whole(self.visited)
    }
}

struct Removing;

impl Plan for Removing {
    type World = World;

    fn name(&self) -> String {
        "a queue is removed".to_owned()
    }

    fn prepare(&self) -> World {
        World::new()
    }

    fn victim(&self, world: &mut World) -> Child {
        world.child("removes")
    }

    fn check(&self, world: &mut World, _: &Boundary) -> Result<(), String> {
        world.is_whole(false)
    }
}

/// The first kill: of a removal.
#[test]
fn killstep_of_a_removal_loses_no_message() {
    if killstep::refused("killstep_of_a_removal_loses_no_message") {
        return;
    }
    killstep::run_calls(&Removing, How::Kill, Depth::sampled(60)).expect_clean();
}

/// The second kill: of the recovery, whose log and body say where the next one goes on.
#[test]
fn killstep_of_a_recovery_loses_no_message() {
    if killstep::refused("killstep_of_a_recovery_loses_no_message") {
        return;
    }
    let calls = [(0, false, false), (2, false, false), (2, true, false), (5, false, true)];
    for (taken, one_more, visited) in calls {
        let plan = Interrupted { role: "recovers", taken, one_more, visited };
        killstep::run_calls(&plan, How::Kill, Depth::sampled(40)).expect_clean();
    }
}

/// At stores into the journal while messages are taken; at all of them, if every boundary is asked for: between those the world is the same.
#[test]
fn killstep_of_taking_messages_loses_none() {
    if killstep::refused("killstep_of_taking_messages_loses_none") {
        return;
    }
    let plan = Interrupted { role: "joins", taken: 1, one_more: true, visited: false };
    let all = Depth::from_environment() == Depth::Every;
    let depth = if all { Depth::Quick } else { Depth::Sample(60) };
    killstep::run(&plan, How::Kill, depth).expect_clean();
}

/// A queue that somebody removes after a run was killed: what was taken out of it is not lost.
#[test]
fn of_a_queue_that_is_gone_what_was_taken_comes_back() {
    let world = World::new();
    world.interrupted(2, true);
    posix_mq::unlink(&world.name).expect("unlinked");
    let journal = world.journal();
    let done = recover(&journal).expect("a journal");
    assert_eq!(done[0].outcome, Ok(super::REMOVED));
    let run = journal.read(&journal.runs().expect("runs")[0]).expect("a run");
    let restored = restore(&run, 1).expect("restored");
    let lost = "2 of its 5 messages were in it still when somebody else removed it";
    assert_eq!(restored.lost, [lost]);
    let first = MESSAGES[..3].iter().map(|(text, priority)| (text.to_vec(), *priority));
    assert_eq!(world.all(), first.collect::<Vec<_>>());
}

/// A queue of the same name that its owner may only write to is another one, and stays.
#[test]
fn another_queue_of_the_name_stays() {
    let world = World::new();
    world.interrupted(1, false);
    let name = journal(&world.state()).runs().expect("runs").remove(0);
    let run = world.journal().read(&name).expect("a run");
    run.write(&Line::Removing { number: 1 }).expect("written");
    drop(run);
    posix_mq::unlink(&world.name).expect("unlinked");
    let permissions = Permissions::new().mode(0o200);
    let options = CreateOptions::new().permissions(permissions);
    let queue = MessageQueue::create(&world.name, Access::Send, &options).expect("a queue");
    queue.send(b"new", 1).expect("sent");
    let _ = recover(&world.journal()).expect("a journal");
    let there = MessageQueue::open(&world.name, Access::Send).expect("it is there");
    assert_eq!(there.attributes().expect("attributes").waiting_messages, 1);
}

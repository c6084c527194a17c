//! What the tests share: a journal of their own, objects as a snapshot shows them, processes that have some.

use std::time::{Duration, Instant};

use switchboard_clean::error::Reason;
use switchboard_clean::remove::{Options, Removed, remove};
use switchboard_clean::restore::{Restored, restore};
use switchboard_clean::{Error, Journal, Limits, Target};
use switchboard_inspect::{Kind, Object, Request};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

/// A journal in a folder that goes away.
pub(crate) struct Stage {
    scratch: Scratch,
    pub(crate) journal: Journal,
}

/// No minimum age; nothing that cannot be seen is in the way.
pub(crate) const NOW: Options = Options { min_age: Duration::ZERO, partial: true };

impl Stage {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        let journal = Journal::open_in(&scratch.join("state")).expect("a journal");
        Self { scratch, journal }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.scratch.join(name)
    }

    /// Removes an object in a run of its own, whose name is given back.
    pub(crate) fn remove(&self, target: &Target) -> (String, Result<Removed, Error>) {
        self.remove_within(target, Limits::default())
    }

    pub(crate) fn remove_within(
        &self,
        target: &Target,
        limits: Limits,
    ) -> (String, Result<Removed, Error>) {
        let mut run = self.journal.begin(limits).expect("a run");
        let name = run.name().to_owned();
        let done = remove(&mut run, target, &["nobody has it".to_owned()], NOW);
        run.end().expect("ended");
        (name, done)
    }

    /// As [`Stage::remove`], of what nobody has for long: a child that another test starts at this moment has copies of
    /// this process' descriptors until it runs its own program.
    pub(crate) fn remove_at_last(&self, target: &Target) -> (String, Result<Removed, Error>) {
        self.remove_at_last_within(target, Limits::default())
    }

    pub(crate) fn remove_at_last_within(
        &self,
        target: &Target,
        limits: Limits,
    ) -> (String, Result<Removed, Error>) {
        let until = Instant::now() + DEADLINE;
        loop {
            let (run, done) = self.remove_within(target, limits);
            let is_in_use = matches!(&done, Err(error) if error.reason() == Reason::InUse);
            if !is_in_use || Instant::now() >= until {
                return (run, done);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn restore(&self, run: &str) -> Result<Restored, Error> {
        let run = self.journal.read(run).expect("a run");
        restore(&run, 1)
    }
}

/// The object of this kind that fits, as a look at the machine shows it.
pub(crate) fn seen(kind: Kind, fits: impl Fn(&Object) -> bool) -> Target {
    let snapshot = Request::of([kind]).details().take();
    let object = snapshot.objects.iter().find(|object| object.kind == kind && fits(object));
    Target::of(object.expect("it is seen")).expect("it can be removed")
}

/// Waits until the times of System V objects are old enough to tell by.
pub(crate) fn grow_old() {
    std::thread::sleep(Duration::from_millis(3100));
}

/// Has something until its input ends.
pub(crate) fn holder(arguments: &[String]) {
    use switchboard_kernel::{posix_mq, posix_shm, sysv_msg, sysv_sem, sysv_shm};
    let [what, name] = arguments else { return };
    let id = || name.parse().expect("an id");
    let shared = || posix_shm::Segment::open(name, posix_shm::Access::ReadWrite).expect("open");
    let _held: Box<dyn std::any::Any> = match what.as_str() {
        "attached" => {
            let segment = sysv_shm::Segment::from_id(id());
            Box::new(segment.attach(sysv_shm::Access::ReadOnly).expect("attached"))
        }
        "mapped" => {
            Box::new(shared().map(switchboard_kernel::mmap::Mode::ReadOnly).expect("mapped"))
        }
        "open" => Box::new(shared()),
        "queue" => {
            Box::new(posix_mq::MessageQueue::open(name, posix_mq::Access::Receive).expect("open"))
        }
        "fifo" => Box::new(switchboard_kernel::fifo::open_reader(name.as_ref()).expect("open")),
        "socket" => Box::new(std::os::unix::net::UnixListener::bind(name).expect("bound")),
        "datagrams" => Box::new(std::os::unix::net::UnixDatagram::bind(name).expect("bound")),
        "waits for a message" => {
            report("ready");
            let queue = sysv_msg::MessageQueue::from_id(id());
            let mut buffer = sysv_msg::Buffer::with_capacity(64);
            let received = queue.recv(sysv_msg::Select::Any, &mut buffer);
            report(received.map_or_else(|error| error.name().to_owned(), |kind| kind.to_string()));
            return;
        }
        "used a count" => {
            let set = sysv_sem::SemaphoreSet::from_id(id());
            set.operate(&[sysv_sem::Operation::change(1, -1).undo()]).expect("taken");
            Box::new(set)
        }
        "waits for a count" => {
            report("ready");
            let set = sysv_sem::SemaphoreSet::from_id(id());
            let taken = set.operate(&[sysv_sem::Operation::take_one(0)]);
            report(taken.map_or_else(|error| error.name().to_owned(), |()| "taken".to_owned()));
            return;
        }
        other => panic!("no {other}"),
    };
    report("ready");
    let _ = instruction();
}

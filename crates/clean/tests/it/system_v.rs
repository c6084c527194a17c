//! System V memory, queues and semaphores.

use switchboard_clean::Target;
use switchboard_clean::error::Reason;
use switchboard_clean::target::Place;
use switchboard_inspect::Kind;
use switchboard_kernel::Permissions;
use switchboard_kernel::sysv_msg::{self, Buffer, MessageQueue, Select};
use switchboard_kernel::sysv_sem::{self, SemaphoreSet};
use switchboard_kernel::sysv_shm::{self, Access, Segment};
use switchboard_testkit::{Child, DEADLINE};

use crate::stage::{Stage, grow_old};

fn target(kind: Kind, id: i32) -> Target {
    Target { object: format!("{kind}:{id}"), kind, place: Place::Id(id), file: None }
}

/// A key that nobody else uses.
fn key() -> i32 {
    let mut bytes = [0; 4];
    switchboard_kernel::random::fill(&mut bytes).expect("random bytes");
    i32::from_ne_bytes(bytes) | 1
}

/// Removes what it names when it is dropped, if it is there.
struct Goes<F: Fn()>(F);

impl<F: Fn()> Drop for Goes<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_segment() {
    let stage = Stage::new();
    let key = key();
    let options =
        sysv_shm::CreateOptions::new().exclusive(true).permissions(Permissions::new().mode(0o640));
    let segment = Segment::create(&sysv_shm::Key::Value(key), 70_000, &options).expect("a segment");
    let _goes = Goes(move || {
        if let Ok(segment) = Segment::open(&sysv_shm::Key::Value(key)) {
            let _ = segment.remove();
        }
    });
    let memory = segment.attach(Access::ReadWrite).expect("attached");
    memory.write_at(69_990, b"the end").expect("written");
    drop(memory);
    let target = target(Kind::SysvShm, segment.id());
    let mut child = Child::role("clean-holder", &["attached", &segment.id().to_string()]);
    child.expect("ready");
    let (_, done) = stage.remove(&target);
    assert_eq!(done.expect_err("attached").reason(), Reason::InUse);
    assert_eq!(segment.status().expect("there").mode, 0o640);
    child.kill();
    let (run, done) = stage.remove(&target);
    assert_eq!(done.expect("removed").kept_bytes, 70_000);
    assert_eq!(Segment::open(&sysv_shm::Key::Value(key)).expect_err("gone").name(), "ENOENT");
    stage.restore(&run).expect("restored");
    let again = Segment::open(&sysv_shm::Key::Value(key)).expect("there");
    let status = again.status().expect("there");
    assert_eq!((status.len_bytes, status.mode), (70_000, 0o640));
    let mut end = [0; 7];
    let memory = again.attach(Access::ReadOnly).expect("attached");
    memory.read_at(69_990, &mut end).expect("read");
    assert_eq!(&end, b"the end");
}

#[test]
fn a_queue() {
    let stage = Stage::new();
    let key = key();
    let options = sysv_msg::CreateOptions::new().exclusive(true);
    let made = MessageQueue::create(&sysv_msg::Key::Value(key), &options).expect("a queue");
    let _goes = Goes(move || {
        if let Ok(queue) = MessageQueue::open(&sysv_msg::Key::Value(key)) {
            let _ = queue.remove();
        }
    });
    grow_old();
    let target = target(Kind::SysvMsg, made.id());
    let mut child = Child::role("clean-holder", &["waits for a message", &made.id().to_string()]);
    child.expect("ready");
    let until = std::time::Instant::now() + DEADLINE;
    while !sleeps_in(child.id(), "msgrcv") {
        assert!(std::time::Instant::now() < until, "it waits");
        std::thread::yield_now();
    }
    let (_, done) = stage.remove(&target);
    assert_eq!(done.expect_err("somebody waits").reason(), Reason::InUse);
    made.send(8, b"for the child").expect("sent");
    child.expect("8");
    let messages = [(3, &b"three"[..]), (1, b""), (3, b"\0\xff"), (i64::MAX, b"last")];
    for (kind, text) in messages {
        made.send(kind, text).expect("sent");
    }
    assert_eq!(stage.remove(&target).1.expect_err("young").reason(), Reason::Young);
    grow_old();
    let (run, done) = stage.remove(&target);
    done.expect("removed");
    assert_eq!(MessageQueue::open(&sysv_msg::Key::Value(key)).expect_err("gone").name(), "ENOENT");
    stage.restore(&run).expect("restored");
    let again = MessageQueue::open(&sysv_msg::Key::Value(key)).expect("there");
    let mut buffer = Buffer::with_capacity(64);
    for (kind, text) in messages {
        assert_eq!(again.try_recv(Select::Any, &mut buffer).expect("a message"), kind);
        assert_eq!(buffer.text(), text);
    }
    assert_eq!(again.try_recv(Select::Any, &mut buffer).expect_err("empty").name(), "ENOMSG");
}

/// Whether the first thread of a process sleeps in this function of the kernel's, or in the call itself.
fn sleeps_in(pid: u32, call: &str) -> bool {
    let number = if cfg!(target_arch = "x86_64") {
        [("msgrcv", 70), ("semop", 65), ("semtimedop", 220)]
    } else {
        [("msgrcv", 188), ("semop", 193), ("semtimedop", 192)]
    };
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    tasks.filter_map(Result::ok).any(|task| {
        let text = std::fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
        let first = text.split(' ').next().and_then(|word| word.parse::<i64>().ok());
        number.iter().any(|(name, number)| name.starts_with(call) && first == Some(*number))
    })
}

#[test]
fn a_set_of_semaphores() {
    let stage = Stage::new();
    let key = key();
    let options = sysv_sem::CreateOptions::new().exclusive(true).values([0, 7, 32_767]);
    let set = SemaphoreSet::create(&sysv_sem::Key::Value(key), &options).expect("a set");
    let _goes = Goes(move || {
        if let Ok(set) = SemaphoreSet::open(&sysv_sem::Key::Value(key)) {
            let _ = set.remove();
        }
    });
    let target = target(Kind::SysvSem, set.id());
    // Who used it last lives, and would undo that.
    let mut child = Child::role("clean-holder", &["used a count", &set.id().to_string()]);
    child.expect("ready");
    grow_old();
    let error = stage.remove(&target).1.expect_err("its user lives");
    assert_eq!(error.reason(), Reason::InUse, "{error}");
    assert!(error.to_string().contains("which used semaphore 1 last, lives"), "{error}");
    child.kill();
    grow_old();
    let mut child = Child::role("clean-holder", &["waits for a count", &set.id().to_string()]);
    child.expect("ready");
    let until = std::time::Instant::now() + DEADLINE;
    while set.waiting(0).expect("there").0 == 0 {
        assert!(std::time::Instant::now() < until, "it waits");
        std::thread::yield_now();
    }
    assert_eq!(stage.remove(&target).1.expect_err("waits").reason(), Reason::InUse);
    child.kill();
    let (run, done) = stage.remove(&target);
    done.expect("removed");
    assert_eq!(SemaphoreSet::open(&sysv_sem::Key::Value(key)).expect_err("gone").name(), "ENOENT");
    stage.restore(&run).expect("restored");
    let again = SemaphoreSet::open(&sysv_sem::Key::Value(key)).expect("there");
    assert_eq!(again.values().expect("counts"), [0, 7, 32_767]);
    assert_eq!(stage.restore(&run).expect_err("restored").reason(), Reason::Refused);
}

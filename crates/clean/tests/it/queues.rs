//! POSIX queues.

use switchboard_clean::error::Reason;
use switchboard_clean::{Target, target};
use switchboard_inspect::Kind;
use switchboard_kernel::Permissions;
use switchboard_kernel::posix_mq::{self, Access, CreateOptions, MessageQueue};
use switchboard_testkit::{Child, unique};

use crate::stage::Stage;

/// A queue; its name goes when it is dropped, if it is there still.
pub(crate) struct Named(pub(crate) String);

impl Drop for Named {
    fn drop(&mut self) {
        let _ = posix_mq::unlink(&self.0);
    }
}

pub(crate) const MESSAGES: [(&[u8], u32); 4] =
    [(b"high, first", 9), (b"", 9), (b"\xff\xff\xff", 4), (b"low", 0)];

pub(crate) fn planted() -> (Named, MessageQueue) {
    let named = Named(format!("/{}", unique("clean")));
    let options = CreateOptions::new()
        .max_messages(5)
        .message_size_bytes(99)
        .permissions(Permissions::new().mode(0o660));
    let queue = MessageQueue::create(&named.0, Access::Both, &options).expect("a queue");
    for at in [3, 0, 2, 1] {
        let (text, priority) = MESSAGES[at];
        queue.send(text, priority).expect("sent");
    }
    (named, queue)
}

/// What the inspector would show; ordinary users do not see queues that nobody has open.
pub(crate) fn of_queue(name: &str, queue: &MessageQueue) -> Target {
    let found = rustix::fs::fstat(queue).expect("a status");
    let (major, minor) = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
    Target {
        object: format!("mq:{major}:{minor}:{}", found.st_ino),
        kind: Kind::Mq,
        place: target::Place::Queue(name.to_owned()),
        file: Some((major, minor, found.st_ino)),
    }
}

pub(crate) fn has_all(queue: &MessageQueue) {
    let mut buffer = [0; 99];
    for (text, priority) in MESSAGES {
        let (len, found) = queue.try_recv(&mut buffer).expect("a message");
        assert_eq!((&buffer[..len], found), (text, priority));
    }
    assert_eq!(queue.try_recv(&mut buffer).expect_err("no more").name(), "EAGAIN");
}

#[test]
fn goes_and_comes_back_with_its_messages() {
    let stage = Stage::new();
    let (named, queue) = planted();
    let target = of_queue(&named.0, &queue);
    drop(queue);
    let (run, done) = stage.remove_at_last(&target);
    done.expect("removed");
    let gone = MessageQueue::open(&named.0, Access::Both).expect_err("gone");
    assert_eq!(gone.name(), "ENOENT");
    stage.restore(&run).expect("restored");
    let queue = MessageQueue::open(&named.0, Access::Both).expect("there");
    let attributes = queue.attributes().expect("attributes");
    assert_eq!((attributes.max_messages, attributes.message_size_bytes), (5, 99));
    assert_eq!(rustix::fs::fstat(&queue).expect("a status").st_mode & 0o777, 0o660);
    has_all(&queue);
    assert_eq!(stage.restore(&run).expect_err("restored").reason(), Reason::Refused);
}

#[test]
fn stays_with_all_messages_while_somebody_has_it() {
    let stage = Stage::new();
    let (named, queue) = planted();
    let target = of_queue(&named.0, &queue);
    drop(queue);
    let mut child = Child::role("clean-holder", &["queue", &named.0]);
    child.expect("ready");
    assert_eq!(stage.remove(&target).1.expect_err("open").reason(), Reason::InUse);
    let queue = MessageQueue::open(&named.0, Access::Both).expect("there");
    assert_eq!(rustix::fs::fstat(&queue).expect("a status").st_mode & 0o777, 0o660);
    has_all(&queue);
}

#[test]
fn too_large_for_the_journal_it_stays() {
    let stage = Stage::new();
    let (named, queue) = planted();
    let target = of_queue(&named.0, &queue);
    drop(queue);
    let limits = switchboard_clean::Limits { most_bytes: 100 };
    assert_eq!(
        stage.remove_at_last_within(&target, limits).1.expect_err("large").reason(),
        Reason::TooLarge
    );
    has_all(&MessageQueue::open(&named.0, Access::Both).expect("there"));
}

//! Leases: between processes, on files in memory and on queues.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use switchboard_kernel::mmap::Mode as MapMode;
use switchboard_kernel::posix_mq::{self, CreateOptions, MessageQueue};
use switchboard_kernel::{Permissions, lease, posix_shm};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE, unique};

/// Says when it has opened the segment.
pub(crate) fn opener(arguments: &[String]) {
    report("opening");
    let found = std::fs::File::open(format!("/dev/shm{}", arguments[0]));
    report(found.map_or_else(|error| error.to_string(), |_| "open".to_owned()));
}

fn read_only(name: &str) -> OwnedFd {
    let path = format!("/dev/shm{name}");
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("open")
}

/// Takes a lease on what nobody else has open for long: a child that another test starts at this moment has copies of
/// this process' descriptors until it runs its own program.
fn take_at_last(file: &impl AsFd) {
    let until = Instant::now() + DEADLINE;
    while let Err(error) = lease::take(file) {
        assert!(error.name() == "EAGAIN" && Instant::now() < until, "nobody has it: {error}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn whoever_has_a_segment_is_in_the_way() {
    let name = format!("/{}", unique("lease"));
    let segment =
        posix_shm::Segment::create(&name, 4096, Permissions::default()).expect("a segment");
    let file = read_only(&name);
    assert_eq!(lease::take(&file).expect_err("it is open").name(), "EAGAIN");
    let mapped = segment.map(MapMode::ReadOnly).expect("a mapping");
    drop(segment);
    assert_eq!(lease::take(&file).expect_err("it is mapped").name(), "EAGAIN");
    let (here, there) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let again = read_only(&name);
    let sent = switchboard_kernel::unix_socket::send_with_fds(&here, b"x", &[again.as_fd()]);
    sent.expect("sent");
    drop((mapped, again));
    assert_eq!(lease::take(&file).expect_err("it is in flight").name(), "EAGAIN");
    drop((here, there));
    // What is in flight is let go by the kernel's worker.
    take_at_last(&file);
    assert!(!lease::is_wanted(&file).expect("held"));
    posix_shm::unlink(&name).expect("unlinked");
}

#[test]
fn who_wants_it_waits_until_it_is_given_back() {
    let name = format!("/{}", unique("lease"));
    drop(posix_shm::Segment::create(&name, 4096, Permissions::default()).expect("a segment"));
    let file = read_only(&name);
    take_at_last(&file);
    let mut child = Child::role("lease-opener", &[&name]);
    child.expect("opening");
    let until = Instant::now() + DEADLINE;
    while !lease::is_wanted(&file).expect("held") {
        assert!(Instant::now() < until, "nobody wants it");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(child.line_within(Duration::from_millis(50)).is_none(), "it has to wait");
    lease::give_back(&file).expect("given back");
    child.expect("open");
    posix_shm::unlink(&name).expect("unlinked");
}

#[test]
fn a_queue_has_leases_too() {
    let name = format!("/{}", unique("lease"));
    let options = CreateOptions::new().max_messages(1).message_size_bytes(8);
    let queue = MessageQueue::create(&name, posix_mq::Access::Both, &options).expect("a queue");
    let other = MessageQueue::open(&name, posix_mq::Access::Receive).expect("opened");
    assert_eq!(lease::take(&queue).expect_err("it is open").name(), "EAGAIN");
    drop(other);
    take_at_last(&queue);
    posix_mq::unlink(&name).expect("unlinked");
}

//! An end that has no room for what a peer gives it says which limit that is, and blames nobody; it goes on when
//! there is room.

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchboard::{Bytes, Error, ErrorKind, Options, Receiver, RecvError, SendError};
use switchboard_kernel::io::duplicate;
use switchboard_kernel::process::set_file_limit;
use switchboard_kernel::shared_memory::{Doorbell, OwnMemory};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::skip::skip;
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::ends::{self, Pattern};

/// What is left of the address space where it is short: enough for all but a ring, or a segment.
const LEFT_BYTES: u64 = 4 << 20;
const RING: &str = "&capacity=16MiB";
const LARGE_BYTES: usize = 5 << 20;

/// The system calls in which the I/O thread waits.
const EPOLL_WAITS: [i64; 3] = [libc::SYS_epoll_wait, libc::SYS_epoll_pwait, libc::SYS_epoll_pwait2];

const PATTERNS: [Pattern; 2] = [Pattern::Topic, Pattern::Queue];

/// Hardly any more address space, until this is dropped.
struct Narrow(Rlimit);

impl Narrow {
    /// The I/O thread is there already.
    fn begin() -> Self {
        let since = Instant::now();
        while !io_thread_waits() {
            assert!(since.elapsed() < DEADLINE, "the I/O thread does not wait");
            std::thread::sleep(Duration::from_millis(1));
        }
        let narrow = Self(getrlimit(Resource::As));
        // A thread that takes its first memory has more addresses for a moment than it keeps.
        loop {
            let current = Some(addresses_bytes() + LEFT_BYTES);
            setrlimit(Resource::As, Rlimit { current, ..narrow.0 }).expect("a limit");
            if OwnMemory::create("too-large", LARGE_BYTES.next_multiple_of(4096)).is_err() {
                return narrow;
            }
        }
    }
}

/// Whether the I/O thread has begun, and waits for something to do. While it begins it takes a stack for signals;
/// without room for that the process is aborted (`std::thread`).
fn io_thread_waits() -> bool {
    let threads = std::fs::read_dir("/proc/self/task").expect("the threads");
    threads.flatten().any(|thread| {
        let read = |file| std::fs::read_to_string(thread.path().join(file)).unwrap_or_default();
        let call: Option<i64> =
            read("syscall").split(' ').next().and_then(|call| call.parse().ok());
        read("comm").trim() == "switchboard-io"
            && call.is_some_and(|call| EPOLL_WAITS.contains(&call))
    })
}

fn addresses_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a size");
    let kib: u64 = kib.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

impl Drop for Narrow {
    fn drop(&mut self) {
        setrlimit(Resource::As, self.0).expect("the limit from before");
    }
}

/// As many mappings as may be, until this is dropped; none where that would be too many for a test.
fn all_mappings() -> Option<Vec<Doorbell>> {
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").expect("a limit");
    let limit: usize = limit.trim().parse().expect("a number");
    if limit > 300_000 {
        return None;
    }
    // Memory for these is there before.
    let mut all = Vec::with_capacity(limit + 1);
    let page = Doorbell::create().expect("a page");
    loop {
        let fd = duplicate(page.fd().expect("a descriptor")).expect("a descriptor");
        match Doorbell::received(fd) {
            Ok(page) => all.push(page),
            Err(error) => {
                assert_eq!(error.name(), "ENOMEM", "{error}");
                all.push(page);
                return Some(all);
            }
        }
    }
}

fn open(pattern: Pattern, address: &str) -> Receiver<Bytes> {
    ends::reader(pattern, address, Options::default()).expect("a reader")
}

fn check(error: &Error, limit: &str) {
    assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
    // Seen once: there was not even a page of its own. What took the rest of the addresses is not known.
    let said = error.to_string();
    assert!(["no room for", "no memory for"].iter().any(|what| said.contains(what)), "{said}");
    assert!(error.advice().is_some_and(|advice| advice.contains(limit)), "{:?}", error.advice());
}

/// What is told first.
fn told(receiver: &mut Receiver<Bytes>) -> Error {
    match receiver.recv_timeout(DEADLINE) {
        Err(RecvError::Failed(error)) => error,
        other => panic!("{other:?} where a shortage was expected"),
    }
}

/// Role: a reader that has no room for a ring when it meets its writer. It comes first or later.
pub(crate) fn reader(arguments: &[String]) {
    let (pattern, address) = (Pattern::parse(&arguments[0]), &arguments[1]);
    // The I/O thread comes with the first end, and takes room.
    drop(open(pattern, &address.replacen("shm:", "shm:elsewhere-", 1)));
    let first = (arguments[2] == "first").then(|| open(pattern, address));
    let narrow = Narrow::begin();
    report("short");
    let mut receiver = first.unwrap_or_else(|| open(pattern, address));
    check(&told(&mut receiver), "RLIMIT_AS");
    // It is tried again, and not told again.
    let quiet = receiver.recv_timeout(Duration::from_millis(50));
    assert!(matches!(quiet, Err(RecvError::Empty)), "{quiet:?}");
    assert_eq!(receiver.peers(), 0);
    drop(narrow);
    report("enough");
    let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
    report(format_args!("{:?}", ends::read(&delivery.message.0)));
    receiver.acknowledge(delivery).expect("acknowledged");
}

#[test]
fn a_reader_without_room_for_a_ring_blames_nobody_and_goes_on() {
    for pattern in PATTERNS {
        for order in ["first", "later"] {
            let scratch = Scratch::new();
            let address = format!("shm:channel?scope={}{RING}", scratch.join("scope").display());
            let writer = || ends::writer(pattern, &address, Options::default()).expect("a writer");
            let before = (order == "later").then(writer);
            let mut child = Child::role("shm-short-reader", &[pattern.name(), &address, order]);
            child.expect("short");
            let mut writer = before.unwrap_or_else(writer);
            child.expect("enough");
            writer.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
            writer.send_bytes(&ends::message(1, 1, 24)).expect("sent");
            child.expect("Some((1, 1))");
            writer.close().expect("closed");
            assert!(child.wait().success());
        }
    }
}

/// Role: a reader that has no room for the memory of a large message.
pub(crate) fn reader_of_large(arguments: &[String]) {
    let (pattern, address) = (Pattern::parse(&arguments[0]), &arguments[1]);
    let mut receiver = open(pattern, address);
    let first = receiver.recv_timeout(DEADLINE).expect("a message");
    receiver.acknowledge(first).expect("acknowledged");
    let narrow = Narrow::begin();
    report("short");
    // Each call is told, and the message stays where it is.
    for _ in 0..3 {
        check(&told(&mut receiver), "RLIMIT_AS");
    }
    drop(narrow);
    for number in [2, 3] {
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message");
        assert_eq!(ends::read(&delivery.message.0), Some((1, number)));
        receiver.acknowledge(delivery).expect("acknowledged");
    }
    report("all");
}

#[test]
fn a_large_message_waits_until_there_is_room_for_it() {
    for pattern in PATTERNS {
        let scratch = Scratch::new();
        let address = format!("shm:channel?scope={}", scratch.join("scope").display());
        let mut writer = ends::writer(pattern, &address, Options::default()).expect("a writer");
        let mut child = Child::role("shm-short-for-large", &[pattern.name(), &address]);
        writer.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
        writer.send_bytes(&ends::message(1, 1, 24)).expect("sent");
        child.expect("short");
        writer.send_bytes(&ends::message(1, 2, LARGE_BYTES)).expect("sent");
        writer.send_bytes(&ends::message(1, 3, 24)).expect("sent");
        child.expect("all");
        writer.close().expect("closed");
        assert!(child.wait().success());
    }
}

/// Role: a writer that has no room for its reader's page.
pub(crate) fn writer(arguments: &[String]) {
    let (pattern, address) = (Pattern::parse(&arguments[0]), &arguments[1]);
    let mut sender = ends::writer(pattern, address, Options::default()).expect("a writer");
    let Some(mappings) = all_mappings() else { return report("too many") };
    report("short");
    let since = Instant::now();
    loop {
        match sender.drive() {
            Ok(_) => std::thread::sleep(Duration::from_millis(1)),
            Err(SendError::Failed(error)) => break check(&error, "max_map_count"),
            Err(other) => panic!("{other:?}"),
        }
        assert!(since.elapsed() < DEADLINE, "no shortage is told");
    }
    assert_eq!(sender.peers(), 0);
    drop(mappings);
    sender.wait_for_peers(1, Some(DEADLINE)).expect("a reader");
    sender.send_bytes(&ends::message(1, 1, 24)).expect("sent");
    sender.close().expect("closed");
}

#[test]
fn a_writer_without_room_for_a_page_blames_nobody_and_goes_on() {
    for pattern in PATTERNS {
        let scratch = Scratch::new();
        let address = format!("shm:channel?scope={}", scratch.join("scope").display());
        let mut child = Child::role("shm-short-writer", &[pattern.name(), &address]);
        if child.line().as_deref() != Some("short") {
            let test = "shm::shortage::a_writer_without_room_for_a_page_blames_nobody_and_goes_on";
            return skip(test, "a process may have more mappings than a test can make");
        }
        let mut receiver = open(pattern, &address);
        let delivery = receiver.recv_timeout(DEADLINE).expect("a message, and no report before");
        assert_eq!(ends::read(&delivery.message.0), Some((1, 1)));
        receiver.acknowledge(delivery).expect("acknowledged");
        assert!(child.wait().success());
    }
}

/// Half of so many are for 16 links of one process.
const FEW_FILES: u64 = 96;
const FEW_LINKS: usize = 16;

/// Role: an end with few descriptors, that says whom it turned away.
pub(crate) fn few_files(arguments: &[String]) {
    let (pattern, address) = (Pattern::parse(&arguments[0]), &arguments[2]);
    set_file_limit(FEW_FILES).expect("a limit");
    if arguments[1] == "writer" {
        let sender =
            ends::writer(pattern, address, Options::default().linger(Some(Duration::ZERO)));
        let mut sender = sender.expect("a writer");
        report("open");
        sender.wait_for_peers(FEW_LINKS, Some(DEADLINE)).expect("as many as may be");
        assert!(instruction().is_some());
        assert_eq!(sender.peers(), FEW_LINKS);
    } else {
        let mut receiver = open(pattern, address);
        report("open");
        match receiver.recv_timeout(DEADLINE) {
            Err(RecvError::PeerRefused { problem, .. }) => report(problem),
            other => panic!("{other:?} where a refusal was expected"),
        }
        let since = Instant::now();
        while receiver.peers() < FEW_LINKS {
            assert!(since.elapsed() < DEADLINE, "{} peers", receiver.peers());
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(receiver.peers(), FEW_LINKS);
    }
}

/// Of one process an end takes as many links as leave descriptors for others, and says so.
#[test]
fn one_process_takes_no_more_than_half_of_the_descriptors() {
    let problem = |pid| format!("this end has {FEW_LINKS} links with process {pid}");
    for pattern in PATTERNS {
        let scratch = Scratch::new();
        let address = format!("shm:channel?scope={}", scratch.join("scope").display());
        let options = || Options::default().linger(Some(Duration::ZERO));
        let mut child = Child::role("shm-few-files", &[pattern.name(), "reader", &address]);
        child.expect("open");
        let mut writers: Vec<_> = (0..=FEW_LINKS)
            .map(|_| ends::writer(pattern, &address, options()).expect("a writer"))
            .collect();
        let said = child.line().expect("whom it refused");
        assert!(said.starts_with(&problem(std::process::id())), "{said}");
        let since = Instant::now();
        let refused = loop {
            let told = writers.iter_mut().find_map(|writer| writer.drive().err());
            match told {
                Some(SendError::Failed(error)) => break error,
                Some(other) => panic!("{other:?}"),
                None => assert!(since.elapsed() < DEADLINE, "nobody is told"),
            }
        };
        assert_eq!(refused.kind(), ErrorKind::LimitReached);
        assert!(refused.to_string().contains(&problem(std::process::id())), "{refused}");
        assert!(child.wait().success());
        drop(writers);

        let mut child = Child::role("shm-few-files", &[pattern.name(), "writer", &address]);
        child.expect("open");
        let mut readers: Vec<_> = (0..=FEW_LINKS).map(|_| open(pattern, &address)).collect();
        let since = Instant::now();
        let refused = loop {
            let told = readers.iter_mut().find_map(|reader| match reader.try_recv() {
                Err(RecvError::PeerRefused { problem, .. }) => Some(problem),
                _ => None,
            });
            match told {
                Some(problem) => break problem,
                None => assert!(since.elapsed() < DEADLINE, "nobody is told"),
            }
        };
        assert!(refused.starts_with(&problem(std::process::id())), "{refused}");
        child.tell("done");
        assert!(child.wait().success());
    }
}

//! POSIX message queues between processes, at their limits, and with Python at the other end.

use std::fmt::Debug;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use switchboard_kernel::Permissions;
use switchboard_kernel::error::{ErrorKind, Result};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::mmap::{Mapping, Mode as MapMode};
use switchboard_kernel::posix_mq::{
    Access, Attributes, CreateOptions, MessageQueue, Notify, PRIORITY_MAX, limits, unlink,
    validate_name,
};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, unique};

use crate::privileges::{NOBODY, become_ordinary_user, is_root, wait_until_blocked_in};
use crate::python;

const SHORT: Duration = Duration::from_millis(20);

/// A name that is unlinked in the end.
struct Name(String);

impl Name {
    fn new(word: &str) -> Self {
        Self(format!("/{}", unique(word)))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = unlink(&self.0);
    }
}

/// Two messages of up to 16 bytes: little of what a user may have.
fn small() -> CreateOptions {
    CreateOptions::new().max_messages(2).message_size_bytes(16)
}

fn create(name: &Name) -> MessageQueue {
    MessageQueue::create(&name.0, Access::Both, &small()).expect("a queue")
}

fn recv(queue: &MessageQueue) -> (String, u32) {
    let mut buffer = [0; 16];
    let (len_bytes, priority) =
        queue.recv_timeout(&mut buffer, DEADLINE).expect("a message in time");
    (String::from_utf8_lossy(&buffer[..len_bytes]).into_owned(), priority)
}

fn error_of<T: Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").name()
}

/// Sends its further arguments, each `PRIORITY:TEXT`, and waits to be killed.
pub(crate) fn sender(arguments: &[String]) {
    let queue = MessageQueue::open(&arguments[0], Access::Send).expect("the queue");
    for message in &arguments[1..] {
        let (priority, text) = message.split_once(':').expect("PRIORITY:TEXT");
        queue.send(text.as_bytes(), priority.parse().expect("a priority")).expect("sent");
        report(text);
    }
    let _ = instruction();
}

/// Reports every message it receives.
pub(crate) fn receiver(arguments: &[String]) {
    let queue = MessageQueue::open(&arguments[0], Access::Receive).expect("the queue");
    report("receiving");
    let mut buffer = [0; 16];
    loop {
        let (len_bytes, priority) = queue.recv(&mut buffer).expect("a message");
        report(format_args!("{priority}:{}", String::from_utf8_lossy(&buffer[..len_bytes])));
    }
}

#[test]
fn messages_outlive_their_sender_and_come_by_priority() {
    let name = Name::new("priority");
    let queue =
        MessageQueue::create(&name.0, Access::Both, &small().max_messages(5)).expect("a queue");
    let messages = ["0:low", "7:high", "0:low again", "7:high again", "32767:highest"];
    let mut arguments = vec![name.0.as_str()];
    arguments.extend(messages);
    let mut sender = Child::role("mq_sender", &arguments);
    for message in messages {
        sender.expect(message.split_once(':').expect("PRIORITY:TEXT").1);
    }
    sender.kill();
    let received: Vec<(String, u32)> = (0..5).map(|_| recv(&queue)).collect();
    let expected =
        [("highest", PRIORITY_MAX), ("high", 7), ("high again", 7), ("low", 0), ("low again", 0)];
    assert_eq!(received, expected.map(|(text, priority)| (text.to_owned(), priority)));
}

#[test]
fn a_receiver_killed_while_waiting_takes_nothing_along() {
    let name = Name::new("killed-receiver");
    let queue = create(&name);
    let mut receiver = Child::role("mq_receiver", &[&name.0]);
    receiver.expect("receiving");
    wait_until_blocked_in(receiver.id(), libc::SYS_mq_timedreceive);
    queue.send(b"one", 1).expect("room");
    receiver.expect("1:one");
    wait_until_blocked_in(receiver.id(), libc::SYS_mq_timedreceive);
    receiver.kill();
    queue.send(b"two", 2).expect("room");
    assert_eq!(recv(&queue), ("two".to_owned(), 2));
}

#[test]
fn a_sender_killed_while_waiting_leaves_what_was_sent() {
    let name = Name::new("killed-sender");
    let queue = create(&name);
    let mut sender = Child::role("mq_sender", &[name.0.as_str(), "0:a", "0:b", "9:never"]);
    sender.expect("a");
    sender.expect("b");
    wait_until_blocked_in(sender.id(), libc::SYS_mq_timedsend);
    sender.kill();
    assert_eq!((recv(&queue).0, recv(&queue).0), ("a".to_owned(), "b".to_owned()));
    assert_eq!(queue.attributes().expect("attributes").waiting_messages, 0);
}

#[test]
fn room_wakes_a_blocked_sender() {
    let name = Name::new("room");
    let queue = create(&name);
    let mut sender = Child::role("mq_sender", &[name.0.as_str(), "0:a", "0:b", "0:c"]);
    sender.expect("a");
    sender.expect("b");
    wait_until_blocked_in(sender.id(), libc::SYS_mq_timedsend);
    assert_eq!(recv(&queue).0, "a");
    sender.expect("c");
}

#[test]
fn a_full_queue_with_and_without_time_limit() {
    let name = Name::new("full");
    let queue = create(&name);
    queue.try_send(b"1", 0).expect("room");
    queue.send_timeout(b"", 0, Duration::MAX).expect("room");
    let kind = queue.try_send(b"3", 0).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::WouldBlock));
    let start = Instant::now();
    assert_eq!(error_of(queue.send_timeout(b"3", 0, SHORT)), "ETIMEDOUT");
    assert_eq!(error_of(queue.send_until(b"3", 0, Deadline::after(SHORT))), "ETIMEDOUT");
    assert!(start.elapsed() >= SHORT * 2);
    assert_eq!(queue.attributes().expect("attributes").waiting_messages, 2);
    assert_eq!((recv(&queue).0, recv(&queue).0), ("1".to_owned(), String::new()));
    queue.send_until(b"4", 0, Deadline::after(Duration::ZERO)).expect("room");
}

#[test]
fn an_empty_queue_with_and_without_time_limit() {
    let name = Name::new("empty");
    let queue = create(&name);
    let mut buffer = [0; 16];
    let kind = queue.try_recv(&mut buffer).map_err(|error| error.kind());
    assert_eq!(kind, Err(ErrorKind::WouldBlock));
    let start = Instant::now();
    assert_eq!(error_of(queue.recv_timeout(&mut buffer, SHORT)), "ETIMEDOUT");
    assert_eq!(error_of(queue.recv_until(&mut buffer, Deadline::after(SHORT))), "ETIMEDOUT");
    assert!(start.elapsed() >= SHORT * 2);
    queue.set_nonblocking(true).expect("set");
    assert!(queue.attributes().expect("attributes").nonblocking);
    assert_eq!(error_of(queue.recv(&mut buffer)), "EAGAIN");
    queue.set_nonblocking(false).expect("cleared");
    queue.send(b"x", 0).expect("room");
    assert_eq!(queue.recv_until(&mut buffer, Deadline::NEVER), Ok((1, 0)));
}

/// Receives one message by the monotonic clock.
pub(crate) fn patient(arguments: &[String]) {
    let queue = MessageQueue::open(&arguments[0], Access::Receive).expect("the queue");
    let mut buffer = [0; 16];
    report("waiting");
    let (len_bytes, priority) =
        queue.recv_until(&mut buffer, Deadline::after(DEADLINE)).expect("a message in time");
    report(format_args!("{priority}:{}", String::from_utf8_lossy(&buffer[..len_bytes])));
}

#[test]
fn a_wait_by_the_monotonic_clock_ends_with_a_message() {
    let name = Name::new("until");
    let queue = create(&name);
    let mut patient = Child::role("mq_patient", &[&name.0]);
    patient.expect("waiting");
    wait_until_blocked_in(patient.id(), libc::SYS_ppoll);
    queue.send(b"five", 5).expect("room");
    patient.expect("5:five");
}

#[test]
fn what_does_not_fit_is_refused_and_what_waits_stays() {
    let name = Name::new("sizes");
    let queue = create(&name);
    assert_eq!(error_of(queue.send(&[0; 17], 0)), "EMSGSIZE");
    assert_eq!(error_of(queue.send(b"x", PRIORITY_MAX + 1)), "EINVAL");
    queue.send(b"x", 0).expect("room");
    assert_eq!(error_of(queue.recv(&mut [0; 15])), "EMSGSIZE");
    let send_only = MessageQueue::open(&name.0, Access::Send).expect("the queue");
    assert_eq!(error_of(send_only.try_recv(&mut [0; 16])), "EBADF");
    let receive_only = MessageQueue::open(&name.0, Access::Receive).expect("the queue");
    assert_eq!(error_of(receive_only.try_send(b"y", 0)), "EBADF");
    assert_eq!(recv(&receive_only).0, "x");
}

/// Creates the queue, or opens it, and reports what it is like.
pub(crate) fn creator(arguments: &[String]) {
    let size_bytes = arguments[1].parse().expect("a size");
    let options = small().message_size_bytes(size_bytes);
    report("ready");
    let _ = instruction();
    match MessageQueue::create(&arguments[0], Access::Both, &options) {
        Ok(queue) => report(queue.attributes().expect("attributes").message_size_bytes),
        Err(error) => report(error),
    }
}

#[test]
fn of_many_creators_one_decides() {
    let name = Name::new("race");
    let mut creators: Vec<Child> = (1..=4)
        .map(|size_bytes| Child::role("mq_creator", &[name.0.clone(), size_bytes.to_string()]))
        .collect();
    creators.iter_mut().for_each(|creator| creator.expect("ready"));
    creators.iter_mut().for_each(|creator| creator.tell("go"));
    let said: Vec<_> = creators.iter_mut().map(Child::line).collect();
    assert!(said[0].as_ref().is_some_and(|line| line.parse::<u32>().is_ok()), "{said:?}");
    assert!(said.iter().all(|line| *line == said[0]), "{said:?}");
}

#[test]
fn an_existing_queue_keeps_its_geometry() {
    let name = Name::new("existing");
    let queue = create(&name);
    queue.send(b"kept", 0).expect("room");
    let larger = small().max_messages(9).message_size_bytes(99);
    let again = MessageQueue::create(&name.0, Access::Both, &larger).expect("the queue");
    let expected = Attributes {
        max_messages: 2,
        message_size_bytes: 16,
        waiting_messages: 1,
        nonblocking: false,
    };
    assert_eq!(again.attributes(), Ok(expected));
    let exclusive = MessageQueue::create(&name.0, Access::Both, &larger.exclusive(true));
    assert_eq!(error_of(exclusive), "EEXIST");
    let flags = rustix::io::fcntl_getfd(&again).expect("flags");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn an_unlinked_queue_serves_those_who_have_it() {
    let name = Name::new("unlinked");
    let queue = create(&name);
    unlink(&name.0).expect("unlinked");
    queue.send(b"still", 0).expect("room");
    assert_eq!(recv(&queue).0, "still");
    assert_eq!(error_of(MessageQueue::open(&name.0, Access::Both)), "ENOENT");
    assert_eq!(error_of(unlink(&name.0)), "ENOENT");
}

#[test]
fn names() {
    let long = |bytes: usize| format!("/{}", "x".repeat(bytes));
    let check = |name: &str, expected: Option<&str>| {
        assert_eq!(validate_name(name).err().map(|error| error.name()), expected, "{name:?}");
        if expected.is_some() {
            assert_eq!(Some(error_of(MessageQueue::open(name, Access::Both))), expected);
        }
    };
    for good in ["/a", "/ü", "/...", "/a b", &long(255)] {
        check(good, None);
    }
    for bad in ["", "/", "a", "a/b", "/a/b", "//", "/.", "/..", "/a\0b"] {
        check(bad, Some("EINVAL"));
    }
    check(&long(256), Some("ENAMETOOLONG"));
    let longest = Name(format!("/{:y<255}", unique("longest")));
    create(&longest);
}

/// As an ordinary user, asks for more than there may be, and reports the errors.
pub(crate) fn limits_role(arguments: &[String]) {
    become_ordinary_user();
    let name = &arguments[0];
    let asked = |options: &CreateOptions| match MessageQueue::create(name, Access::Both, options) {
        Ok(_) => {
            let _ = unlink(name);
            report("created");
        }
        Err(error) => report(error.name()),
    };
    asked(&small());
    asked(&small().max_messages(limits().max_messages + 1));
    asked(&small().message_size_bytes(limits().max_message_size_bytes + 1));
    asked(&small().max_messages(0));
    asked(&small().message_size_bytes(0));
    let maximum = rustix::process::getrlimit(Resource::Msgqueue).maximum;
    let lowered = Rlimit { current: Some(100), maximum };
    rustix::process::setrlimit(Resource::Msgqueue, lowered).expect("lowered");
    report(limits().user_bytes);
    asked(&small());
}

#[test]
fn each_limit_has_its_error() {
    let name = Name::new("limits");
    let mut child = Child::role("mq_limits", &[&name.0]);
    for expected in ["created", "EINVAL", "EINVAL", "EINVAL", "EINVAL", "100", "EMFILE"] {
        child.expect(expected);
    }
    assert!(child.wait().success());
}

/// In an IPC namespace of its own, makes as many queues as there may be, and one more.
pub(crate) fn queues_max(_: &[String]) {
    become_ordinary_user();
    let tiny = CreateOptions::new().max_messages(1).message_size_bytes(1).exclusive(true);
    let mut created = 0;
    let error = loop {
        match MessageQueue::create(&format!("/{created}"), Access::Both, &tiny) {
            Ok(_) => created += 1,
            Err(error) => break error,
        }
    };
    report(format_args!("{} {}", created == limits().max_queues, error.name()));
}

#[test]
fn the_number_of_queues_is_limited() {
    let starter: &[&str] = if is_root() {
        &["unshare", "--ipc"]
    } else {
        &["unshare", "--user", "--map-current-user", "--ipc"]
    };
    let mut child = Child::role_under::<&str>(starter, "mq_queues_max", &[]);
    match child.line() {
        Some(line) => assert_eq!(line, "true ENOSPC"),
        None => switchboard_testkit::skip::skip(
            "the_number_of_queues_is_limited",
            "no IPC namespace of its own to be had",
        ),
    }
}

#[test]
fn limits_are_those_of_the_system() {
    let limits = limits();
    let read = |file: &str| std::fs::read_to_string(format!("/proc/sys/fs/mqueue/{file}"));
    for (file, value) in [
        ("queues_max", limits.max_queues),
        ("msg_max", limits.max_messages),
        ("msgsize_max", limits.max_message_size_bytes),
        ("msg_default", limits.default_max_messages),
        ("msgsize_default", limits.default_message_size_bytes),
    ] {
        assert_eq!(read(file).expect("a limit").trim(), value.to_string(), "{file}");
    }
}

/// With a umask that would take everything, makes queues and reports their mode; then, as an
/// ordinary user, whether they open.
pub(crate) fn modes(arguments: &[String]) {
    let name = &arguments[0];
    become_ordinary_user();
    rustix::process::umask(Mode::from_raw_mode(0o777));
    for mode in [0o600, 0o666, 0o200, 0o400, 0o000] {
        let options = small().permissions(Permissions::new().mode(mode)).exclusive(true);
        let queue = MessageQueue::create(name, Access::Both, &options).expect("a queue");
        let found = rustix::fs::fstat(&queue).expect("its mode").st_mode & 0o777;
        let opens = |access| match MessageQueue::open(name, access) {
            Ok(_) => "opened",
            Err(error) => error.name(),
        };
        let (send, receive) = (opens(Access::Send), opens(Access::Receive));
        report(format_args!("{found:o} {send} {receive}"));
        unlink(name).expect("unlinked");
    }
}

#[test]
fn the_mode_is_exact_and_kept() {
    let name = Name::new("modes");
    let mut child = Child::role("mq_modes", &[&name.0]);
    for expected in [
        "600 opened opened",
        "666 opened opened",
        "200 opened EACCES",
        "400 EACCES opened",
        "0 EACCES EACCES",
    ] {
        child.expect(expected);
    }
}

#[test]
fn an_owner_and_a_group_can_be_given() {
    let name = Name::new("owner");
    if is_root() {
        let permissions = Permissions::new().mode(0o640).owner(NOBODY).group(NOBODY);
        let options = small().permissions(permissions);
        let queue = MessageQueue::create(&name.0, Access::Both, &options).expect("a queue");
        let found = rustix::fs::fstat(queue.as_fd()).expect("its owner");
        let expected = (NOBODY, NOBODY, 0o640);
        assert_eq!((found.st_uid, found.st_gid, found.st_mode & 0o777), expected);
    } else {
        let options = small().permissions(Permissions::new().owner(0));
        let refused = MessageQueue::create(&name.0, Access::Both, &options);
        assert_eq!(error_of(refused), "EPERM");
        assert_eq!(error_of(MessageQueue::open(&name.0, Access::Both)), "ENOENT");
    }
}

/// Asks for a signal that ends it.
pub(crate) fn notified(arguments: &[String]) {
    let queue = MessageQueue::open(&arguments[0], Access::Receive).expect("the queue");
    queue.notify(Notify::Signal(libc::SIGTERM)).expect("registered");
    report("registered");
    loop {
        std::thread::park();
    }
}

#[test]
fn a_notification_goes_to_one_process_and_dies_with_it() {
    let name = Name::new("notify");
    let queue = create(&name);
    let mut child = Child::role("mq_notified", &[&name.0]);
    child.expect("registered");
    assert_eq!(error_of(queue.notify(Notify::None)), "EBUSY");
    queue.send(b"wake", 0).expect("room");
    assert_eq!(child.wait().signal(), Some(libc::SIGTERM));
    queue.notify(Notify::None).expect("free again");
    queue.cancel_notify().expect("cancelled");
    assert_eq!(error_of(queue.notify(Notify::Signal(-1))), "EINVAL");

    let mut child = Child::role("mq_notified", &[&name.0]);
    child.expect("registered");
    child.kill();
    queue.notify(Notify::None).expect("free again");
}

#[test]
fn python_reads_and_writes_the_same_queue() {
    let name = Name::new("python");
    let queue = create(&name);
    queue.send(b"from rust", 3).expect("room");
    let program = "import posix_ipc, sys\n\
                   q = posix_ipc.MessageQueue(sys.argv[1])\n\
                   text, priority = q.receive(30)\n\
                   print(text.decode(), priority, q.max_messages, q.max_message_size)\n\
                   q.send('from python', None, 4)\n";
    let test = "python_reads_and_writes_the_same_queue";
    let Some(said) = python::run(test, "posix_ipc", program, &[&name.0]) else { return };
    assert_eq!(said, "from rust 3 2 16");
    assert_eq!(recv(&queue), ("from python".to_owned(), 4));
}

#[test]
fn a_message_can_be_received_into_a_file() {
    let name = Name::new("into");
    let queue = create(&name);
    queue.send(b"kept", 7).expect("room");
    let file = tempfile::tempfile().expect("a file");
    file.set_len(4096).expect("a size");
    let memory = Mapping::of_file(&file, MapMode::ReadWrite, 0, 4096).expect("a mapping");
    assert_eq!(error_of(queue.try_recv_into(&memory, 4090, 16, 0)), "EINVAL");
    assert_eq!(error_of(queue.try_recv_into(&memory, 64, 16, 2)), "EINVAL");
    assert_eq!(queue.try_recv_into(&memory, 64, 16, 0), Ok(4));
    assert_eq!(error_of(queue.try_recv_into(&memory, 64, 16, 0)), "EAGAIN");
    let mut bytes = [0; 68];
    file.read_exact_at(&mut bytes, 0).expect("read");
    assert_eq!((&bytes[..4], &bytes[64..]), (&7_u32.to_ne_bytes()[..], &b"kept"[..]));
    let read_only = Mapping::of_file(&file, MapMode::ReadOnly, 0, 4096).expect("a mapping");
    assert_eq!(error_of(queue.try_recv_into(&read_only, 64, 16, 0)), "EACCES");
}

//! System V message queues between processes, at their limits, and with Python at the other end.

#![allow(unsafe_code)]
#![allow(clippy::multiple_unsafe_ops_per_block)]

use std::ffi::CString;
use std::fmt::Debug;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::Mode;
use switchboard_kernel::Permissions;
use switchboard_kernel::error::{ErrorKind, Result};
use switchboard_kernel::sysv_msg::{
    Buffer, CreateOptions, Key, MessageQueue, Select, key_from_path, limits,
};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch};

use crate::privileges::{NOBODY, become_ordinary_user, is_root, wait_until_blocked_in};
use crate::python;

/// A private queue that is removed in the end.
struct Removed(MessageQueue);

impl Removed {
    fn new() -> Self {
        Self::with(&CreateOptions::new())
    }

    fn with(options: &CreateOptions) -> Self {
        Self(MessageQueue::create(&Key::Private, options).expect("a queue"))
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

fn error_of<T: Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").name()
}

/// Receives without waiting: the type and text, or the error.
fn taken(queue: &MessageQueue, select: Select) -> std::result::Result<(i64, String), &'static str> {
    let mut buffer = Buffer::with_capacity(64);
    let found = queue.try_recv(select, &mut buffer).map_err(|error| error.name())?;
    Ok((found, String::from_utf8_lossy(buffer.text()).into_owned()))
}

fn message(message_type: i64, text: &str) -> std::result::Result<(i64, String), &'static str> {
    Ok((message_type, text.to_owned()))
}

fn queue_of(arguments: &[String]) -> MessageQueue {
    MessageQueue::from_id(arguments[0].parse().expect("an id"))
}

/// Sends its further arguments, each `TYPE:TEXT`, and waits to be killed.
pub(crate) fn sender(arguments: &[String]) {
    let queue = queue_of(arguments);
    for message in &arguments[1..] {
        let (message_type, text) = message.split_once(':').expect("TYPE:TEXT");
        match queue.send(message_type.parse().expect("a type"), text.as_bytes()) {
            Ok(()) => report(text),
            Err(error) => report(error.name()),
        }
    }
    let _ = instruction();
}

/// Reports every message it receives, and the error that ends it.
pub(crate) fn receiver(arguments: &[String]) {
    let queue = queue_of(arguments);
    let mut buffer = Buffer::with_capacity(64);
    report("receiving");
    let error = loop {
        match queue.recv(Select::Any, &mut buffer) {
            Ok(found) => {
                report(format_args!("{found}:{}", String::from_utf8_lossy(buffer.text())));
            }
            Err(error) => break error,
        }
    };
    report(error.name());
}

#[test]
fn types_select_and_order_is_kept_within_each() {
    let Removed(queue) = &Removed::new();
    for (message_type, text) in [(5, "a"), (3, "b"), (5, "c"), (9, "d"), (3, "e")] {
        queue.send(message_type, text.as_bytes()).expect("room");
    }
    assert_eq!(taken(queue, Select::Type(4)), Err("ENOMSG"));
    assert_eq!(taken(queue, Select::Type(9)), message(9, "d"));
    assert_eq!(taken(queue, Select::UpTo(8)), message(3, "b"));
    assert_eq!(taken(queue, Select::Except(5)), message(3, "e"));
    assert_eq!(taken(queue, Select::UpTo(4)), Err("ENOMSG"));
    assert_eq!(taken(queue, Select::Except(5)), Err("ENOMSG"));
    assert_eq!(taken(queue, Select::Any), message(5, "a"));
    assert_eq!(taken(queue, Select::UpTo(i64::MAX)), message(5, "c"));
    let nothing = queue.try_recv(Select::Any, &mut Buffer::with_capacity(1));
    assert_eq!(nothing.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    for wrong in [Select::Type(0), Select::UpTo(-1), Select::Except(i64::MIN)] {
        assert_eq!(taken(queue, wrong), Err("EINVAL"), "{wrong:?}");
    }
    assert_eq!(error_of(queue.send(0, b"")), "EINVAL");
    assert_eq!(error_of(queue.send(-1, b"")), "EINVAL");
}

#[test]
fn peeking_copies_and_leaves() {
    let Removed(queue) = &Removed::new();
    queue.send(1, b"first").expect("room");
    queue.send(2, b"second").expect("room");
    let mut buffer = Buffer::with_capacity(64);
    match queue.peek(1, &mut buffer) {
        Err(error) if error.kind() == ErrorKind::NotSupported => {
            return switchboard_testkit::skip::skip("peeking_copies_and_leaves", "no MSG_COPY");
        }
        found => assert_eq!(found, Ok(2)),
    }
    assert_eq!(buffer.text(), b"second");
    assert_eq!(queue.peek(0, &mut buffer), Ok(1));
    assert_eq!(buffer.text(), b"first");
    assert_eq!(error_of(queue.peek(2, &mut buffer)), "ENOMSG");
    assert_eq!(buffer.text(), b"");
    assert_eq!(queue.status().expect("status").queued_messages, 2);
}

#[test]
fn a_message_larger_than_the_buffer_stays_whole() {
    let Removed(queue) = &Removed::new();
    queue.send(4, b"four bytes more").expect("room");
    let mut buffer = Buffer::with_capacity(4);
    assert_eq!(error_of(queue.try_recv(Select::Any, &mut buffer)), "E2BIG");
    assert_eq!(error_of(queue.recv(Select::Any, &mut buffer)), "E2BIG");
    assert_eq!(taken(queue, Select::Any), message(4, "four bytes more"));
}

#[test]
fn a_buffer_is_sent_as_it_was_received() {
    let Removed(queue) = &Removed::new();
    let mut buffer = Buffer::with_capacity(2);
    buffer.fill(b"more than two");
    queue.send_buffer(&buffer).expect("room");
    buffer.set_message_type(i64::MAX);
    buffer.fill(b"");
    queue.try_send_buffer(&buffer).expect("room");
    assert_eq!(queue.recv(Select::Type(1), &mut buffer), Ok(1));
    assert_eq!(buffer.text(), b"more than two");
    assert_eq!(queue.recv(Select::Any, &mut buffer), Ok(i64::MAX));
    assert_eq!((buffer.text(), buffer.message_type()), (&b""[..], i64::MAX));
}

#[test]
fn large_texts_arrive_whole_and_over_msgmax_not_at_all() {
    let Removed(queue) = &Removed::new();
    let largest = limits().max_message_bytes as usize;
    let size = largest.min(limits().default_queue_bytes as usize);
    for size in [0, 1, 7, 8, 8191, 8192, 8193, size] {
        if size > largest {
            continue;
        }
        let text: Vec<u8> = (0..=250).cycle().take(size).collect();
        queue.send(1, &text).expect("room");
        let mut buffer = Buffer::with_capacity(size);
        assert_eq!(queue.recv(Select::Any, &mut buffer), Ok(1));
        assert!(buffer.text() == text, "{size} bytes");
    }
    assert_eq!(error_of(queue.send(1, &vec![0; largest + 1])), "EINVAL");
}

#[test]
fn messages_outlive_their_sender() {
    let Removed(queue) = &Removed::new();
    let mut sender =
        Child::role("sysv_sender", &[queue.id().to_string(), "1:a".into(), "2:b".into()]);
    sender.expect("a");
    sender.expect("b");
    let pid = sender.id();
    sender.kill();
    let status = queue.status().expect("status");
    assert_eq!((status.queued_messages, status.queued_bytes), (2, 2));
    assert_eq!((status.last_sender_pid, status.last_receiver_pid), (pid, 0));
    assert_eq!(taken(queue, Select::Type(2)), message(2, "b"));
    assert_eq!(taken(queue, Select::Any), message(1, "a"));
    assert_eq!(queue.status().expect("status").last_receiver_pid, std::process::id());
}

#[test]
fn a_receiver_killed_while_waiting_takes_nothing_along() {
    let Removed(queue) = &Removed::new();
    let mut receiver = Child::role("sysv_receiver", &[queue.id()]);
    receiver.expect("receiving");
    queue.send(6, b"one").expect("room");
    receiver.expect("6:one");
    wait_until_blocked_in(receiver.id(), libc::SYS_msgrcv);
    receiver.kill();
    queue.send(7, b"two").expect("room");
    assert_eq!(taken(queue, Select::Any), message(7, "two"));
}

#[test]
fn a_full_queue_blocks_until_there_is_room() {
    let Removed(queue) = &Removed::with(&CreateOptions::new().max_bytes(8));
    assert_eq!(queue.status().expect("status").max_bytes, 8);
    // Larger than the queue is no error of its own: there is never room.
    assert_eq!(error_of(queue.try_send(1, b"nine byte")), "EAGAIN");
    queue.send(1, b"1234567").expect("room");
    assert_eq!(error_of(queue.try_send(1, b"89")), "EAGAIN");
    let mut sender = Child::role("sysv_sender", &[queue.id().to_string(), "2:89".into()]);
    wait_until_blocked_in(sender.id(), libc::SYS_msgsnd);
    assert_eq!(taken(queue, Select::Any), message(1, "1234567"));
    sender.expect("89");
    queue.send(1, b"123456").expect("room");
    let mut blocked = Child::role("sysv_sender", &[queue.id().to_string(), "3:x".into()]);
    wait_until_blocked_in(blocked.id(), libc::SYS_msgsnd);
    blocked.kill();
    assert_eq!(queue.status().expect("status").queued_messages, 2);
}

#[test]
fn removal_ends_every_wait() {
    let Removed(queue) = &Removed::with(&CreateOptions::new().max_bytes(4));
    let mut receiver = Child::role("sysv_receiver", &[queue.id()]);
    receiver.expect("receiving");
    wait_until_blocked_in(receiver.id(), libc::SYS_msgrcv);
    queue.remove().expect("removed");
    receiver.expect("EIDRM");
    assert_eq!(taken(queue, Select::Any), Err("EINVAL"));
    assert_eq!(error_of(queue.send(1, b"")), "EINVAL");
    assert_eq!(error_of(queue.status()), "EINVAL");
    assert_eq!(error_of(queue.remove()), "EINVAL");

    let Removed(full) = &Removed::with(&CreateOptions::new().max_bytes(4));
    full.send(1, b"full").expect("room");
    let mut sender = Child::role("sysv_sender", &[full.id().to_string(), "1:more".into()]);
    wait_until_blocked_in(sender.id(), libc::SYS_msgsnd);
    full.remove().expect("removed");
    sender.expect("EIDRM");
}

/// Waits for a message in calls that a signal ends, and in one that it does not.
pub(crate) fn interrupted(arguments: &[String]) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: sigaction is integers and pointers that may be null; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    report(rustix::thread::gettid().as_raw_nonzero());
    let queue = queue_of(arguments);
    let mut buffer = Buffer::with_capacity(64);
    let error = queue.recv_interruptible(Select::Any, &mut buffer).expect_err("a signal");
    report(format_args!("{:?}", error.kind()));
    let found = queue.recv(Select::Any, &mut buffer).expect("a message");
    report(found);
    queue.send(1, b"full").expect("room");
    let error = queue.send_interruptible(1, b"more").expect_err("a signal");
    report(format_args!("{:?}", error.kind()));
}

#[test]
fn a_signal_ends_a_wait_only_where_asked() {
    let Removed(queue) = &Removed::with(&CreateOptions::new().max_bytes(4));
    let mut child = Child::role("sysv_interrupted", &[queue.id()]);
    let thread: i32 = child.line().expect("a line").parse().expect("a thread id");
    let interrupt = |child: &Child, call| {
        wait_until_blocked_in(child.id(), call);
        // SAFETY: tgkill takes three integers.
        let sent = unsafe {
            libc::syscall(libc::SYS_tgkill, child.id().cast_signed(), thread, libc::SIGUSR1)
        };
        assert_eq!(sent, 0);
    };
    interrupt(&child, libc::SYS_msgrcv);
    child.expect("Interrupted");
    interrupt(&child, libc::SYS_msgrcv);
    wait_until_blocked_in(child.id(), libc::SYS_msgrcv);
    queue.send(8, b"x").expect("room");
    child.expect("8");
    interrupt(&child, libc::SYS_msgsnd);
    child.expect("Interrupted");
}

#[test]
fn keys_are_those_of_ftok() {
    let scratch = Scratch::new();
    let file = scratch.join("file");
    std::fs::write(&file, "").expect("a file");
    for path in [file.as_path(), scratch.path(), Path::new("/"), Path::new("/proc/self/exe")] {
        for id in [0, 1, b'A', 0x80, 0xff] {
            let c_path = CString::new(path.as_os_str().as_bytes()).expect("a path");
            // SAFETY: the path ends in NUL.
            let expected = unsafe { libc::ftok(c_path.as_ptr(), i32::from(id)) };
            assert_eq!(key_from_path(path, id), Ok(expected), "{path:?} {id}");
        }
    }
    assert_eq!(error_of(key_from_path(&scratch.join("none"), 1)), "ENOENT");
}

#[test]
fn a_key_finds_the_queue() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: b'Q' };
    assert_eq!(error_of(MessageQueue::open(&key)), "ENOENT");
    let options = CreateOptions::new().exclusive(true);
    let queue = Removed(MessageQueue::create(&key, &options).expect("a queue"));
    assert_eq!(MessageQueue::open(&key), Ok(queue.0));
    assert_eq!(MessageQueue::create(&key, &CreateOptions::new()), Ok(queue.0));
    assert_eq!(error_of(MessageQueue::create(&key, &options)), "EEXIST");
    let number = key_from_path(scratch.path(), b'Q').expect("a key");
    assert_eq!(queue.0.status().expect("status").key, number);
    assert_eq!(MessageQueue::open(&Key::Value(number)), Ok(queue.0));
}

#[test]
fn nothing_finds_a_private_queue() {
    for key in [Key::Private, Key::Value(0)] {
        assert_eq!(error_of(MessageQueue::open(&key)), "EINVAL");
    }
    let zero = MessageQueue::create(&Key::Value(0), &CreateOptions::new());
    assert_eq!(error_of(zero), "EINVAL");
    let (one, other) = (Removed::new(), Removed::new());
    assert_ne!(one.0, other.0);
    assert_eq!(one.0.status().expect("status").key, 0);
}

/// With a umask that would take everything, as an ordinary user: modes are exact, and are kept.
pub(crate) fn modes(_: &[String]) {
    become_ordinary_user();
    rustix::process::umask(Mode::from_raw_mode(0o777));
    let mut buffer = Buffer::with_capacity(64);
    for mode in [0o600, 0o666, 0o200, 0o400] {
        let options = CreateOptions::new().permissions(Permissions::new().mode(mode)).max_bytes(9);
        let queue = Removed::with(&options);
        let outcome = |result: Result<()>| result.map_or_else(|error| error.name(), |()| "done");
        let send = outcome(queue.0.try_send(1, b"x"));
        let recv = outcome(queue.0.try_recv(Select::Any, &mut buffer).map(drop));
        let found = queue.0.status().map_or(0, |status| status.mode);
        report(format_args!("{found:o} {send} {recv}"));
    }
    let taller = CreateOptions::new().max_bytes(limits().default_queue_bytes + 1);
    let foreign = CreateOptions::new().permissions(Permissions::new().owner(0).group(0));
    for options in [taller, foreign] {
        match MessageQueue::create(&Key::Private, &options) {
            Ok(queue) => {
                report("created");
                let _ = queue.remove();
            }
            Err(error) => report(error.name()),
        }
    }
}

#[test]
fn the_mode_is_exact_and_kept() {
    let mut child = Child::role::<&str>("sysv_modes", &[]);
    for expected in
        ["600 done done", "666 done done", "0 done EACCES", "400 EACCES ENOMSG", "EPERM"]
    {
        child.expect(expected);
    }
    // The owner may give a System V queue away.
    child.expect("created");
    assert!(child.wait().success());
}

#[test]
fn an_owner_and_a_group_can_be_given() {
    if !is_root() {
        return the_mode_is_exact_and_kept();
    }
    let permissions = Permissions::new().mode(0o640).owner(NOBODY).group(NOBODY);
    let queue = Removed::with(&CreateOptions::new().permissions(permissions));
    let status = queue.0.status().expect("status");
    assert_eq!((status.owner, status.group, status.mode), (NOBODY, NOBODY, 0o640));
    assert_eq!((status.creator, status.creator_group), (0, 0));
    assert_eq!(status.max_bytes, u64::from(limits().default_queue_bytes));
}

#[test]
fn limits_are_those_of_the_system() {
    let limits = limits();
    for (file, value) in [
        ("msgmax", limits.max_message_bytes),
        ("msgmnb", limits.default_queue_bytes),
        ("msgmni", limits.max_queues),
    ] {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{file}")).expect("a limit");
        assert_eq!(text.trim(), value.to_string(), "{file}");
    }
}

#[test]
fn python_reads_and_writes_the_same_queue() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: 42 };
    let queue = Removed(MessageQueue::create(&key, &CreateOptions::new()).expect("a queue"));
    queue.0.send(3, b"from rust").expect("room");
    let program = "import sysv_ipc, sys\n\
                   q = sysv_ipc.MessageQueue(sysv_ipc.ftok(sys.argv[1], 42, True))\n\
                   text, kind = q.receive(type=-5)\n\
                   print(text.decode(), kind)\n\
                   q.send('from python', type=4)\n";
    let path = scratch.path().to_str().expect("a path");
    let test = "python_reads_and_writes_the_same_queue";
    let Some(said) = python::run(test, "sysv_ipc", program, &[path]) else { return };
    assert_eq!(said, "from rust 3");
    assert_eq!(taken(&queue.0, Select::Any), message(4, "from python"));
}

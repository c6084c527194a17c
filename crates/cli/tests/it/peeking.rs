//! `peek`: what is queued, seen and not taken.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use serde_json::Value;
use switchboard_kernel::posix_mq::{self, Access, CreateOptions, MessageQueue};
use switchboard_kernel::sysv_msg::{self, Select};
use switchboard_kernel::sysv_shm::{self, Segment};
use switchboard_kernel::{Permissions, eventfd, fifo, memfd, pipe, posix_shm, unix_socket};
use switchboard_testkit::{Scratch, unique};

use crate::run::{Ended, Run, run};

fn peek(arguments: &[&str]) -> Ended {
    let all: Vec<&str> = ["peek"].iter().chain(arguments).copied().collect();
    run(Scratch::new().path(), &all, "")
}

fn json(arguments: &[&str]) -> Value {
    let all: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
    serde_json::from_slice(&peek(&all).code(0).stdout).expect("JSON")
}

fn own(fd: &impl AsRawFd) -> String {
    format!("pid:{}/fd:{}", std::process::id(), fd.as_raw_fd())
}

#[test]
fn a_pipe_keeps_what_it_has() {
    let (mut reader, mut writer) = std::io::pipe().expect("a pipe");
    peek(&[&own(&reader)]).code(0).prints("").says("nothing waits");
    writer.write_all(b"one\n\x1b[31mtwo\xff").expect("written");
    let shown = peek(&[&own(&reader)]).code(0);
    assert_eq!(shown.text(), "one\n\\x1b[31mtwo\\xff\n");
    let dump = peek(&["--hex", "--bytes", "4", &own(&reader)]).code(0).says("there is more");
    assert!(dump.text().starts_with("00000000  6f 6e 65 0a "), "{dump}");
    // The write end leads to the same pipe, which is looked into from the other one.
    assert_eq!(json(&[&own(&writer)])["bytes"]["len_bytes"], 13);
    drop(writer);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).expect("read");
    assert_eq!(all, b"one\n\x1b[31mtwo\xff", "nothing was taken");
}

#[test]
fn a_fifo_is_looked_into_by_its_reader() {
    let scratch = Scratch::new();
    let path = scratch.join("fifo");
    fifo::create(&path, Permissions::default()).expect("a FIFO");
    let reader = fifo::open_reader(&path).expect("a reader");
    let mut writer = std::fs::OpenOptions::new().write(true).open(&path).expect("a writer");
    writer.write_all(b"waits").expect("written");
    let shown = peek(&[path.to_str().expect("a path")]).code(0);
    assert_eq!(shown.text(), "waits\n");
    let mut bytes = [0; 9];
    assert_eq!(rustix::io::read(&reader, &mut bytes), Ok(5));
}

#[test]
fn sockets_with_descriptors_in_flight() {
    let (here, mut there) = UnixStream::pair().expect("a pair");
    let (lent, _other) = pipe::pipe().expect("a pipe");
    unix_socket::send_with_fds(&here, b"with a pipe", &[lent.as_fd()]).expect("sent");
    let inode = rustix::fs::fstat(&lent).expect("a status").st_ino;
    for _ in 0..3 {
        let seen = json(&[&own(&there)]);
        assert_eq!(seen["bytes"]["text"], "with a pipe", "{seen}");
        assert_eq!(seen["descriptors"][0], format!("pipe:{inode}"), "{seen}");
        assert!(seen["in_flight"].is_null() || seen["in_flight"] == 1, "{seen}");
    }
    let mut text = [0; 11];
    there.read_exact(&mut text).expect("read");
    assert_eq!(&text, b"with a pipe");

    let (here, there) = UnixDatagram::pair().expect("a pair");
    for text in [&b"first"[..], b"second"] {
        here.send(text).expect("sent");
    }
    let seen = json(&[&own(&there)]);
    assert_eq!(seen["messages"][0]["text"], "first", "{seen}");
    assert_eq!(seen["messages"].as_array().map(Vec::len), Some(1));
    let mut text = [0; 9];
    assert_eq!(there.recv(&mut text).expect("received"), 5);
}

#[test]
fn tcp_and_what_listens() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let mut client = std::net::TcpStream::connect(listener.local_addr().expect("an address"))
        .expect("connected");
    let (mut server, _) = listener.accept().expect("accepted");
    client.write_all(b"GET / HTTP/1.0\r\n").expect("written");
    let until = std::time::Instant::now() + switchboard_testkit::DEADLINE;
    while json(&[&own(&server)])["bytes"]["len_bytes"] != 16 {
        assert!(std::time::Instant::now() < until, "it arrives");
    }
    peek(&[&own(&listener)]).code(1).says("it listens");
    let mut text = [0; 16];
    server.read_exact(&mut text).expect("read");
    assert_eq!(&text, b"GET / HTTP/1.0\r\n");
}

#[test]
fn an_owner_that_peeks_from_an_offset_is_left_alone() {
    let (mut here, there) = UnixStream::pair().expect("a pair");
    here.write_all(b"abc").expect("written");
    unix_socket::set_peek_offset(&there, 1).expect("set");
    peek(&[&own(&there)]).code(5).says("SO_PEEK_OFF");
    assert_eq!(unix_socket::peek_offset(&there), Ok(Some(1)));
}

#[test]
fn queues() {
    let queue =
        sysv_msg::MessageQueue::create(&sysv_msg::Key::Private, &sysv_msg::CreateOptions::new())
            .expect("a queue");
    for (kind, text) in [(7, &b"seven"[..]), (2, b"two")] {
        queue.send(kind, text).expect("sent");
    }
    let id = format!("sysv-msg:{}", queue.id());
    let seen = json(&[&id]);
    let shown = peek(&[&id]);
    let left = queue.status().map(|status| status.queued_messages);
    let mut buffer = sysv_msg::Buffer::with_capacity(9);
    let first = queue.try_recv(Select::Any, &mut buffer);
    queue.remove().expect("removed");
    assert_eq!(
        (&seen["messages"][0]["type"], &seen["messages"][1]["text"]),
        (&7.into(), &"two".into())
    );
    assert_eq!(shown.code(0).text(), "type 7, 5 bytes:\nseven\ntype 2, 3 bytes:\ntwo\n");
    assert_eq!((left, first), (Ok(2), Ok(7)));

    let name = format!("/{}", unique("peek"));
    let options = CreateOptions::new().max_messages(1).message_size_bytes(8);
    let queue = MessageQueue::create(&name, Access::Both, &options).expect("a queue");
    queue.send(b"x", 0).expect("sent");
    let ended = peek(&[&own(&queue.as_fd())]);
    let left = queue.attributes().expect("attributes").waiting_messages;
    posix_mq::unlink(&name).expect("unlinked");
    ended.code(1).says("no way to look into a POSIX queue");
    assert_eq!(left, 1);
}

#[test]
fn memory_and_counts() {
    let name = format!("/{}", unique("peek"));
    let segment =
        posix_shm::Segment::create(&name, 4096, Permissions::default()).expect("a segment");
    let map = segment.map(switchboard_kernel::mmap::Mode::ReadWrite).expect("a mapping");
    map.write_at(0, b"in memory").expect("written");
    let seen = json(&[&format!("posix-shm:{name}"), "--bytes", "9"]);
    posix_shm::unlink(&name).expect("unlinked");
    assert_eq!((&seen["bytes"]["text"], &seen["more"]), (&"in memory".into(), &true.into()));

    let unnamed = memfd::Memfd::create("peek", 4096).expect("memory");
    let map = unnamed.map(switchboard_kernel::mmap::Mode::ReadWrite).expect("a mapping");
    map.write_at(0, b"no name").expect("written");
    assert_eq!(json(&[&own(&unnamed.as_fd()), "--bytes", "7"])["bytes"]["text"], "no name");

    let options = sysv_shm::CreateOptions::new();
    let segment = Segment::create(&sysv_shm::Key::Private, 4096, &options).expect("a segment");
    let memory = segment.attach(sysv_shm::Access::ReadWrite).expect("attached");
    segment.remove().expect("goes with this test");
    memory.write_at(0, b"attached").expect("written");
    let last = segment.status().expect("there").last_user_pid;
    let seen = json(&[&format!("sysv-shm:{}", segment.id()), "--bytes", "8"]);
    assert_eq!(seen["bytes"]["text"], "attached");
    let now = segment.status().expect("there").last_user_pid;
    assert!(now == last || seen["notes"][0].is_string(), "{seen}");

    let counter = eventfd::EventFd::new(5).expect("an eventfd");
    assert_eq!(json(&[&own(&counter.as_fd())])["count"], 5);
}

#[test]
fn follows_what_changes() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let scratch = Scratch::new();
    let follow =
        Run::start(scratch.path(), &["peek", "--follow", "--every", "20ms", &own(&reader)]);
    follow.wait_stderr("nothing waits");
    writer.write_all(b"now\n").expect("written");
    follow.wait_stdout("the line", |out| out == b"now\n");
    follow.signal(switchboard_kernel::process::Signal::INT);
    follow.wait().code(1).says("interrupted: 2 heads shown");
}

#[test]
fn what_cannot_be_looked_into() {
    peek(&["pid:1"]).code(2).says("is a process");
    peek(&["/nothing/there"]).code(3).says("nothing here is called");
    peek(&["--bytes", "much", "x"]).code(2);
}

//! Every kind of object, made here and held by another process, is found with what it is and who has it.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use switchboard_inspect::{End, Kind, Object, Request, Snapshot, Via};
use switchboard_kernel::epoll::Epoll;
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::file_lock::{Lock, Mode};
use switchboard_kernel::io::Interest;
use switchboard_kernel::memfd::{Memfd, Seals};
use switchboard_kernel::posix_mq::{self, Access, CreateOptions, MessageQueue};
use switchboard_kernel::pty::Master;
use switchboard_kernel::signal::{Signal, SignalSet};
use switchboard_kernel::signalfd::SignalFd;
use switchboard_kernel::timerfd::TimerFd;
use switchboard_kernel::unix_socket::{self, Kind as Socket};
use switchboard_kernel::{Permissions, fifo, pidfd, pipe};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch, unique};

fn pid() -> u32 {
    std::process::id()
}

/// The objects of these kinds that this process has, or some process.
fn snapshot(kinds: &[Kind]) -> Snapshot {
    Request::of(kinds.iter().copied()).details().take()
}

#[track_caller]
fn of_descriptor<'a>(snapshot: &'a Snapshot, fd: &impl AsRawFd) -> &'a Object {
    let via = Via::Fd(fd.as_raw_fd());
    let has = |object: &&Object| object.ends.iter().any(|end| end.pid == pid() && end.via == via);
    snapshot.objects.iter().find(has).expect("an object of this descriptor")
}

#[test]
fn a_pipe_with_its_fill_and_directions() {
    let (read, write) = pipe::pipe().expect("a pipe");
    switchboard_kernel::io::write_all(&write, b"four").expect("written");
    let seen = snapshot(&[Kind::Pipe]);
    let object = of_descriptor(&seen, &read);
    assert_eq!(object.id, of_descriptor(&seen, &write).id);
    assert_eq!((object.fill, object.size), (Some(4), Some(65536)));
    let directions = |fd: &OwnedFd| {
        let via = Via::Fd(fd.as_raw_fd());
        let end = object.ends.iter().find(|end| end.via == via && end.pid == pid());
        end.map(|end| (end.reads, end.writes))
    };
    assert_eq!(directions(&read), Some((true, false)));
    assert_eq!(directions(&write), Some((false, true)));
    assert_eq!(object.mode, Some(0o600));
    assert!(seen.objects.iter().all(|object| object.kind == Kind::Pipe));
}

#[test]
fn a_fifo_by_its_path() {
    let scratch = Scratch::new();
    let path = scratch.join("a\nb");
    fifo::create(&path, Permissions::default()).expect("a FIFO");
    let reader = fifo::open_reader(&path).expect("a reader");
    let seen = snapshot(&[Kind::Fifo]);
    let object = of_descriptor(&seen, &reader);
    assert!(object.names.iter().any(|name| name.ends_with("/a\\nb")), "{:?}", object.names);
    assert_eq!(object.fill, Some(0));
}

#[test]
fn unix_sockets_know_their_peers() {
    let (here, there) = unix_socket::pair(Socket::Stream).expect("a pair");
    switchboard_kernel::io::write_all(&here, b"hello").expect("written");
    let seen = snapshot(&[Kind::Unix]);
    let (a, b) = (of_descriptor(&seen, &here), of_descriptor(&seen, &there));
    assert_eq!(a.peer.as_deref(), Some(b.id.as_str()));
    assert_eq!(b.peer.as_deref(), Some(a.id.as_str()));
    assert_eq!(b.fill, Some(5));
    assert_eq!(a.state.as_deref(), Some("connected"));
}

#[test]
fn a_listener_says_how_many_wait() {
    let scratch = Scratch::new();
    let path = scratch.join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a listener");
    let client = std::os::unix::net::UnixStream::connect(&path).expect("a client");
    let seen = snapshot(&[Kind::Unix]);
    let object = of_descriptor(&seen, &listener);
    assert!(object.is_listening());
    assert_eq!(object.fill, Some(1));
    assert_eq!(object.names, [path.to_str().expect("a path")]);
    let client = of_descriptor(&seen, &client);
    assert_eq!(client.peer.as_deref(), Some(object.id.as_str()), "not accepted: {client:?}");
}

#[test]
fn tcp_and_udp_by_address() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let place = listener.local_addr().expect("an address");
    let client = std::net::TcpStream::connect(place).expect("a client");
    let (server, _) = listener.accept().expect("a connection");
    let six = std::net::UdpSocket::bind("[::1]:0");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let seen = snapshot(&[Kind::Tcp, Kind::Udp]);
    let object = of_descriptor(&seen, &listener);
    assert!(object.is_listening() && object.names.contains(&place.to_string()), "{object:?}");
    let (client, server) = (of_descriptor(&seen, &client), of_descriptor(&seen, &server));
    assert_eq!(client.peer.as_deref(), Some(server.id.as_str()));
    assert_eq!(server.peer.as_deref(), Some(client.id.as_str()));
    let local = udp.local_addr().expect("an address").to_string();
    assert!(of_descriptor(&seen, &udp).names.contains(&local));
    if let Ok(six) = six {
        let local = six.local_addr().expect("an address").to_string();
        assert!(of_descriptor(&seen, &six).names.contains(&local));
    }
}

#[test]
fn a_posix_queue_with_its_depth() {
    let name = format!("/{}", unique("inspect"));
    let options = CreateOptions::new().max_messages(3).message_size_bytes(16);
    let queue = MessageQueue::create(&name, Access::Both, &options).expect("a queue");
    queue.send(b"one", 0).expect("sent");
    let seen = snapshot(&[Kind::Mq]);
    posix_mq::unlink(&name).expect("unlinked");
    let fd: OwnedFd = queue.into();
    let object = of_descriptor(&seen, &fd);
    assert_eq!((object.fill, object.size), (Some(1), Some(3)));
    assert!(object.names.contains(&name), "{:?}", object.names);
}

#[test]
fn memory_is_found_where_it_is_mapped() {
    let memory = Memfd::create("engine", 8192).expect("memory");
    memory.add_seals(Seals::GROW).expect("sealed");
    let _mapping = memory.map(switchboard_kernel::mmap::Mode::ReadWrite).expect("a mapping");
    let seen = snapshot(&[Kind::Memfd]);
    let named = |object: &&Object| {
        object.names.contains(&"engine".to_owned())
            && object.ends.iter().any(|end| end.pid == pid() && matches!(end.via, Via::Map(_)))
    };
    let object = seen.objects.iter().find(named).expect("the memory");
    assert_eq!(object.size, Some(8192));
    let seals = object.details.get("seals").unwrap_or_default();
    assert!(seals.contains("grow"), "{:?}", object.details);
}

#[test]
fn what_has_no_file() {
    let event = EventFd::new(7).expect("an eventfd");
    let epoll = Epoll::new().expect("an epoll");
    epoll.add(&event, 1, Interest::Readable).expect("added");
    let signals = SignalFd::new(&SignalSet::empty().with(Signal::USR1)).expect("a signalfd");
    let timer = TimerFd::new().expect("a timer");
    let own = pidfd::open(pid()).expect("a pidfd");
    let pty = Master::open().expect("a pty");
    let slave = pty.open_slave().expect("a slave");
    let kinds = [Kind::Eventfd, Kind::Epoll, Kind::Signalfd, Kind::Timerfd, Kind::Pidfd, Kind::Pty];
    let seen = snapshot(&kinds);
    use std::os::fd::AsFd;
    let by = |fd: std::os::fd::BorrowedFd<'_>| of_descriptor(&seen, &fd).clone();
    assert_eq!(by(event.as_fd()).fill, Some(7));
    assert_eq!(by(epoll.as_fd()).details.get("watches"), Some("1"));
    assert_eq!(by(signals.as_fd()).details.get("signals"), Some("10"));
    assert_eq!(by(timer.as_fd()).state.as_deref(), Some("not armed"));
    assert_eq!(by(own.as_fd()).state, Some(format!("process {}", pid()).into()));
    let terminal = by(slave.as_fd());
    let master = by(pty.as_fd());
    assert_eq!(
        (&terminal.peer, &master.peer),
        (&Some(master.id.clone()), &Some(terminal.id.clone()))
    );
    assert_eq!(master.id, format!("{}/master", terminal.id));
}

#[test]
fn locks_with_their_holders() {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(b"x").expect("written");
    let _held = Lock::open_file(Mode::Exclusive).lock(&file).expect("a lock");
    let seen = snapshot(&[Kind::Lock]);
    let object = of_descriptor(&seen, &file);
    let lock = object.locks.iter().find(|lock| lock.holders.contains(&pid())).expect("the lock");
    assert!(lock.exclusive && !lock.waiting);
    assert_eq!(lock.end, None);
}

#[test]
fn one_that_stays_is_found_while_others_below_it_come_and_go() {
    const MANY: usize = 24;
    let below: Vec<OwnedFd> =
        (0..MANY).map(|_| EventFd::new(0).expect("an eventfd").into()).collect();
    let stays: OwnedFd = EventFd::new(7).expect("an eventfd").into();
    drop(below);
    let end = AtomicBool::new(false);
    let missed = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                let _: Vec<EventFd> = (0..MANY).filter_map(|_| EventFd::new(0).ok()).collect();
            }
        });
        let is_it = |end: &End| end.pid == pid() && end.via == Via::Fd(stays.as_raw_fd());
        let looks = (0..200).map(|_| snapshot(&[Kind::Pidfd, Kind::Eventfd]));
        let missed = looks
            .filter(|seen| !seen.objects.iter().any(|object| object.ends.iter().any(is_it)))
            .count();
        end.store(true, Ordering::Relaxed);
        missed
    });
    assert_eq!(missed, 0, "of 200 looks");
}

/// One that somebody else took over when its parent ended, and one whose parent is there.
#[test]
fn an_orphan_is_told_from_a_child() {
    use std::process::{Command, Stdio};
    let mut shell = Command::new("setsid");
    shell.args(["sh", "-c", "sleep 100 >/dev/null 2>&1 & echo $!"]).stdin(Stdio::null());
    let said = shell.output().expect("a shell").stdout;
    let orphan: u32 = String::from_utf8_lossy(&said).trim().parse().expect("a number");
    let mut sleep = Command::new("sleep").arg("100").spawn().expect("a child");
    let seen = snapshot(&[Kind::Pipe]);
    let told =
        [orphan, sleep.id()].map(|pid| seen.process(pid).map(|process| seen.is_orphan(process)));
    sleep.kill().expect("killed");
    sleep.wait().expect("an end");
    let orphan = pidfd::open(orphan).expect("a process");
    pidfd::send_signal(&orphan, Signal::KILL).expect("killed");
    assert_eq!(told, [Some(true), Some(false)], "{seen:#?}");
}

/// A child with a hostile name that holds a pipe.
pub(crate) fn holder(arguments: &[String]) {
    let name = arguments[0].replace("NL", "\n");
    std::fs::write("/proc/self/comm", name).expect("a name");
    report("ready");
    let _ = instruction();
}

#[test]
fn a_name_cannot_speak_to_the_terminal() {
    let mut child = Child::role("objects-holder", &["x\u{1b}[2JNL]: y"]);
    child.expect("ready");
    let seen = snapshot(&[Kind::Pipe]);
    let process = seen.process(child.id()).expect("the child");
    let label = process.label();
    assert_eq!(label, format!("\"x\\x1b[2J\\n]: y\"[{}]", child.id()));
    let json = String::from_utf8(seen.to_json()).expect("text");
    assert!(!json.contains('\u{1b}') && !json.contains('\n'));
    let again = Snapshot::from_json(json.as_bytes()).expect("a snapshot");
    assert_eq!(again, seen);
}

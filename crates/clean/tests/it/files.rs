//! Memory, semaphores, FIFOs and files of sockets.

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use switchboard_clean::error::Reason;
use switchboard_clean::target::file;
use switchboard_clean::{Limits, Target};
use switchboard_inspect::Kind;
use switchboard_kernel::posix_shm::{self, Access, Segment};
use switchboard_kernel::{Permissions, fifo, posix_sem, unix_socket};
use switchboard_testkit::{Child, unique};

use crate::stage::{Stage, seen};

/// A file in /dev/shm with bytes in it; goes when it is dropped, if it is there still.
struct Shared(String);

impl Shared {
    fn new(mode: u32, bytes: &[u8]) -> Self {
        let name = format!("/{}", unique("clean"));
        let permissions = Permissions::new().mode(mode);
        let segment = Segment::create(&name, bytes.len() as u64, permissions).expect("a segment");
        let map = segment.map(switchboard_kernel::mmap::Mode::ReadWrite).expect("a mapping");
        map.write_at(0, bytes).expect("written");
        Self(name)
    }

    fn path(&self) -> PathBuf {
        format!("/dev/shm{}", self.0).into()
    }

    fn target(&self) -> Target {
        let path = self.path();
        seen(Kind::PosixShm, |object| object.names.iter().any(|name| Path::new(name) == path))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let _ = posix_shm::unlink(&self.0);
    }
}

/// A file as a snapshot would show it.
pub(crate) fn of_file(kind: Kind, path: &Path) -> Target {
    let found = std::fs::metadata(path).expect("a file");
    let device = (rustix_major(found.dev()), rustix_minor(found.dev()), found.ino());
    Target { object: format!("{kind}:x"), kind, place: file(path), file: Some(device) }
}

fn rustix_major(device: u64) -> u32 {
    rustix::fs::major(device)
}

fn rustix_minor(device: u64) -> u32 {
    rustix::fs::minor(device)
}

#[test]
fn memory_goes_and_comes_back() {
    let stage = Stage::new();
    let mut bytes = vec![0; 300_000];
    bytes[7] = 1;
    bytes[299_999] = 2;
    let shared = Shared::new(0o640, &bytes);
    let (run, done) = stage.remove_at_last(&shared.target());
    assert_eq!(done.expect("removed").kept_bytes, 300_000);
    assert!(!shared.path().exists());
    let restored = stage.restore(&run).expect("restored");
    assert_eq!(restored.lost, Vec::<String>::new());
    assert!(std::fs::read(shared.path()).expect("it is there") == bytes);
    let mode = std::fs::metadata(shared.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    let again = stage.restore(&run).expect_err("it is there already");
    assert_eq!(again.reason(), Reason::Refused);
}

#[test]
fn a_name_that_exists_is_not_overwritten() {
    let stage = Stage::new();
    let shared = Shared::new(0o600, b"old");
    let (run, done) = stage.remove_at_last(&shared.target());
    done.expect("removed");
    std::fs::write(shared.path(), "new").expect("written");
    assert_eq!(stage.restore(&run).expect_err("taken").reason(), Reason::Exists);
    assert_eq!(std::fs::read(shared.path()).expect("there"), b"new");
    std::fs::remove_file(shared.path()).expect("removed");
    stage.restore(&run).expect("free now");
    assert_eq!(std::fs::read(shared.path()).expect("there"), b"old");
}

#[test]
fn memory_that_somebody_has_stays() {
    let stage = Stage::new();
    let shared = Shared::new(0o600, b"held");
    let target = shared.target();
    let check = |how: &str| {
        let inode = std::fs::metadata(shared.path()).expect("it is there").ino();
        let (run, done) = stage.remove(&target);
        assert_eq!(done.expect_err(how).reason(), Reason::InUse, "{how}");
        assert_eq!(std::fs::metadata(shared.path()).expect("it is there").ino(), inode);
        // A run that removed nothing leaves nothing.
        assert!(stage.journal.read(&run).is_err());
    };
    for how in ["mapped", "open"] {
        let mut child = Child::role("clean-holder", &[how, &shared.0]);
        child.expect("ready");
        check(how);
        child.kill();
    }
    // In flight: nobody has it, and it comes out of the socket again.
    let (here, there) = UnixStream::pair().expect("a pair");
    let segment = Segment::open(&shared.0, Access::ReadOnly).expect("open");
    unix_socket::send_with_fds(&here, b"x", &[segment.as_fd()]).expect("sent");
    drop(segment);
    check("in flight");
    let (_, fds) = unix_socket::recv_with_fds(&there, &mut [0; 8], 1).expect("received");
    check("received");
    drop(fds);
    // A second name keeps it.
    let other = shared.path().with_extension("other");
    std::fs::hard_link(shared.path(), &other).expect("a link");
    check("two names");
    std::fs::remove_file(&other).expect("removed");
    let until = std::time::Instant::now() + switchboard_testkit::DEADLINE;
    while stage.remove(&target).1.is_err() {
        assert!(std::time::Instant::now() < until, "nobody has it any more");
    }
}

#[test]
fn what_has_its_name_now_is_not_touched() {
    let stage = Stage::new();
    let shared = Shared::new(0o600, b"old");
    let target = shared.target();
    let keeps_the_inode = Segment::open(&shared.0, Access::ReadOnly).expect("open");
    std::fs::remove_file(shared.path()).expect("removed");
    std::fs::write(shared.path(), "new").expect("written");
    assert_eq!(stage.remove(&target).1.expect_err("another").reason(), Reason::Gone);
    assert_eq!(std::fs::read(shared.path()).expect("there"), b"new");
    drop(keeps_the_inode);
}

#[test]
fn what_does_not_fit_into_the_journal_stays() {
    let stage = Stage::new();
    let shared = Shared::new(0o600, &[5; 5000]);
    let target = shared.target();
    let (_, done) = stage.remove_at_last_within(&target, Limits { most_bytes: 4999 });
    let error = done.expect_err("too large");
    assert_eq!(error.reason(), Reason::TooLarge);
    assert!(error.to_string().contains("5000 bytes"), "{error}");
    assert_eq!(std::fs::read(shared.path()).expect("there"), [5; 5000]);
    stage.remove_at_last_within(&target, Limits { most_bytes: 5000 }).1.expect("fits");
}

#[test]
fn a_semaphore_keeps_its_count() {
    let stage = Stage::new();
    let name = format!("/{}", unique("clean"));
    let options = posix_sem::CreateOptions::new().value(5);
    drop(posix_sem::Semaphore::create(&name, &options).expect("a semaphore"));
    let path = format!("/dev/shm/sem.{}", &name[1..]);
    let target = seen(Kind::PosixSem, |object| object.names.contains(&path));
    let held = posix_sem::Semaphore::open(&name).expect("open");
    assert_eq!(stage.remove(&target).1.expect_err("mapped").reason(), Reason::InUse);
    drop(held);
    let (run, done) = stage.remove_at_last(&target);
    done.expect("removed");
    assert!(posix_sem::Semaphore::open(&name).is_err());
    stage.restore(&run).expect("restored");
    assert_eq!(posix_sem::Semaphore::open(&name).expect("there").value(), 5);
    posix_sem::unlink(&name).expect("unlinked");
}

#[test]
fn a_fifo_with_a_reader_or_a_waiting_opener_stays() {
    let stage = Stage::new();
    let path = stage.path("fifo");
    fifo::create(&path, Permissions::new().mode(0o620)).expect("a FIFO");
    let target = of_file(Kind::Fifo, &path);
    let name = path.to_str().expect("a path");
    let mut child = Child::role("clean-holder", &["fifo", name]);
    child.expect("ready");
    assert_eq!(stage.remove(&target).1.expect_err("read").reason(), Reason::InUse);
    child.kill();
    let mut waits = std::process::Command::new("cat").arg(&path).spawn().expect("cat");
    let until = std::time::Instant::now() + switchboard_testkit::DEADLINE;
    let sleeps_in_open = |pid: u32| {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        let number: i64 = call.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(-1);
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm == "cat\n" && number == libc_openat()
    };
    while !sleeps_in_open(waits.id()) {
        assert!(std::time::Instant::now() < until, "cat waits");
        std::thread::yield_now();
    }
    let done = stage.remove(&target).1;
    waits.kill().expect("killed");
    waits.wait().expect("an end");
    assert_eq!(done.expect_err("an opener").reason(), Reason::InUse);
    assert!(path.exists());
    let until = std::time::Instant::now() + switchboard_testkit::DEADLINE;
    let run = loop {
        // Sockets of other tests may have descriptors in flight.
        let (run, done) = stage.remove(&target);
        match done {
            Ok(_) => break run,
            Err(error) => assert_eq!(error.reason(), Reason::Unseen, "{error}"),
        }
        assert!(std::time::Instant::now() < until, "nobody has it");
    };
    assert!(!path.exists());
    stage.restore(&run).expect("restored");
    let mode = std::fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o620);
}

/// A process whose first thread has ended shows what it has with its other threads only.
#[test]
fn a_fifo_of_a_process_without_its_first_thread_stays() {
    let stage = Stage::new();
    let path = stage.path("fifo");
    fifo::create(&path, Permissions::new().mode(0o620)).expect("a FIFO");
    let target = of_file(Kind::Fifo, &path);
    let program = "import ctypes, sys, threading, time
held = open(sys.argv[1], 'r+b', 0)
threading.Thread(target=lambda: time.sleep(1000)).start()
ctypes.CDLL(None).syscall(int(sys.argv[2]), 0)";
    let exit = if cfg!(target_arch = "x86_64") { "60" } else { "93" };
    let mut command = std::process::Command::new("python3");
    let command = command.args(["-c", program]).arg(&path).arg(exit);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            return switchboard_testkit::skip::skip("without its first thread", &error.to_string());
        }
    };
    let stat = format!("/proc/{}/stat", child.id());
    let until = std::time::Instant::now() + switchboard_testkit::DEADLINE;
    while !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") Z ")) {
        assert!(std::time::Instant::now() < until, "the first thread ends");
        std::thread::yield_now();
    }
    let done = stage.remove(&target).1;
    child.kill().expect("killed");
    child.wait().expect("an end");
    assert_eq!(done.expect_err("open").reason(), Reason::InUse);
    assert!(path.exists());
}

fn libc_openat() -> i64 {
    // The same on all machines that this is built for but for the number itself.
    if cfg!(target_arch = "x86_64") { 257 } else { 56 }
}

#[test]
fn the_file_of_a_dead_socket_goes_and_of_a_living_one_stays() {
    let stage = Stage::new();
    for (name, how) in [("a.sock", "socket"), ("b.sock", "datagrams")] {
        let path = stage.path(name);
        let mut child = Child::role("clean-holder", &[how, path.to_str().expect("a path")]);
        child.expect("ready");
        let target = of_file(Kind::Unix, &path);
        assert_eq!(stage.remove(&target).1.expect_err(how).reason(), Reason::InUse, "{how}");
        assert!(path.exists());
        child.kill();
        let (run, done) = stage.remove(&target);
        done.expect("removed");
        assert!(!path.exists());
        assert_eq!(stage.restore(&run).expect_err("a socket").reason(), Reason::Refused);
    }
}

#[test]
fn nobody_notices_that_a_socket_is_asked() {
    let stage = Stage::new();
    let (stream, datagrams) = (stage.path("s"), stage.path("d"));
    let listener = UnixListener::bind(&stream).expect("a listener");
    listener.set_nonblocking(true).expect("set");
    let receiver = UnixDatagram::bind(&datagrams).expect("a receiver");
    receiver.set_nonblocking(true).expect("set");
    for path in [&stream, &datagrams] {
        assert!(stage.remove(&of_file(Kind::Unix, path)).1.is_err());
    }
    assert!(listener.accept().is_err(), "nobody connected");
    assert!(receiver.recv(&mut [0; 1]).is_err(), "nothing came");
    // One that is bound and does not listen has its file, too.
    drop(listener);
    std::fs::remove_file(&stream).expect("removed");
    let bound = unix_socket::socket(unix_socket::Kind::Stream, false).expect("a socket");
    let address = unix_socket::Address::Path(stream.clone());
    unix_socket::bind(&bound, &address, Permissions::default()).expect("bound");
    let done = stage.remove(&of_file(Kind::Unix, &stream)).1;
    assert_eq!(done.expect_err("bound").reason(), Reason::InUse);
}

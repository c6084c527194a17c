//! Tests of `pipe.rs`.

use std::os::fd::AsFd;

use rustix::io::FdFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::pipe::{self, PIPE_BUF};
use switchboard_kernel::{ErrorKind, Result};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE};

use crate::hand_over;
use crate::python::{self, Death};

/// Writes until nothing more fits; the descriptor must be non-blocking.
pub(crate) fn fill(fd: impl AsFd) -> Result<usize> {
    let mut total = 0;
    loop {
        match io::write(fd.as_fd(), &[b'x'; PIPE_BUF]) {
            Ok(n) => total += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(total),
            Err(error) => return Err(error),
        }
    }
}

#[test]
fn a_killed_writer_is_end_of_file() {
    let (reader, writer) = pipe::pipe_nonblocking().unwrap();
    io::write_all(&writer, b"last words").unwrap();
    let mut child = hand_over::start("hand-over-holder", &[], &[writer.as_fd()]);
    child.expect("holding");
    drop(writer);
    let mut buffer = [0; 64];
    assert_eq!(io::read(&reader, &mut buffer), Ok(10));
    assert_eq!(io::read(&reader, &mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    child.kill();
    hand_over::ready(&reader);
    assert_eq!(io::read(&reader, &mut buffer), Ok(0));
}

#[test]
fn a_killed_reader_is_a_broken_pipe() {
    let (reader, writer) = pipe::pipe_nonblocking().unwrap();
    let mut child = hand_over::start("hand-over-holder", &[], &[reader.as_fd()]);
    child.expect("holding");
    drop(reader);
    fill(&writer).unwrap();
    child.kill();
    assert!(wait_for(&writer, Interest::Writable, Deadline::after(DEADLINE)).unwrap());
    let error = io::write(&writer, b"anybody?").unwrap_err();
    assert_eq!((error.kind(), error.call()), (ErrorKind::BrokenPipe, "write"));
}

#[test]
fn descriptors_are_closed_on_exec() {
    let (reader, writer) = pipe::pipe().unwrap();
    for fd in [&reader, &writer] {
        assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
        assert!(pipe::is_pipe(fd));
    }
    assert!(!pipe::is_pipe(std::fs::File::open("/dev/null").unwrap()));
}

#[test]
fn a_full_pipe_would_block_and_takes_no_part_of_a_small_write() {
    let (reader, writer) = pipe::pipe_nonblocking().unwrap();
    let room = pipe::capacity(&writer).unwrap();
    assert_eq!(fill(&writer), Ok(room));
    assert_eq!(io::read(&reader, &mut [0; 100]), Ok(100));
    assert_eq!(io::write(&writer, &[0; PIPE_BUF]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(io::bytes_waiting(&reader), Ok(room as u64 - 100));
}

#[test]
fn capacity_grows_and_shrinks_as_asked() {
    let (reader, writer) = pipe::pipe_nonblocking().unwrap();
    assert!(pipe::capacity(&reader).unwrap() >= PIPE_BUF);
    assert_eq!(pipe::set_capacity(&writer, 100_000), Ok(131_072));
    assert_eq!(pipe::capacity(&reader), Ok(131_072));
    assert_eq!(fill(&writer), Ok(131_072));
    let error = pipe::set_capacity(&writer, PIPE_BUF).unwrap_err();
    assert_eq!(error.name(), "EBUSY");
    let file = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(pipe::capacity(&file).unwrap_err().name(), "EBADF");
}

#[test]
fn grow_never_shrinks_and_never_fails() {
    let (_reader, writer) = pipe::pipe().unwrap();
    let before = pipe::capacity(&writer).unwrap();
    assert_eq!(pipe::grow(&writer, 1), before);
    assert_eq!(pipe::grow(&writer, 2 * before), 2 * before);
    assert_eq!(pipe::grow(&writer, before), 2 * before);
    assert_eq!(pipe::grow(std::fs::File::open("/dev/null").unwrap(), before), 0);
}

#[test]
fn an_ordinary_user_is_held_to_the_limit() {
    let mut child = Child::role::<&str>("pipe-unprivileged", &[]);
    child.expect("EPERM");
    child.expect("as large as allowed");
}

/// Role: asks for more than an ordinary user gets.
pub(crate) fn unprivileged(_: &[String]) {
    if rustix::process::geteuid().is_root() {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
    }
    let limit = std::fs::read_to_string("/proc/sys/fs/pipe-max-size").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let (_reader, writer) = pipe::pipe().unwrap();
    report(pipe::set_capacity(&writer, 2 * limit).unwrap_err().name());
    let size = pipe::grow(&writer, 4 * limit);
    assert_eq!(pipe::capacity(&writer), Ok(size));
    if size == limit {
        report("as large as allowed");
    } else {
        report(format_args!("{size} bytes of {limit}"));
    }
}

#[test]
fn small_writes_of_many_processes_are_never_mixed() {
    const WRITERS: usize = 4;
    let (reader, writer) = pipe::pipe().unwrap();
    let children: Vec<Child> = (0..WRITERS)
        .map(|id| hand_over::start("pipe-writer", &[&id.to_string()], &[writer.as_fd()]))
        .collect();
    drop(writer);
    let mut counts = [0; WRITERS];
    loop {
        let mut head = [0; 3];
        match io::read_full(&reader, &mut head).unwrap() {
            0 => break,
            n => assert_eq!(n, head.len()),
        }
        let mut body = vec![0; usize::from(u16::from_le_bytes([head[1], head[2]]))];
        assert_eq!(io::read_full(&reader, &mut body), Ok(body.len()));
        assert!(body.iter().all(|byte| *byte == head[0]), "mixed with another's");
        counts[usize::from(head[0])] += 1;
    }
    assert_eq!(counts, [RECORDS; WRITERS]);
    drop(children);
}

const RECORDS: usize = 1000;

/// Role: writes records of all sizes up to `PIPE_BUF`, each filled with its number.
pub(crate) fn writer(arguments: &[String]) {
    let (fds, rest) = hand_over::take(arguments);
    let id: u8 = rest[0].parse().unwrap();
    for round in 0..RECORDS {
        let len_bytes = if round % 2 == 0 { PIPE_BUF } else { 3 + round * 7 % (PIPE_BUF - 3) };
        let mut record = vec![id; len_bytes];
        record[1..3].copy_from_slice(&u16::try_from(len_bytes - 3).unwrap().to_le_bytes());
        assert_eq!(io::write(&fds[0], &record), Ok(len_bytes));
    }
}

#[test]
fn out_of_descriptors_is_an_error_of_its_own() {
    let mut child = Child::role::<&str>("pipe-out-of-descriptors", &[]);
    child.expect("TooManyFiles from pipe2");
}

/// Role: opens pipes until `RLIMIT_NOFILE` stops it.
pub(crate) fn out_of_descriptors(_: &[String]) {
    limit_descriptors(32);
    let mut pipes = Vec::new();
    let error = loop {
        match pipe::pipe() {
            Ok(pipe) => pipes.push(pipe),
            Err(error) => break error,
        }
    };
    assert!(pipes.len() > 4);
    report(format_args!("{:?} from {}", error.kind(), error.call()));
}

/// Lowers this process's `RLIMIT_NOFILE`.
pub(crate) fn limit_descriptors(most: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
}

#[test]
fn python_at_either_end() {
    let death = Death { ends: true, writing: &["EPIPE"] };
    python::check("pipe::python_at_either_end", &death, || {
        let ((from_there, to_here), (from_here, to_there)) =
            (pipe::pipe().unwrap(), pipe::pipe().unwrap());
        ([from_there, to_there], [from_here, to_here])
    });
}

//! Tests of `splice.rs`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::pipe::{self, PIPE_BUF};
use switchboard_kernel::splice::{
    Pages, SpliceFlags, splice, splice_from_file, splice_to_file, splice_until, tee, tee_until,
};
use switchboard_kernel::unix_socket::{self, Kind};
use switchboard_kernel::{ErrorKind, Permissions, fifo};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{DEADLINE, Scratch};

use crate::c_program::compile;
use crate::pipe::fill;
use crate::{hand_over, python};

const WAIT: SpliceFlags = SpliceFlags::empty();

fn soon() -> Deadline {
    Deadline::after(DEADLINE)
}

fn shortly() -> Deadline {
    Deadline::after(Duration::from_millis(30))
}

fn read_all(fd: impl AsFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::from(io::duplicate(fd).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn splice_moves_bytes_and_sees_the_end() {
    let (from, source) = pipe::pipe().unwrap();
    let (sink, to) = pipe::pipe().unwrap();
    io::write_all(&source, b"through the kernel").unwrap();
    assert_eq!(splice(&from, &to, 7, WAIT), Ok(7));
    assert_eq!(splice(&from, &to, 100, WAIT), Ok(11));
    let error = splice(&from, &to, 1, SpliceFlags::NONBLOCK).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(source);
    assert_eq!(splice(&from, &to, 1, WAIT), Ok(0));
    drop(to);
    assert_eq!(read_all(&sink), b"through the kernel");
}

/// Role: moves everything from one pipe to another, and says how it ended.
pub(crate) fn mover(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let (to, from) = (fds.pop().unwrap(), fds.pop().unwrap());
    report("moving");
    let end = loop {
        match splice(&from, &to, 1 << 16, WAIT) {
            Ok(0) => break "end of file".to_owned(),
            Ok(_) => {}
            Err(error) => break error.name().to_owned(),
        }
    };
    report(end);
    let _ = instruction();
}

#[test]
fn a_mover_between_two_processes() {
    let (from, source) = pipe::pipe().unwrap();
    let (sink, to) = pipe::pipe().unwrap();
    let mut mover = hand_over::start("splice-mover", &[], &[from.as_fd(), to.as_fd()]);
    mover.expect("moving");
    drop((from, to));
    let text: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| io::write_all(&source, &text));
        let mut got = vec![0; text.len()];
        assert_eq!(io::read_full(&sink, &mut got), Ok(text.len()));
        assert!(got == text, "other bytes came out");
        writer.join().unwrap().unwrap();
    });
    // The mover dies between the two: both sides see it.
    mover.kill();
    hand_over::ready(&sink);
    assert_eq!(io::read(&sink, &mut [0; 8]), Ok(0));
    assert_eq!(io::write(&source, b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_killed_writer_is_the_end() {
    let (from, source) = pipe::pipe().unwrap();
    let (_sink, to) = pipe::pipe().unwrap();
    let mut child = hand_over::start("hand-over-holder", &[], &[source.as_fd()]);
    child.expect("holding");
    drop(source);
    let error = splice_until(&from, &to, 1, shortly()).unwrap_err();
    assert_eq!((error.kind(), error.call()), (ErrorKind::TimedOut, "splice"));
    let error = tee_until(&from, &to, 1, shortly()).unwrap_err();
    assert_eq!((error.kind(), error.call()), (ErrorKind::TimedOut, "tee"));
    child.kill();
    assert_eq!(splice_until(&from, &to, 1, soon()), Ok(0));
    assert_eq!(tee_until(&from, &to, 1, soon()), Ok(0));
}

#[test]
fn a_killed_reader_is_a_broken_pipe() {
    let (from, source) = pipe::pipe().unwrap();
    let (sink, to) = pipe::pipe().unwrap();
    io::write_all(&source, b"anybody?").unwrap();
    let mut child = hand_over::start("hand-over-holder", &[], &[sink.as_fd()]);
    child.expect("holding");
    drop(sink);
    let mut frozen = Pages::new(1).unwrap().freeze().unwrap();
    io::set_nonblocking(&to, true).unwrap();
    fill(&to).unwrap();
    child.kill();
    assert_eq!(splice_until(&from, &to, 8, soon()).unwrap_err().name(), "EPIPE");
    assert_eq!(tee_until(&from, &to, 8, soon()).unwrap_err().name(), "EPIPE");
    assert_eq!(frozen.vmsplice(&to, WAIT).unwrap_err().name(), "EPIPE");
    assert_eq!(io::bytes_waiting(&from), Ok(8), "what could not be moved stays");
}

#[test]
fn bytes_that_come_while_waiting_are_moved() {
    let (from, source) = pipe::pipe().unwrap();
    let (sink, to) = pipe::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(10));
            io::write_all(&source, b"late").unwrap();
        });
        assert_eq!(splice_until(&from, &to, 100, soon()), Ok(4));
    });
    io::set_nonblocking(&to, true).unwrap();
    fill(&to).unwrap();
    io::write_all(&source, b"more").unwrap();
    assert_eq!(splice_until(&from, &to, 100, shortly()).unwrap_err().name(), "ETIMEDOUT");
    assert!(wait_for(&sink, Interest::Readable, soon()).unwrap());
    let mut all = vec![0; 1 << 17];
    assert!(io::read(&sink, &mut all).unwrap() > PIPE_BUF);
    assert_eq!(splice_until(&from, &to, 100, soon()), Ok(4));
}

#[test]
fn tee_doubles_and_takes_nothing() {
    let (from, source) = pipe::pipe().unwrap();
    let (sink, to) = pipe::pipe().unwrap();
    io::write_all(&source, b"twice").unwrap();
    assert_eq!(tee(&from, &to, 100, WAIT), Ok(5));
    assert_eq!(tee(&from, &to, 2, WAIT), Ok(2));
    assert_eq!(io::bytes_waiting(&from), Ok(5));
    drop((source, to));
    assert_eq!(read_all(&from), b"twice");
    assert_eq!(read_all(&sink), b"twicetw");
    let (_sink, to) = pipe::pipe().unwrap();
    assert_eq!(tee(&from, &to, 1, WAIT), Ok(0));
}

#[test]
fn tee_gives_no_more_than_there_is_room_for() {
    let (from, source) = pipe::pipe().unwrap();
    let (_sink, to) = pipe::pipe().unwrap();
    assert_eq!(pipe::set_capacity(&to, PIPE_BUF), Ok(PIPE_BUF));
    io::write_all(&source, &vec![1; 3 * PIPE_BUF]).unwrap();
    assert_eq!(tee(&from, &to, 3 * PIPE_BUF, WAIT), Ok(PIPE_BUF));
    let error = tee(&from, &to, 1, SpliceFlags::NONBLOCK).unwrap_err();
    assert_eq!((error.name(), error.call()), ("EAGAIN", "tee"));
}

#[test]
fn a_file_by_offset_and_by_position() {
    let scratch = Scratch::new();
    let path = scratch.join("file");
    std::fs::write(&path, "0123456789").unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (reader, writer) = pipe::pipe().unwrap();
    assert_eq!(splice_from_file(&file, 4, &writer, 3, WAIT), Ok(3));
    assert_eq!(splice_from_file(&file, 10, &writer, 3, WAIT), Ok(0), "the file's end");
    assert_eq!(splice_to_file(&reader, &file, 8, 3, WAIT), Ok(3));
    assert_eq!(file.stream_position().unwrap(), 0);
    assert_eq!(std::fs::read(&path).unwrap(), b"01234567456");
    assert_eq!(splice(&file, &writer, 2, WAIT), Ok(2));
    assert_eq!(file.stream_position().unwrap(), 2);
    assert_eq!(splice(&reader, &file, 2, WAIT), Ok(2));
    assert_eq!(std::fs::read(&path).unwrap(), b"01014567456");

    let empty = splice_to_file(&reader, &file, 0, 1, SpliceFlags::NONBLOCK).unwrap_err();
    assert_eq!(empty.name(), "EAGAIN");
    drop(writer);
    assert_eq!(splice_to_file(&reader, &file, 0, 1, WAIT), Ok(0));
}

#[test]
fn what_cannot_be_moved() {
    let scratch = Scratch::new();
    let path = scratch.join("file");
    std::fs::write(&path, "text").unwrap();
    let file = File::open(&path).unwrap();
    let appending = OpenOptions::new().append(true).open(&path).unwrap();
    let (reader, writer) = pipe::pipe().unwrap();
    let (other_reader, other_writer) = pipe::pipe().unwrap();
    io::write_all(&writer, b"x").unwrap();
    for (error, expected) in [
        (splice(&file, &appending, 1, WAIT), "EINVAL"),
        (splice(&reader, &writer, 1, WAIT), "EINVAL"),
        (splice(&reader, &appending, 1, WAIT), "EINVAL"),
        (splice(&writer, &other_writer, 1, WAIT), "EBADF"),
        (splice(&reader, &file, 1, WAIT), "EBADF"),
        (splice_from_file(&reader, 0, &other_writer, 1, WAIT), "ESPIPE"),
        (splice_to_file(&reader, &other_writer, 0, 1, WAIT), "ESPIPE"),
        (tee(&reader, &writer, 1, WAIT), "EINVAL"),
        (tee(&file, &writer, 1, WAIT), "EINVAL"),
        (tee(&other_writer, &writer, 1, WAIT), "EBADF"),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.name(), expected, "{error}");
    }
    drop(other_reader);
}

#[test]
fn a_socket_at_either_end() {
    let (left, right) = unix_socket::pair(Kind::Stream).unwrap();
    let (reader, writer) = pipe::pipe().unwrap();
    io::write_all(&writer, b"there and back").unwrap();
    assert_eq!(splice(&reader, &left, 100, WAIT), Ok(14));
    assert_eq!(splice(&right, &writer, 100, WAIT), Ok(14));
    drop(left);
    assert_eq!(splice(&right, &writer, 100, WAIT), Ok(0));
    drop(writer);
    assert_eq!(read_all(&reader), b"there and back");
}

/// Role: gives pages to the pipe it was given, forgets them, and stays, or ends.
pub(crate) fn pages(arguments: &[String]) {
    let (fds, rest) = hand_over::take(arguments);
    let mut pages = Pages::new(GIVEN).unwrap();
    pages.bytes_mut().fill(b'a');
    let mut frozen = pages.freeze().unwrap();
    assert_eq!(frozen.vmsplice(&fds[0], WAIT), Ok(GIVEN));
    assert!(frozen.remaining().is_empty());
    drop(frozen);
    // Takes the same place, most likely; what was given must not change.
    let mut pages = Pages::new(GIVEN).unwrap();
    pages.bytes_mut().fill(b'b');
    report("given");
    if rest.is_empty() {
        let _ = instruction();
    }
}

const GIVEN: usize = 3 * PIPE_BUF + 5;

#[test]
fn given_pages_outlive_their_mapping_and_their_process() {
    for arguments in [&[][..], &["end"]] {
        let (reader, writer) = pipe::pipe().unwrap();
        let mut child = hand_over::start("splice-pages", arguments, &[writer.as_fd()]);
        child.expect("given");
        drop(writer);
        if arguments.is_empty() {
            child.kill();
        } else {
            assert!(child.wait().success());
        }
        assert_eq!(read_all(&reader), [b'a'; GIVEN]);
    }
}

#[test]
fn a_page_takes_a_place_of_the_pipe() {
    let (reader, writer) = pipe::pipe().unwrap();
    let places = pipe::capacity(&writer).unwrap() / PIPE_BUF;
    let mut pages = Pages::new((places + 1) * PIPE_BUF).unwrap();
    for (number, page) in pages.bytes_mut().chunks_mut(PIPE_BUF).enumerate() {
        page.fill(u8::try_from(number).unwrap());
    }
    let mut frozen = pages.freeze().unwrap();
    assert_eq!(frozen.vmsplice(&writer, SpliceFlags::GIFT), Ok(places * PIPE_BUF));
    assert_eq!(frozen.remaining(), vec![u8::try_from(places).unwrap(); PIPE_BUF]);
    let error = frozen.vmsplice(&writer, SpliceFlags::NONBLOCK).unwrap_err();
    assert_eq!((error.name(), error.call()), ("EAGAIN", "vmsplice"));
    let mut page = vec![9; PIPE_BUF];
    assert_eq!(io::read_full(&reader, &mut page), Ok(PIPE_BUF));
    assert_eq!(page, [0; PIPE_BUF]);
    assert_eq!(frozen.vmsplice(&writer, SpliceFlags::NONBLOCK), Ok(PIPE_BUF));
    assert_eq!(frozen.vmsplice(&writer, WAIT), Ok(0));

    let (reader, writer) = pipe::pipe().unwrap();
    frozen.rewind();
    assert_eq!(frozen.vmsplice(&writer, WAIT), Ok(places * PIPE_BUF));
    drop((frozen, writer));
    assert_eq!(read_all(&reader).len(), places * PIPE_BUF);
}

#[test]
fn frozen_pages_are_written_by_nobody() {
    let (reader, writer) = pipe::pipe().unwrap();
    io::write_all(&writer, b"overwritten").unwrap();
    let mut pages = Pages::new(11).unwrap();
    pages.bytes_mut().copy_from_slice(b"as it was..");
    let mut frozen = pages.freeze().unwrap();
    assert_eq!(frozen.vmsplice(&reader, WAIT).unwrap_err().name(), "EFAULT");
    assert_eq!(frozen.remaining(), b"as it was..");
    let file = File::open("/dev/null").unwrap();
    assert_eq!(frozen.vmsplice(&file, WAIT).unwrap_err().name(), "EBADF");
}

#[test]
fn sizes_that_cannot_be_mapped() {
    for (len_bytes, expected) in [(0, "EINVAL"), (usize::MAX / 2, "ENOMEM")] {
        let error = Pages::new(len_bytes).unwrap_err();
        assert_eq!((error.name(), error.call()), (expected, "mmap"));
    }
}

const SPLICES: &str = "
import os, sys
source = os.open(sys.argv[1], os.O_RDONLY)
sink = os.open(sys.argv[2], os.O_WRONLY)
while os.splice(source, sink, 65536): pass
print('done')
";

#[test]
fn python_moves_what_this_side_gave() {
    let scratch = Scratch::new();
    let (source, sink) = (scratch.join("source"), scratch.join("sink"));
    for path in [&source, &sink] {
        fifo::create(path, Permissions::new()).unwrap();
    }
    let reader = fifo::open_reader(&sink).unwrap();
    let paths = [source.to_str().unwrap(), sink.to_str().unwrap()];
    std::thread::scope(|scope| {
        let python =
            scope.spawn(|| python::run("python_moves_what_this_side_gave", "os", SPLICES, &paths));
        let writer = fifo::open_writer_blocking(&source).unwrap();
        let mut pages = Pages::new(GIVEN).unwrap();
        pages.bytes_mut().fill(b'p');
        assert_eq!(pages.freeze().unwrap().vmsplice(&writer, WAIT), Ok(GIVEN));
        drop(writer);
        assert_eq!(python.join().unwrap().as_deref(), Some("done"));
    });
    assert_eq!(read_all(&reader), [b'p'; GIVEN]);
}

/// `give TO` gives a page to a pipe; `move FROM TO` doubles what is in one, then moves it.
const C_PROGRAM: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
static char page[4096] __attribute__((aligned(4096)));
int main(int count, char **arguments) {
    int to = open(arguments[count - 1], O_WRONLY | O_CLOEXEC);
    if (!strcmp(arguments[1], "give")) {
        struct iovec part = {page, sizeof page};
        memset(page, 'c', sizeof page);
        printf("%zd\n", vmsplice(to, &part, 1, 0));
    } else {
        int from = open(arguments[2], O_RDONLY | O_CLOEXEC);
        ssize_t doubled = tee(from, to, 65536, 0);
        printf("%zd %zd\n", doubled, splice(from, NULL, to, NULL, 65536, 0));
    }
    fflush(stdout);
    return pause();
}
"#;

/// The path by which a child opens a pipe of this process.
fn path_of(fd: impl AsFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_fd().as_raw_fd())
}

#[test]
fn a_c_program_gives_doubles_and_moves_pages_and_either_is_killed() {
    let test = "a_c_program_gives_doubles_and_moves_pages_and_either_is_killed";
    let Some(program) = compile(test, C_PROGRAM) else { return };
    let (from, source) = pipe::pipe().unwrap();
    let (sink, to) = pipe::pipe().unwrap();
    let mut c = program.start(&["give", &path_of(&source)]);
    c.expect(&PIPE_BUF.to_string());
    c.kill();
    assert_eq!(tee(&from, &to, PIPE_BUF, WAIT), Ok(PIPE_BUF));
    assert_eq!(splice(&from, &to, PIPE_BUF, WAIT), Ok(PIPE_BUF));
    let mut pages = [0; 2 * PIPE_BUF];
    assert_eq!(io::read_full(&sink, &mut pages), Ok(pages.len()));
    assert!(pages == [b'c'; 2 * PIPE_BUF]);

    let mut ours = hand_over::start("splice-pages", &[], &[source.as_fd()]);
    ours.expect("given");
    ours.kill();
    let mut c = program.start(&["move", &path_of(&from), &path_of(&to)]);
    c.expect(&format!("{GIVEN} {GIVEN}"));
    drop(to);
    c.kill();
    assert_eq!(read_all(&sink), [b'a'; 2 * GIVEN]);
}

//! Tests of `fifo.rs`.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchboard_kernel::io::{self, Deadline, Interest, wait_for};
use switchboard_kernel::{ErrorKind, Permissions, fifo, pipe};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, Scratch};

use crate::hand_over;
use crate::pipe::fill;
use crate::python;

fn new_fifo(scratch: &Scratch) -> PathBuf {
    let path = scratch.join("fifo");
    fifo::create(&path, Permissions::new()).unwrap();
    path
}

/// What is in a folder.
pub(crate) fn names(scratch: &Scratch) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(scratch.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_mode_is_the_one_given_from_the_first_moment() {
    let scratch = Scratch::new();
    let path = scratch.join("fifo");
    let mut child = Child::role("fifo-creator", &[path.display()]);
    child.expect("ready");
    watch(&mut child, || match std::fs::symlink_metadata(&path) {
        Ok(metadata) => {
            assert_eq!(metadata.permissions().mode(), 0o010_640);
            true
        }
        Err(_) => false,
    });
    assert!(child.wait().success());
    assert_eq!(names(&scratch), ["fifo"]);
}

/// Has the child go on, and looks on meanwhile, until something was seen often enough.
pub(crate) fn watch(child: &mut Child, mut look: impl FnMut() -> bool) {
    let deadline = Deadline::after(DEADLINE);
    let mut seen = 0;
    while seen < 50 {
        child.tell("go");
        while child.line_within(Duration::ZERO).is_none() {
            assert!(!deadline.passed(), "not seen often enough in time");
            seen += usize::from(look());
        }
        child.tell("rest");
        child.expect("rested");
    }
}

/// Role: with a umask that forbids what is asked for, creates a FIFO over and over.
pub(crate) fn creator(arguments: &[String]) {
    let path = Path::new(&arguments[0]);
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    report("ready");
    while let Some(order) = instruction() {
        if order == "rest" {
            report("rested");
            continue;
        }
        for _ in 0..500 {
            let _ = fifo::unlink(path);
            fifo::create(path, Permissions::new().mode(0o640)).unwrap();
        }
        report("done");
    }
}

#[test]
fn a_name_that_is_taken_stays() {
    let check = |take: &dyn Fn(&Path)| {
        let scratch = Scratch::new();
        let path = scratch.join("taken");
        take(&path);
        let before = std::fs::symlink_metadata(&path).unwrap().ino();
        let error = fifo::create(&path, Permissions::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().ino(), before);
        assert_eq!(names(&scratch), ["taken"]);
    };
    check(&|path| std::fs::write(path, "a file").unwrap());
    check(&|path| fifo::create(path, Permissions::new()).unwrap());
    check(&|path| symlink("/nowhere/at/all", path).unwrap());
    check(&|path| std::fs::create_dir(path).unwrap());
}

#[test]
fn nothing_is_left_when_the_owner_cannot_be_set() {
    let scratch = Scratch::new();
    let create = |permissions| fifo::create(&scratch.join("fifo"), permissions);
    assert_eq!(create(Permissions::new().owner(u32::MAX)).unwrap_err().name(), "EINVAL");
    if !rustix::process::geteuid().is_root() {
        assert_eq!(create(Permissions::new().owner(0)).unwrap_err().name(), "EPERM");
    }
    assert_eq!(names(&scratch), [""; 0]);
}

#[test]
fn owner_and_group_are_set() {
    let scratch = Scratch::new();
    let root = rustix::process::geteuid().is_root();
    let (uid, gid) = if root {
        (4711, 4712)
    } else {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    };
    let path = scratch.join("fifo");
    fifo::create(&path, Permissions::new().mode(0o620).owner(uid).group(gid)).unwrap();
    let metadata = std::fs::symlink_metadata(&path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (uid, gid));
    assert_eq!(metadata.permissions().mode(), 0o010_620);
}

#[test]
fn paths_that_lead_nowhere() {
    let scratch = Scratch::new();
    let create = |path: &Path| fifo::create(path, Permissions::new()).unwrap_err().name();
    assert_eq!(create(&scratch.join("no/such/folder")), "ENOENT");
    assert_eq!(create(Path::new("/")), "EINVAL");
    assert_eq!(create(Path::new("")), "EINVAL");
    assert_eq!(create(Path::new("..")), "EINVAL");
    assert_eq!(create(&scratch.join(&"n".repeat(256))), "ENAMETOOLONG");
    assert_eq!(fifo::open_reader(&scratch.join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&scratch), [""; 0]);
}

#[test]
fn the_longest_name_works() {
    let scratch = Scratch::new();
    let path = scratch.join(&"n".repeat(255));
    fifo::create(&path, Permissions::new()).unwrap();
    assert_eq!(fifo::is_fifo(&path), Ok(true));
}

#[test]
fn opening_does_not_wait_for_the_other_side() {
    let scratch = Scratch::new();
    let path = new_fifo(&scratch);
    let mut child = Child::role("fifo-opener", &[path.display()]);
    child.expect("writer: NotFound");
    child.expect("reader: open");
    child.expect("read: Ok(0)");
    child.expect("writer: open");
    child.expect("read: WouldBlock");
}

/// Role: opens both ends without anybody else there.
pub(crate) fn opener(arguments: &[String]) {
    let path = Path::new(&arguments[0]);
    report(format_args!("writer: {:?}", fifo::open_writer(path).unwrap_err().kind()));
    let reader = fifo::open_reader(path).unwrap();
    report("reader: open");
    report(format_args!("read: {:?}", io::read(&reader, &mut [0; 8])));
    let _writer = fifo::open_writer(path).unwrap();
    report("writer: open");
    report(format_args!("read: {:?}", io::read(&reader, &mut [0; 8]).unwrap_err().kind()));
}

#[test]
fn a_killed_writer_is_end_of_file() {
    let scratch = Scratch::new();
    let path = new_fifo(&scratch);
    let mut child = Child::role("fifo-writer", &[path.display()]);
    let reader = fifo::open_reader(&path).unwrap();
    child.expect("wrote");
    let mut buffer = [0; 64];
    hand_over::ready(&reader);
    assert_eq!(io::read(&reader, &mut buffer), Ok(5));
    assert_eq!(io::read(&reader, &mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    child.kill();
    hand_over::ready(&reader);
    assert_eq!(io::read(&reader, &mut buffer), Ok(0));
}

/// Role: waits for a reader, writes, and stays.
pub(crate) fn writer(arguments: &[String]) {
    let writer = fifo::open_writer_blocking(Path::new(&arguments[0])).unwrap();
    io::write_all(&writer, b"words").unwrap();
    report("wrote");
    let _ = instruction();
}

#[test]
fn a_killed_reader_is_a_broken_pipe() {
    let scratch = Scratch::new();
    let path = new_fifo(&scratch);
    let mut child = Child::role("fifo-reader", &[path.display()]);
    let writer = fifo::open_writer_blocking(&path).unwrap();
    child.expect("open");
    io::set_nonblocking(&writer, true).unwrap();
    assert!(fill(&writer).unwrap() > 0);
    child.kill();
    assert!(wait_for(&writer, Interest::Writable, Deadline::after(DEADLINE)).unwrap());
    assert_eq!(io::write(&writer, b"more").unwrap_err().kind(), ErrorKind::BrokenPipe);
    drop(writer);
    assert_eq!(fifo::open_writer(&path).unwrap_err().name(), "ENXIO");
}

/// Role: opens the reading end when there is a writer, and reads nothing.
pub(crate) fn reader(arguments: &[String]) {
    let _reader = fifo::open_reader_blocking(Path::new(&arguments[0])).unwrap();
    report("open");
    let _ = instruction();
}

#[test]
fn only_fifos_are_opened_and_unlinked() {
    let scratch = Scratch::new();
    let (file, link, path) = (scratch.join("file"), scratch.join("link"), new_fifo(&scratch));
    std::fs::write(&file, "text").unwrap();
    symlink(&path, &link).unwrap();

    assert_eq!(fifo::open_reader(&file).unwrap_err().name(), "EINVAL");
    assert_eq!(fifo::open_writer(&file).unwrap_err().name(), "EINVAL");
    assert_eq!(fifo::open_reader_blocking(&file).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(fifo::open_reader(&link).unwrap_err().name(), "ELOOP");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "text");

    assert_eq!(fifo::is_fifo(&path), Ok(true));
    assert_eq!(fifo::is_fifo(&file), Ok(false));
    assert_eq!(fifo::is_fifo(&link), Ok(false));
    assert_eq!(fifo::unlink(&file).unwrap_err().name(), "EINVAL");
    assert_eq!(fifo::unlink(&link).unwrap_err().name(), "EINVAL");
    fifo::unlink(&path).unwrap();
    assert_eq!(fifo::unlink(&path).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&scratch), ["file", "link"]);
}

#[test]
fn an_open_fifo_is_a_pipe() {
    let scratch = Scratch::new();
    let path = new_fifo(&scratch);
    let reader = fifo::open_reader(&path).unwrap();
    let writer = fifo::open_writer(&path).unwrap();
    assert!(pipe::is_pipe(&reader));
    assert_eq!(pipe::set_capacity(&writer, 131_072), Ok(131_072));
    fifo::unlink(&path).unwrap();
    io::write_all(&writer, b"still here").unwrap();
    assert_eq!(io::read(&reader, &mut [0; 16]), Ok(10));
}

/// Reads, writes until nobody reads, and writes once more to whoever comes then.
const PYTHON: &str = "
with open(sys.argv[1], 'rb', 0) as reader:
    say(reader.read(5).decode())
    say(len(reader.read(5)))
writer = open(sys.argv[1], 'wb', 0)
told()
try:
    while True:
        writer.write(bytes(4096))
except BrokenPipeError:
    writer.close()
    say('broken')
writer = open(sys.argv[1], 'wb', 0)
writer.write(b'last words')
told()
";

#[test]
fn python_at_either_end() {
    let scratch = Scratch::new();
    let path = new_fifo(&scratch);
    let test = "fifo::python_at_either_end";
    let Some(mut python) = python::start(test, "os", PYTHON, &[path.to_str().unwrap()]) else {
        return;
    };
    let mut ours = Child::role("fifo-writer", &[path.display()]);
    ours.expect("wrote");
    python.expect("words");
    ours.kill();
    python.expect("0");

    let mut ours = Child::role("fifo-reader", &[path.display()]);
    ours.expect("open");
    python.tell("write");
    ours.kill();
    python.expect("broken");

    let reader = fifo::open_reader_blocking(&path).unwrap();
    let mut buffer = [0; 64];
    assert_eq!(io::read(&reader, &mut buffer), Ok(10));
    assert_eq!(&buffer[..10], b"last words");
    python.kill();
    assert_eq!(io::read(&reader, &mut buffer), Ok(0));
}

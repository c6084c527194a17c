//! POSIX shared memory between processes, when there is no room, and with C and Python at the other
//! end.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use rustix::fs::Mode as FileMode;
use rustix::process::{Resource, Rlimit};
use switchboard_kernel::error::ErrorKind;
use switchboard_kernel::mmap::{Mode, page_bytes};
use switchboard_kernel::posix_shm::{Access, Segment, limits, unlink};
use switchboard_kernel::{Error, Permissions};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, unique};

use crate::c_program::compile;
use crate::mmap::error_of;
use crate::privileges::{NOBODY, become_ordinary_user, is_root};
use crate::python;

/// A name that is gone in the end.
struct Name(String);

impl Name {
    fn new(word: &str) -> Self {
        Self(format!("/{}", unique(word)))
    }

    fn create(&self) -> Segment {
        Segment::create(&self.0, 4096, Permissions::new()).expect("a segment")
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = unlink(&self.0);
    }
}

fn file(name: &str) -> String {
    format!("/dev/shm{name}")
}

/// Writes to the segment, says so, and counts until killed.
pub(crate) fn writer(arguments: &[String]) {
    let segment = Segment::open(&arguments[0], Access::ReadWrite).expect("a segment");
    let memory = segment.map(Mode::ReadWrite).expect("a mapping");
    memory.write_at(8, b"from the writer").expect("written");
    report("written");
    let word = memory.atomic_u64(0).expect("a word");
    loop {
        word.fetch_add(1, Ordering::Release);
    }
}

/// Maps the segment to read, says each value of its first word that is new, and goes on until killed.
pub(crate) fn reader(arguments: &[String]) {
    let segment = Segment::open(&arguments[0], Access::ReadOnly).expect("a segment");
    let memory = segment.map(Mode::ReadOnly).expect("a mapping");
    let mut last = 0;
    loop {
        let value = memory.load_u64(0).expect("a word");
        if value != last {
            last = value;
            report(value);
        }
        std::thread::yield_now();
    }
}

/// Makes a segment, writes to it, and waits to be killed.
pub(crate) fn creator(arguments: &[String]) {
    let segment = Segment::create(&arguments[0], 100, Permissions::new()).expect("a segment");
    segment.map(Mode::ReadWrite).expect("a mapping").write_at(0, b"made").expect("written");
    report("made");
    let _ = instruction();
}

#[test]
fn what_a_killed_writer_wrote_stays() {
    let name = Name::new("writer");
    let memory = name.create().map(Mode::ReadWrite).expect("a mapping");
    let mut writer = Child::role("posix_shm_writer", &[&name.0]);
    writer.expect("written");
    writer.kill();
    let mut found = [0; 15];
    memory.read_at(8, &mut found).expect("read");
    assert_eq!(&found, b"from the writer");
    let count = memory.load_u64(0).expect("a word");
    assert_eq!(memory.load_u64(0), Ok(count), "nobody counts any more");
}

#[test]
fn a_killed_reader_leaves_writer_and_readers_alone() {
    let name = Name::new("reader");
    let segment = name.create();
    let memory = segment.map(Mode::ReadWrite).expect("a mapping");
    let word = memory.atomic_u64(0).expect("a word");
    let mut readers = [0, 1].map(|_| Child::role("posix_shm_reader", &[&name.0]));
    word.store(1, Ordering::Release);
    readers.iter_mut().for_each(|reader| reader.expect("1"));
    let [mut killed, mut other] = readers;
    killed.kill();
    word.store(2, Ordering::Release);
    other.expect("2");
    // Without its name, it is there for those who have it, killed or not.
    unlink(&name.0).expect("unlinked");
    other.kill();
    assert_eq!(memory.load_u64(0), Ok(2));
    assert_eq!(segment.status().expect("a status").len_bytes, 4096);
    assert_eq!(error_of(Segment::open(&name.0, Access::ReadOnly)), "ENOENT");
}

#[test]
fn a_segment_outlives_its_creator() {
    let name = Name::new("creator");
    let mut creator = Child::role("posix_shm_creator", &[&name.0]);
    creator.expect("made");
    creator.kill();
    let segment = Segment::open(&name.0, Access::ReadOnly).expect("a segment");
    assert_eq!(segment.status().expect("a status").len_bytes, 100);
    assert_eq!(segment.map(Mode::ReadOnly).expect("a mapping").len(), 100);
    assert_eq!(std::fs::read(file(&name.0)).expect("the file")[..4], *b"made");
}

#[test]
fn creating_is_exclusive_and_opening_finds() {
    let name = Name::new("names");
    assert_eq!(error_of(Segment::open(&name.0, Access::ReadOnly)), "ENOENT");
    assert_eq!(error_of(unlink(&name.0)), "ENOENT");
    let made = name.create();
    let again = Segment::create(&name.0, 4096, Permissions::new());
    assert_eq!(again.expect_err("taken").kind(), ErrorKind::AlreadyExists);
    let memory = made.map(Mode::ReadWrite).expect("a mapping");
    unlink(&name.0).expect("unlinked");
    assert_eq!(error_of(Segment::open(&name.0, Access::ReadWrite)), "ENOENT");
    memory.write_at(0, b"still here").expect("written");
    assert_eq!(made.map(Mode::ReadOnly).expect("a mapping").load_u32(0), memory.load_u32(0));
}

#[test]
fn names_are_checked() {
    let long = format!("/{}", "x".repeat(256));
    for (name, expected) in [
        ("", "EINVAL"),
        ("/", "EINVAL"),
        ("no-slash", "EINVAL"),
        ("/two/parts", "EINVAL"),
        ("/..", "EINVAL"),
        ("/.", "EINVAL"),
        ("/nul\0byte", "EINVAL"),
        (&long, "ENAMETOOLONG"),
    ] {
        for error in [
            Segment::create(name, 1, Permissions::new()).map(drop),
            Segment::open(name, Access::ReadOnly).map(drop),
            unlink(name),
        ]
        .map(|result| result.expect_err("a bad name"))
        {
            assert_eq!((error.name(), error.call()), (expected, "shm_open"), "{name:?}");
        }
    }
    let name = Name::new("link");
    std::os::unix::fs::symlink("/dev/null", file(&name.0)).expect("a link");
    assert_eq!(error_of(Segment::open(&name.0, Access::ReadWrite)), "ELOOP");
}

/// With a umask that would take everything, as an ordinary user: modes are exact.
pub(crate) fn modes(arguments: &[String]) {
    let name = &arguments[0];
    become_ordinary_user();
    rustix::process::umask(FileMode::from_raw_mode(0o777));
    for mode in [0o600, 0o666, 0o200, 0o400, 0o000] {
        let made = Segment::create(name, 8, Permissions::new().mode(mode)).expect("a segment");
        let found = made.status().expect("a status").mode;
        let opens = |access| match Segment::open(name, access) {
            Ok(_) => "opened",
            Err(error) => error.name(),
        };
        let (read, write) = (opens(Access::ReadOnly), opens(Access::ReadWrite));
        report(format_args!("{found:o} {read} {write}"));
        unlink(name).expect("unlinked");
    }
    let foreign = Segment::create(name, 8, Permissions::new().owner(0));
    let left = Path::new(&file(name)).exists();
    report(format_args!("{} {left}", error_of(foreign)));
}

#[test]
fn the_mode_is_exact_and_kept() {
    let name = Name::new("modes");
    let mut child = Child::role("posix_shm_modes", &[&name.0]);
    for expected in [
        "600 opened opened",
        "666 opened opened",
        "200 EACCES EACCES",
        "400 opened EACCES",
        "0 EACCES EACCES",
        "EPERM false",
    ] {
        child.expect(expected);
    }
}

/// As an ordinary user: whether the segment opens, and whether it can be removed.
pub(crate) fn outsider(arguments: &[String]) {
    become_ordinary_user();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        report(Segment::open(&arguments[0], access).map_or_else(Error::name, |_| "opened"));
    }
    report(unlink(&arguments[0]).map_or_else(Error::name, |()| "removed"));
}

#[test]
fn an_outsider_is_refused() {
    if !is_root() {
        // There is nobody else to be.
        return the_mode_is_exact_and_kept();
    }
    for (permissions, answers) in [
        (Permissions::new(), ["EACCES", "EACCES", "EPERM"]),
        (Permissions::new().mode(0o644), ["opened", "EACCES", "EPERM"]),
        (Permissions::new().mode(0o640).group(NOBODY), ["opened", "EACCES", "EPERM"]),
        (Permissions::new().owner(NOBODY).mode(0o400), ["opened", "EACCES", "removed"]),
    ] {
        let name = Name::new("outsider");
        let made = Segment::create(&name.0, 8, permissions).expect("a segment");
        let status = made.status().expect("a status");
        assert_eq!(status.owner, permissions.owner.unwrap_or(0));
        assert_eq!(status.group, permissions.group.unwrap_or(status.group));
        let mut child = Child::role("posix_shm_outsider", &[&name.0]);
        assert_eq!(child.remaining_lines(), answers, "{permissions:?}");
    }
}

/// In a mount namespace of its own, with a small `/dev/shm`.
pub(crate) fn full(_: &[String]) {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=65536,nr_inodes=4", "none", "/dev/shm"]);
    if !mount.status().is_ok_and(|status| status.success()) {
        return report("no mount");
    }
    report("mounted");
    let create = |name: &str, len| Segment::create(name, len, Permissions::new());
    let largest = limits().expect("the limits").free_bytes;
    report(format_args!("{largest} {}", error_of(create("/a", largest + 1))));
    report(std::fs::read_dir("/dev/shm").expect("a folder").count());
    let half = create("/a", largest / 2).expect("room");
    report(error_of(half.grow(largest + 1)));
    report(half.status().expect("a status").len_bytes == largest / 2);
    half.grow(largest).expect("room");
    let memory = half.map(Mode::ReadWrite).expect("a mapping");
    let all = vec![7; memory.len()];
    report(memory.write_at(0, &all).is_ok());
    // A segment by the rules of C: a size without memory, which runs out on the way.
    let (path, len) = (file("/b"), page_bytes() as u64);
    std::fs::File::create_new(path).expect("a file").set_len(len).expect("a size");
    let sparse = Segment::open("/b", Access::ReadWrite).expect("a segment");
    let mapping = sparse.map(Mode::ReadWrite).expect("a mapping");
    report(mapping.missing(&sparse).is_none());
    report(error_of(mapping.write_at(0, b"no room")));
    let missing = mapping.missing(&sparse).expect("a reason");
    report(format_args!("{missing:?} {}", missing.error().name()));
    // Half of it, which has no room either, is cut off under another.
    let mapping = sparse.map(Mode::ReadWrite).expect("a mapping");
    std::fs::File::options().write(true).open(file("/b")).expect("a file").set_len(0).expect("cut");
    report(error_of(mapping.load_u32(0)));
    let missing = mapping.missing(&sparse).expect("a reason");
    report(format_args!("{missing:?} {}", missing.error().name()));
    std::fs::write(file("/c"), "").expect("the last name");
    report(error_of(create("/d", 1)));
}

#[test]
fn a_full_file_system_is_an_error_at_creation() {
    let starter: &[&str] =
        if is_root() { &["unshare", "-m"] } else { &["unshare", "-U", "-r", "-m"] };
    let mut child = Child::role_under::<&str>(starter, "posix_shm_full", &[]);
    if child.line().as_deref() != Some("mounted") {
        return switchboard_testkit::skip::skip(
            "a_full_file_system_is_an_error_at_creation",
            "no mount namespace may be made here",
        );
    }
    for expected in [
        "65536 ENOSPC",
        "0",
        "ENOSPC",
        "true",
        "true",
        "true",
        "EIO",
        "NoSpace ENOSPC",
        "EIO",
        "Cut EIO",
        "ENOSPC",
    ] {
        child.expect(expected);
    }
}

/// Over `RLIMIT_FSIZE`, which would send a signal that kills.
pub(crate) fn file_limit(arguments: &[String]) {
    let limit = Rlimit { current: Some(5000), maximum: Some(5000) };
    rustix::process::setrlimit(Resource::Fsize, limit).expect("a lower limit");
    report(error_of(Segment::create(&arguments[0], 5001, Permissions::new())));
    report(Segment::create(&arguments[0], 5000, Permissions::new()).is_ok());
}

#[test]
fn the_file_size_limit_is_an_error() {
    let name = Name::new("fsize");
    let mut child = Child::role("posix_shm_file_limit", &[&name.0]);
    child.expect("EFBIG");
    child.expect("true");
    assert!(child.wait().success());
}

#[test]
fn an_empty_segment_is_refused() {
    let name = Name::new("empty");
    assert_eq!(error_of(Segment::create(&name.0, 0, Permissions::new())), "EINVAL");
    std::fs::write(file(&name.0), "").expect("a segment without a size");
    let segment = Segment::open(&name.0, Access::ReadWrite).expect("a segment");
    assert_eq!(error_of(segment.map(Mode::ReadWrite)), "EINVAL");
    segment.grow(10).expect("grown");
    assert_eq!(segment.map(Mode::ReadWrite).expect("a mapping").len(), 10);
    let reader = Segment::open(&name.0, Access::ReadOnly).expect("a segment");
    assert_eq!(error_of(reader.map(Mode::ReadWrite)), "EACCES");
    assert_eq!(error_of(reader.grow(20)), "EBADF");
}

#[test]
fn python_cuts_a_segment_short() {
    let name = Name::new("python");
    let memory = name.create().map(Mode::ReadWrite).expect("a mapping");
    memory.write_at(0, b"from rust").expect("written");
    let program = "import posix_ipc, mmap, os, sys\n\
                   segment = posix_ipc.SharedMemory(sys.argv[1])\n\
                   m = mmap.mmap(segment.fd, segment.size)\n\
                   print(segment.size, m[:9].decode())\n\
                   m[100:111] = b'from python'\n\
                   if len(sys.argv) > 2: os.ftruncate(segment.fd, 0)\n";
    let test = "python_cuts_a_segment_short";
    let Some(said) = python::run(test, "posix_ipc", program, &[&name.0]) else { return };
    assert_eq!(said, "4096 from rust");
    let mut found = [0; 11];
    memory.read_at(100, &mut found).expect("read");
    assert_eq!(&found, b"from python");
    python::run(test, "posix_ipc", program, &[&name.0, "cut"]).expect("Python, as before");
    assert_eq!(error_of(memory.read_at(100, &mut found)), "EIO");
}

#[test]
fn python_makes_a_segment() {
    let name = Name::new("made");
    let program = "import posix_ipc, mmap, sys\n\
                   segment = posix_ipc.SharedMemory(sys.argv[1], posix_ipc.O_CREX, size=8192)\n\
                   mmap.mmap(segment.fd, 8192)[8186:] = b'python'\n";
    let Some(_) = python::run("python_makes_a_segment", "posix_ipc", program, &[&name.0]) else {
        return;
    };
    let memory = Segment::open(&name.0, Access::ReadOnly).expect("a segment").map(Mode::ReadOnly);
    let mut found = [0; 6];
    memory.expect("a mapping").read_at(8186, &mut found).expect("read");
    assert_eq!(&found, b"python");
}

#[test]
fn a_c_program_shares_the_segment() {
    let name = Name::new("c");
    let memory = name.create().map(Mode::ReadWrite).expect("a mapping");
    memory.atomic_u32(0).expect("a word").store(40, Ordering::Relaxed);
    let source = r#"
        #include <fcntl.h>
        #include <stdatomic.h>
        #include <sys/mman.h>
        #include <sys/stat.h>
        int main(int count, char **arguments) {
            int fd = shm_open(arguments[1], O_RDWR, 0);
            struct stat found;
            if (fd < 0 || fstat(fd, &found) || found.st_size != 4096) return 1;
            _Atomic unsigned *word = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (word == MAP_FAILED) return 2;
            atomic_fetch_add(word, 2);
            return shm_unlink(arguments[1]) ? 3 : 0;
        }"#;
    let Some(program) = compile("a_c_program_shares_the_segment", source) else { return };
    let status = program.command().arg(&name.0).status().expect("a C program");
    assert!(status.success(), "{status}");
    assert_eq!(memory.load_u32(0), Ok(42));
    assert_eq!(error_of(unlink(&name.0)), "ENOENT");
}

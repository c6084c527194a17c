//! System V shared memory between processes, at its limits, and with C and Python at the other end.

use std::fs;
use std::sync::atomic::Ordering;

use rustix::fs::Mode;
use switchboard_kernel::sysv_shm::{
    Access, Attachment, CreateOptions, Key, Segment, key_from_path, limits,
};
use switchboard_kernel::{Error, Permissions};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch};

use crate::c_program::compile;
use crate::mmap::error_of;
use crate::privileges::{NOBODY, become_ordinary_user, is_root};
use crate::python;

/// A segment that is removed in the end.
struct Removed(Segment);

impl Removed {
    fn new() -> Self {
        Self(Segment::create(&Key::Private, 4096, &CreateOptions::new()).expect("a segment"))
    }

    fn attach(&self) -> Attachment {
        self.0.attach(Access::ReadWrite).expect("attached")
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = self.0.remove();
    }
}

/// Attaches a segment by its id, writes to it, says what it found there, and waits to be killed.
pub(crate) fn user(arguments: &[String]) {
    let segment = Segment::from_id(arguments[0].parse().expect("an id"));
    let memory = match segment.attach(Access::ReadWrite) {
        Ok(memory) => memory,
        Err(error) => return report(error.name()),
    };
    let found = memory.atomic_u32(0).expect("a word").fetch_add(1, Ordering::AcqRel);
    memory.write_at(100, b"from a user").expect("written");
    report(found);
    let _ = instruction();
}

/// Attaches a segment to read, says each value of its first word that is new, and goes on until killed.
pub(crate) fn reader(arguments: &[String]) {
    let segment = Segment::from_id(arguments[0].parse().expect("an id"));
    let memory = segment.attach(Access::ReadOnly).expect("attached");
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

#[test]
fn a_killed_reader_leaves_writer_and_readers_alone() {
    let segment = Removed::new();
    let memory = segment.attach();
    let word = memory.atomic_u64(0).expect("a word");
    let mut readers = [0, 1].map(|_| Child::role("sysv_shm_reader", &[segment.0.id()]));
    word.store(1, Ordering::Release);
    readers.iter_mut().for_each(|reader| reader.expect("1"));
    let [mut killed, mut other] = readers;
    killed.kill();
    assert_eq!(segment.0.status().expect("a status").attached, 2);
    word.store(2, Ordering::Release);
    other.expect("2");
    other.kill();
    assert_eq!(segment.0.status().expect("a status").attached, 1);
    assert_eq!(memory.load_u64(0), Ok(2));
}

#[test]
fn what_a_killed_user_wrote_stays() {
    let segment = Removed::new();
    let memory = segment.attach();
    memory.atomic_u32(0).expect("a word").store(41, Ordering::Release);
    let mut user = Child::role("sysv_shm_user", &[segment.0.id()]);
    user.expect("41");
    let status = segment.0.status().expect("a status");
    assert_eq!((status.attached, status.len_bytes, status.removed), (2, 4096, false));
    assert_eq!((status.creator_pid, status.last_user_pid), (std::process::id(), user.id()));
    user.kill();
    assert_eq!(segment.0.status().expect("a status").attached, 1);
    let mut found = [0; 11];
    memory.read_at(100, &mut found).expect("read");
    assert_eq!((&found, memory.load_u32(0)), (b"from a user", Ok(42)));
}

#[test]
fn a_removed_segment_stays_until_the_last_user_is_gone() {
    let segment = Removed::new();
    let memory = segment.attach();
    let mut user = Child::role("sysv_shm_user", &[segment.0.id()]);
    user.expect("0");
    segment.0.remove().expect("marked");
    assert!(segment.0.status().expect("a status").removed);
    assert_eq!(memory.load_u32(0), Ok(1));
    let mut late = Child::role("sysv_shm_user", &[segment.0.id()]);
    late.expect("1");
    drop(memory);
    late.kill();
    assert_eq!(segment.0.status().expect("a status").attached, 1);
    user.kill();
    for result in [
        segment.0.status().map(drop),
        segment.0.attach(Access::ReadOnly).map(drop),
        segment.0.remove(),
    ] {
        let error = result.expect_err("it is gone");
        assert!(matches!(error.name(), "EINVAL" | "EIDRM"), "{error}");
    }
}

#[test]
fn a_key_finds_the_segment() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: b'M' };
    assert_eq!(error_of(Segment::open(&key)), "ENOENT");
    let options = CreateOptions::new().exclusive(true);
    let segment = Removed(Segment::create(&key, 5000, &options).expect("a segment"));
    assert_eq!(Segment::open(&key), Ok(segment.0));
    assert_eq!(Segment::create(&key, 100, &CreateOptions::new()), Ok(segment.0));
    assert_eq!(error_of(Segment::create(&key, 5001, &CreateOptions::new())), "EINVAL");
    assert_eq!(error_of(Segment::create(&key, 5000, &options)), "EEXIST");
    let number = key_from_path(scratch.path(), b'M').expect("a key");
    assert_eq!(segment.0.status().expect("a status").key, number);
    assert_eq!(Segment::open(&Key::Value(number)), Ok(segment.0));
    assert_eq!(segment.attach().len(), 5000);
    let other = segment.attach();
    segment.0.remove().expect("marked");
    assert_eq!(error_of(Segment::open(&key)), "ENOENT");
    assert_eq!(other.load_u64(0), Ok(0));
}

#[test]
fn nothing_finds_a_private_segment() {
    for key in [Key::Private, Key::Value(0)] {
        assert_eq!(error_of(Segment::open(&key)), "EINVAL");
    }
    assert_eq!(error_of(Segment::create(&Key::Value(0), 1, &CreateOptions::new())), "EINVAL");
    assert_eq!(error_of(Segment::create(&Key::Private, 0, &CreateOptions::new())), "EINVAL");
    let (one, other) = (Removed::new(), Removed::new());
    assert_ne!(one.0, other.0);
}

#[test]
fn a_read_only_attachment_is_not_written() {
    let segment = Removed::new();
    let (writer, reader) =
        (segment.attach(), segment.0.attach(Access::ReadOnly).expect("attached"));
    writer.write_at(8, b"contents").expect("written");
    assert!(!reader.is_writable() && !reader.is_truncated());
    assert_eq!(error_of(reader.write_at(0, b"x")), "EACCES");
    assert_eq!(error_of(reader.atomic_u64(8)), "EACCES");
    assert_eq!(reader.load_u64(8), Ok(u64::from_ne_bytes(*b"contents")));
    assert_eq!(error_of(reader.read_at(4096, &mut [0])), "EINVAL");
}

/// With a umask that would take everything, as an ordinary user: modes are exact, and are kept.
pub(crate) fn modes(arguments: &[String]) {
    become_ordinary_user();
    rustix::process::umask(Mode::from_raw_mode(0o777));
    let attach =
        |segment: Segment, access| segment.attach(access).map_or_else(Error::name, |_| "attached");
    for mode in [0o600, 0o666, 0o200, 0o400] {
        let options = CreateOptions::new().permissions(Permissions::new().mode(mode));
        let segment = Removed(Segment::create(&Key::Private, 1, &options).expect("a segment"));
        report(format_args!(
            "{:o} {} {}",
            segment.0.status().map_or(0, |status| status.mode),
            attach(segment.0, Access::ReadOnly),
            attach(segment.0, Access::ReadWrite)
        ));
    }
    if let Some(id) = arguments.first() {
        let foreign = Segment::from_id(id.parse().expect("an id"));
        report(format_args!(
            "{} {} {}",
            attach(foreign, Access::ReadOnly),
            attach(foreign, Access::ReadWrite),
            foreign.remove().map_or_else(Error::name, |()| "removed")
        ));
    }
}

const MODES: [&str; 4] =
    ["600 attached attached", "666 attached attached", "0 EACCES EACCES", "400 attached EACCES"];

#[test]
fn the_mode_is_exact_and_kept() {
    let mut child = Child::role::<&str>("sysv_shm_modes", &[]);
    assert_eq!(child.remaining_lines(), MODES);
}

#[test]
fn an_owner_and_a_group_can_be_given_and_outsiders_are_refused() {
    if !is_root() {
        return the_mode_is_exact_and_kept();
    }
    for (permissions, answer) in [
        (Permissions::new(), "EACCES EACCES EPERM"),
        (Permissions::new().mode(0o640).group(NOBODY), "attached EACCES EPERM"),
        (Permissions::new().mode(0o640).owner(NOBODY), "attached attached removed"),
    ] {
        let options = CreateOptions::new().permissions(permissions);
        let segment = Removed(Segment::create(&Key::Private, 1, &options).expect("a segment"));
        let status = segment.0.status().expect("a status");
        assert_eq!(status.owner, permissions.owner.unwrap_or(0));
        assert_eq!(status.group, permissions.group.unwrap_or(status.creator_group));
        assert_eq!((status.creator, status.mode), (0, permissions.mode));
        let mut child = Child::role("sysv_shm_modes", &[segment.0.id()]);
        assert_eq!(child.remaining_lines().last().map(String::as_str), Some(answer));
    }
}

/// In an IPC namespace of its own, whose limits it lowers where it may.
pub(crate) fn limits_role(_: &[String]) {
    let set = |file: &str, value: u64| {
        fs::write(format!("/proc/sys/kernel/{file}"), value.to_string()).is_ok()
    };
    let create = |bytes: usize| Segment::create(&Key::Private, bytes, &CreateOptions::new());
    report("ready");
    let few = set("shmmni", 10);
    let mut created = Vec::new();
    let error = loop {
        match create(1) {
            Ok(segment) => created.push(segment),
            Err(error) => break error,
        }
    };
    report(format_args!("{} {error:?}", created.len() as u64 == limits().max_segments));
    for segment in created {
        segment.remove().expect("removed");
    }
    if !(few && set("shmmax", 100_000) && set("shmall", 30)) {
        return report("not lowered");
    }
    report("lowered");
    report(format_args!("{:?}", create(100_001).expect_err("over shmmax")));
    let first = create(100_000).expect("within the limits");
    report(format_args!("{:?}", create(30_000).expect_err("over shmall")));
    first.remove().expect("removed");
    report(create(30_000).is_ok());
}

#[test]
fn limits_are_named() {
    let starter: &[&str] = if is_root() {
        &["unshare", "--ipc"]
    } else {
        &["unshare", "--user", "--map-root-user", "--ipc"]
    };
    let mut child = Child::role_under::<&str>(starter, "sysv_shm_limits", &[]);
    let test = "limits_are_named";
    if child.line().is_none() {
        return switchboard_testkit::skip::skip(test, "no IPC namespace of its own to be had");
    }
    child.expect("true shmget over shmmni: ENOSPC (28)");
    // Before Linux 6.2, only root outside may lower them.
    if child.line().as_deref() == Some("lowered") {
        child.expect("shmget over shmmax: EINVAL (22)");
        child.expect("shmget over shmall: ENOSPC (28)");
        child.expect("true");
    } else {
        assert!(!is_root(), "root may lower them");
    }
}

#[test]
fn nothing_is_larger_than_shmmax() {
    let Ok(too_much) = usize::try_from(limits().max_segment_bytes.saturating_add(1)) else {
        return;
    };
    let error = Segment::create(&Key::Private, too_much, &CreateOptions::new());
    assert_eq!(format!("{:?}", error.expect_err("too much")), "shmget over shmmax: EINVAL (22)");
}

#[test]
fn limits_are_those_of_the_system() {
    let limits = limits();
    for (file, value) in [
        ("shmmax", limits.max_segment_bytes),
        ("shmall", limits.max_total_pages),
        ("shmmni", limits.max_segments),
    ] {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{file}")).expect("a limit");
        assert_eq!(text.trim(), value.to_string(), "{file}");
    }
}

#[test]
fn python_shares_the_segment() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: 42 };
    let segment = Removed(Segment::create(&key, 4096, &CreateOptions::new()).expect("a segment"));
    let memory = segment.attach();
    memory.write_at(0, b"from rust").expect("written");
    let program = "import sysv_ipc, sys\n\
                   memory = sysv_ipc.SharedMemory(sysv_ipc.ftok(sys.argv[1], 42, True))\n\
                   print(memory.read(9).decode(), memory.number_attached, memory.size)\n\
                   memory.write(b'from python', 100)\n";
    let path = scratch.path().to_str().expect("a path");
    let Some(said) = python::run("python_shares_the_segment", "sysv_ipc", program, &[path]) else {
        return;
    };
    assert_eq!(said, "from rust 2 4096");
    let mut found = [0; 11];
    memory.read_at(100, &mut found).expect("read");
    assert_eq!(&found, b"from python");
}

#[test]
fn a_c_program_makes_the_segment() {
    let scratch = Scratch::new();
    let key = Key::Path { path: scratch.path().to_owned(), id: b'C' };
    let source = r#"
        #include <string.h>
        #include <sys/ipc.h>
        #include <sys/shm.h>
        int main(int count, char **arguments) {
            int id = shmget(ftok(arguments[1], 'C'), 300, IPC_CREAT | IPC_EXCL | 0600);
            char *start = shmat(id, 0, 0);
            if (start == (void *)-1) return 1;
            strcpy(start, "from c");
            return 0;
        }"#;
    let Some(program) = compile("a_c_program_makes_the_segment", source) else { return };
    let status = program.command().arg(scratch.path()).status().expect("a C program");
    assert!(status.success(), "{status}");
    let segment = Removed(Segment::open(&key).expect("a segment"));
    let status = segment.0.status().expect("a status");
    assert_eq!((status.len_bytes, status.attached, status.mode), (300, 0, 0o600));
    let mut found = [0; 7];
    segment.attach().read_at(0, &mut found).expect("read");
    assert_eq!(&found, b"from c\0");
}

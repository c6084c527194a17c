//! Memory files passed between processes, their seals, and huge pages.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use switchboard_kernel::memfd::{Memfd, Seals, huge_page_sizes};
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::posix_shm::Segment;
use switchboard_kernel::unix_socket as unix;
use switchboard_kernel::{Permissions, posix_shm};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, unique};

use crate::c_program::compile;
use crate::hand_over;
use crate::mmap::error_of;
use crate::privileges::is_root;
use crate::python;

const FIXED: fn() -> Seals = || Seals::SHRINK | Seals::GROW;

fn sealed(seals: Seals) -> Memfd {
    let memfd = Memfd::create("test", 4096).expect("memory");
    memfd.add_seals(seals).expect("sealed");
    memfd
}

/// Checks what it was given, reads from it, and tries to spoil it.
pub(crate) fn receiver(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let memfd = match Memfd::received(fds.remove(0), FIXED()) {
        Ok(memfd) => memfd,
        Err(error) => return report(error),
    };
    let memory = memfd.map(Mode::ReadOnly).expect("a mapping");
    let mut found = [0; 8];
    memory.read_at(0, &mut found).expect("read");
    report(format_args!("{} {}", memory.len(), String::from_utf8_lossy(&found)));
    report(error_of(memfd.map(Mode::ReadWrite)));
    report(error_of(memfd.add_seals(Seals::WRITE)));
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memfd.as_fd()));
    let reopened = fs::File::options().read(true).write(true).open(path);
    let reopened = Memfd::received(reopened.expect("of the same user").into(), Seals::NONE);
    report(error_of(reopened.expect("memory").map(Mode::ReadWrite)));
    let _ = instruction();
    report(memory.load_u64(8).expect("a word"));
    let _ = instruction();
}

#[test]
fn a_receiver_checks_and_only_reads() {
    let memfd = sealed(FIXED());
    let memory = memfd.map(Mode::ReadWrite).expect("a mapping");
    memfd.add_seals(Seals::FUTURE_WRITE | Seals::SEAL).expect("sealed");
    memory.write_at(0, b"contents").expect("written");
    let read_only = memfd.reopen_read_only().expect("a descriptor");
    let mut child = hand_over::start("memfd_receiver", &[], &[read_only.as_fd()]);
    child.expect("4096 contents");
    for expected in ["EACCES", "EPERM", "EPERM"] {
        child.expect(expected);
    }
    memory.atomic_u64(8).expect("a word").store(42, Ordering::Release);
    child.tell("look");
    child.expect("42");
    child.kill();
    memory.write_at(0, b"still here").expect("written");
}

#[test]
fn a_receiver_refuses_what_is_not_sealed() {
    let name = format!("/{}", unique("not-memfd"));
    let segment = Segment::create(&name, 4096, Permissions::new()).expect("a segment");
    posix_shm::unlink(&name).expect("unlinked");
    let file: OwnedFd = fs::File::open("/proc/self/exe").expect("a file").into();
    let (plain, half) = (sealed(Seals::NONE), sealed(Seals::SHRINK));
    for (fd, expected) in [
        (plain.as_fd(), "EPERM"),
        (half.as_fd(), "EPERM"),
        (segment.as_fd(), "EPERM"),
        (file.as_fd(), "EINVAL"),
    ] {
        let mut child = hand_over::start("memfd_receiver", &[], &[fd]);
        let said = child.line().expect("a refusal");
        assert!(said.starts_with("fcntl F_GET_SEALS: ") && said.contains(expected), "{said}");
    }
}

/// Makes a memory file, passes it on and waits to be killed.
pub(crate) fn sender(arguments: &[String]) {
    let (fds, _) = hand_over::take(arguments);
    let memfd = sealed(FIXED());
    memfd.map(Mode::ReadWrite).expect("a mapping").write_at(0, b"left").expect("written");
    unix::send_with_fds(&fds[0], b"m", &[memfd.as_fd()]).expect("sent");
    let _ = instruction();
}

#[test]
fn memory_outlives_a_killed_sender() {
    let (ours, theirs) = unix::pair(unix::Kind::Seqpacket).expect("a pair");
    let mut child = hand_over::start("memfd_sender", &[], &[theirs.as_fd()]);
    hand_over::ready(&ours);
    let (_, mut fds) = unix::recv_with_fds(&ours, &mut [0; 8], 1).expect("received");
    child.kill();
    let memfd = Memfd::received(fds.remove(0), FIXED()).expect("sealed memory");
    assert_eq!(memfd.len_bytes(), Ok(4096));
    let memory = memfd.map(Mode::ReadWrite).expect("a mapping");
    assert_eq!(memory.load_u32(0), Ok(u32::from_ne_bytes(*b"left")));
}

#[test]
fn seals_hold() {
    let memfd = sealed(Seals::NONE);
    let file = |memfd: &Memfd| fs::File::from(memfd.as_fd().try_clone_to_owned().expect("a copy"));
    assert!(!memfd.seals().expect("seals").contains(Seals::SHRINK));
    file(&memfd).set_len(8192).expect("grown");
    memfd.add_seals(Seals::GROW).expect("sealed");
    assert_eq!(error_of(memfd.grow(8193)), "EPERM");
    file(&memfd).set_len(4096).expect("cut");
    memfd.add_seals(Seals::SHRINK).expect("sealed");
    file(&memfd).set_len(0).expect_err("sealed");
    let memory = memfd.map(Mode::ReadWrite).expect("a mapping");
    assert_eq!(error_of(memfd.add_seals(Seals::WRITE)), "EBUSY");
    memory.write_at(0, b"last words").expect("written");
    drop(memory);
    memfd.add_seals(Seals::WRITE).expect("sealed");
    assert_eq!(error_of(memfd.map(Mode::ReadWrite)), "EPERM");
    let reader = Memfd::received(memfd.reopen_read_only().expect("a descriptor"), FIXED());
    let reader = reader.expect("sealed").map(Mode::ReadOnly).expect("a mapping");
    assert_eq!(reader.load_u32(0), Ok(u32::from_ne_bytes(*b"last")));
    let private = memfd.map(Mode::Private).expect("a mapping");
    private.write_at(0, b"mine").expect("written");
    memfd.add_seals(Seals::SEAL).expect("sealed");
    assert_eq!(error_of(memfd.add_seals(Seals::GROW)), "EPERM");
    let all = memfd.seals().expect("seals");
    assert!(all.contains(FIXED() | Seals::WRITE | Seals::SEAL));
    assert!(format!("{all:?}").starts_with("Seals(SHRINK | GROW | WRITE | SEAL"), "{all:?}");
    assert_eq!(format!("{:?}", Seals::NONE), "Seals()");
}

#[test]
fn one_that_can_shrink_is_guarded() {
    let memfd = sealed(Seals::NONE);
    let memory = memfd.map(Mode::ReadWrite).expect("a mapping");
    fs::File::from(memfd.as_fd().try_clone_to_owned().expect("a copy")).set_len(0).expect("cut");
    assert_eq!(error_of(memory.write_at(100, b"x")), "EIO");
    assert!(memory.is_truncated());
}

#[test]
fn what_cannot_be_made_is_refused() {
    assert_eq!(error_of(Memfd::create("empty", 0)), "EINVAL");
    assert_eq!(error_of(Memfd::create("nul\0", 1)), "EINVAL");
    assert_eq!(error_of(Memfd::create(&"x".repeat(250), 1)), "EINVAL");
    Memfd::create(&"x".repeat(249), 1).expect("a long name");
    for (len, page) in [(4096, 0), (4096, 3), (1, 2 << 20), ((2 << 20) + 1, 2 << 20)] {
        assert_eq!(error_of(Memfd::create_huge("crooked", len, page)), "EINVAL", "{len} {page}");
    }
    let strange = Memfd::create_huge("strange", 1 << 13, 1 << 13).expect_err("no such page");
    assert!(matches!(strange.name(), "ENODEV" | "ENOENT" | "EINVAL" | "ENOSYS"), "{strange}");
}

#[test]
fn others_may_not_open_it_anew() {
    let memfd = sealed(Seals::NONE);
    let mode = rustix::fs::fstat(&memfd).expect("a mode").st_mode & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn no_huge_pages_is_an_error_at_creation() {
    let Some(page) = huge_page_sizes().first().copied() else {
        return assert_eq!(error_of(Memfd::create_huge("huge", 2 << 20, 2 << 20)), "ENOSYS");
    };
    let error = Memfd::create_huge("huge", page * (1 << 20), page).expect_err("far too many");
    assert_eq!((error.call(), error.name()), ("mmap", "ENOMEM"));
}

/// Sets huge pages aside while it lives.
struct HugePages {
    file: String,
    before: u64,
    /// Locked, so that two runs of this test do not undo each other's setting.
    _lock: fs::File,
}

impl HugePages {
    /// None, if they cannot be had.
    fn reserve(page_bytes: u64, count: u64) -> Option<Self> {
        let file =
            format!("/sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages", page_bytes / 1024);
        let read = || fs::read_to_string(&file).ok()?.trim().parse::<u64>().ok();
        let lock = fs::File::open("/sys/kernel/mm/hugepages").ok()?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).ok()?;
        let before = read()?;
        fs::write(&file, (before + count).to_string()).ok()?;
        let reserved = read()? == before + count;
        let pages = Self { file, before, _lock: lock };
        reserved.then_some(pages)
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, self.before.to_string());
    }
}

/// Adds to what another process wrote to huge pages it was given.
pub(crate) fn huge(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let memfd = Memfd::received(fds.remove(0), Seals::SHRINK).expect("sealed");
    let memory = memfd.map(Mode::ReadWrite).expect("a mapping");
    let last = memory.len() - 8;
    report(memory.load_u64(last).expect("a word"));
    memory.atomic_u64(last).expect("a word").store(8, Ordering::Release);
    report("stored");
}

#[test]
fn huge_pages_are_shared_where_there_are_some() {
    const PAGE: u64 = 2 << 20;
    if !is_root() || !huge_page_sizes().contains(&PAGE) {
        // Only root can set pages aside.
        return no_huge_pages_is_an_error_at_creation();
    }
    let Some(_pages) = HugePages::reserve(PAGE, 4) else {
        return no_huge_pages_is_an_error_at_creation();
    };
    let memfd = Memfd::create_huge("huge", 2 * PAGE, PAGE).expect("two pages");
    memfd.add_seals(Seals::SHRINK).expect("sealed");
    let memory = memfd.map(Mode::ReadWrite).expect("a mapping");
    assert_eq!(memory.len() as u64, 2 * PAGE);
    // Reserved by creation alone, whether they are mapped or not.
    let rest = Memfd::create_huge("rest", 2 * PAGE, PAGE).expect("two pages");
    assert_eq!(error_of(Memfd::create_huge("none", PAGE, PAGE)), "ENOMEM");
    drop(rest);
    memory.atomic_u64(memory.len() - 8).expect("a word").store(7, Ordering::Release);
    let mut child = hand_over::start("memfd_huge", &[], &[memfd.as_fd()]);
    child.expect("7");
    child.expect("stored");
    assert_eq!(memory.load_u64(memory.len() - 8), Ok(8));
    let program = "import mmap\nm = mmap.mmap(fds[0], 4 << 20)\nsay(m[-8])\nm[-8] = 9";
    let test = "huge_pages_are_shared_where_there_are_some";
    if let Some(mut python) = python::start_with(test, "mmap", program, &[memfd.as_fd()]) {
        python.expect("8");
        assert!(python.wait().success());
        assert_eq!(memory.load_u64(memory.len() - 8), Ok(9));
    }

    let cut = Memfd::create_huge("cut", 2 * PAGE, PAGE).expect("two pages");
    let memory = cut.map(Mode::ReadWrite).expect("a mapping");
    let file = fs::File::from(cut.as_fd().try_clone_to_owned().expect("a copy"));
    file.set_len(PAGE).expect("cut");
    assert_eq!(memory.write_at(0, b"there"), Ok(()));
    assert_eq!(error_of(memory.write_at(PAGE as usize + 5000, b"gone")), "EIO");
}

#[test]
fn a_c_program_reads_inherited_memory() {
    let memfd = sealed(FIXED());
    memfd.map(Mode::ReadWrite).expect("a mapping").write_at(0, b"from rust\0").expect("written");
    let source = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <sys/mman.h>
        int main(void) {
            int wanted = F_SEAL_SHRINK | F_SEAL_GROW;
            if ((fcntl(0, F_GET_SEALS) & wanted) != wanted) return 1;
            char *start = mmap(0, 4096, PROT_READ, MAP_SHARED, 0, 0);
            if (start == MAP_FAILED) return 2;
            puts(start);
            return 0;
        }"#;
    let Some(program) = compile("a_c_program_reads_inherited_memory", source) else { return };
    let input = memfd.as_fd().try_clone_to_owned().expect("a copy");
    let output = program.command().stdin(input).output();
    let output = output.expect("a C program");
    assert!(output.status.success(), "{}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "from rust");
}

#[test]
fn a_descriptor_is_not_inherited_by_accident() {
    let memfd = sealed(Seals::NONE);
    let flags = rustix::io::fcntl_getfd(&memfd).expect("flags");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    let reopened = memfd.reopen_read_only().expect("a descriptor");
    let flags = rustix::io::fcntl_getfd(&reopened).expect("flags");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

/// A child that holds nothing but the memory keeps it.
#[test]
fn memory_lives_as_long_as_somebody_has_it() {
    let memfd = sealed(FIXED());
    memfd.map(Mode::ReadWrite).expect("a mapping").write_at(0, b"kept").expect("written");
    let (ours, theirs) = unix::pair(unix::Kind::Seqpacket).expect("a pair");
    let mut holder: Child = hand_over::start("hand-over-holder", &[], &[memfd.as_fd()]);
    holder.expect("holding");
    unix::send_with_fds(&ours, b"m", &[memfd.as_fd()]).expect("sent");
    drop(memfd);
    holder.kill();
    let (_, mut fds) = unix::recv_with_fds(&theirs, &mut [0; 8], 1).expect("received");
    let memfd = Memfd::received(fds.remove(0), FIXED()).expect("sealed");
    let memory = memfd.map(Mode::ReadOnly).expect("a mapping");
    assert_eq!(memory.load_u32(0), Ok(u32::from_ne_bytes(*b"kept")));
}

/// Makes memory, gives it away, seals it, gives it away again, and stays.
const PYTHON_MAKES: &str = "
import fcntl, mmap
connection = meet()
fd = os.memfd_create('python', os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
os.ftruncate(fd, 4096)
mmap.mmap(fd, 4096)[:11] = b'from python'
give(connection, fd)
told()
fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
give(connection, fd)
told()
";

#[test]
fn memory_of_python_is_checked_and_outlives_it() {
    let test = "memory_of_python_is_checked_and_outlives_it";
    let Some((mut python, connection)) = python::meet(test, "mmap", PYTHON_MAKES, &[]) else {
        return;
    };
    let not_sealed_yet = hand_over::given(&connection);
    assert_eq!(error_of(Memfd::received(not_sealed_yet, FIXED())), "EPERM");
    python.tell("seal it");
    let memfd = Memfd::received(hand_over::given(&connection), FIXED()).expect("sealed");
    python.kill();
    let mut found = [0; 11];
    memfd.map(Mode::ReadWrite).expect("a mapping").read_at(0, &mut found).expect("read");
    assert_eq!(&found, b"from python");
}

/// Takes read-only memory, and once more from a process of this crate that is killed meanwhile.
const PYTHON_TAKES: &str = "
import fcntl, mmap
def refused(call):
    try: call()
    except OSError as error: say(errno.errorcode[error.errno])
assert fcntl.fcntl(fds[0], fcntl.F_GET_SEALS) & 6 == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
refused(lambda: mmap.mmap(fds[0], 4096))
refused(lambda: fcntl.fcntl(fds[0], fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE))
say(mmap.mmap(fds[0], 4096, prot=mmap.PROT_READ)[:9].decode())
given = take(socket.socket(fileno=fds[1]))[0]
say('taken')
told()
refused(lambda: os.ftruncate(given, 0))
say(mmap.mmap(given, 4096)[:4].decode())
";

#[test]
fn python_takes_ours_which_outlives_us() {
    let memfd = sealed(FIXED());
    memfd.map(Mode::ReadWrite).expect("a mapping").write_at(0, b"from rust").expect("written");
    let read_only = memfd.reopen_read_only().expect("a descriptor");
    let (ours, theirs) = unix::pair(unix::Kind::Seqpacket).expect("a pair");
    let test = "python_takes_ours_which_outlives_us";
    let fds = [read_only.as_fd(), theirs.as_fd()];
    let Some(mut python) = python::start_with(test, "mmap", PYTHON_TAKES, &fds) else { return };
    for expected in ["EACCES", "EPERM", "from rust"] {
        python.expect(expected);
    }
    let mut sender = hand_over::start("memfd_sender", &[], &[ours.as_fd()]);
    python.expect("taken");
    sender.kill();
    python.tell("killed");
    python.expect("EPERM");
    python.expect("left");
}

//! Memory with one writer, given to other processes: what they may do, what is refused, and what is
//! left in a forked child.

#![allow(unsafe_code)]

mod refused;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{FallocateFlags, OFlags};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use switchboard_kernel::futex::{Waited, wait, wake};
use switchboard_kernel::io::{Deadline, duplicate};
use switchboard_kernel::shared_memory::{Doorbell, OwnMemory, PAGE_BYTES, PeerMemory, low_half};
use switchboard_kernel::unix_socket as unix;
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, DEADLINE, skip};

use crate::fork::in_child;
use crate::hand_over;
use crate::mmap::error_of;
use crate::privileges::is_root;

const SIZES: std::ops::RangeInclusive<usize> = PAGE_BYTES..=1 << 20;

fn given(memory: &OwnMemory) -> OwnedFd {
    memory.read_only_fd().expect("a descriptor")
}

/// Sleeps on the first word of what it was given, says what it is then, and wakes who sleeps there.
pub(crate) fn reader(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let memory = PeerMemory::received(fds.remove(0), SIZES).expect("memory");
    report(memory.words().len());
    let word = &memory.words()[0];
    let waited = wait(low_half(word), 0, Deadline::after(DEADLINE)).expect("a wait");
    report(format_args!("{waited:?} {:#x}", word.load(Ordering::Acquire)));
    let _ = instruction();
    // The page is mapped read-only here: waking works nevertheless.
    wake_one(word);
    report("woken");
    let _ = instruction();
    report(format_args!("{:#x}", memory.words()[1].load(Ordering::Acquire)));
}

/// Wakes who sleeps there, once somebody does.
fn wake_one(word: &AtomicU64) {
    let since = Instant::now();
    while wake(low_half(word), 1).expect("a wake") == 0 {
        assert!(since.elapsed() < DEADLINE, "nobody sleeps");
        std::thread::yield_now();
    }
}

#[test]
fn a_reader_sleeps_on_it_wakes_at_it_and_outlives_the_writer() {
    let memory = OwnMemory::create("ring", 2 * PAGE_BYTES).expect("memory");
    let mut child = hand_over::start("shared_memory-reader", &[], &[given(&memory).as_fd()]);
    child.expect("1024");
    let word = &memory.words()[0];
    // The upper half alone does not end the wait.
    word.store(0x5_0000_0000, Ordering::Release);
    wake_one(word);
    child.expect("Woken 0x500000000");
    word.store(0x5_0000_0007, Ordering::Release);
    std::thread::scope(|scope| {
        let memory = memory.clone();
        let waiter = scope.spawn(move || {
            wait(low_half(&memory.words()[0]), 7, Deadline::after(DEADLINE)).expect("a wait")
        });
        child.tell("wake");
        assert_eq!(waiter.join().expect("no panic"), Waited::Woken);
    });
    child.expect("woken");
    memory.words()[1].store(9, Ordering::Release);
    drop(memory);
    child.tell("look");
    child.expect("0x9");
}

/// Makes memory, gives it away and waits to be killed.
pub(crate) fn writer(arguments: &[String]) {
    let (fds, _) = hand_over::take(arguments);
    let memory = OwnMemory::create("ring", PAGE_BYTES).expect("memory");
    memory.words()[511].store(42, Ordering::Release);
    unix::send_with_fds(&fds[0], b"m", &[given(&memory).as_fd()]).expect("sent");
    let _ = instruction();
}

#[test]
fn memory_outlives_a_killed_writer() {
    let (ours, theirs) = unix::pair(unix::Kind::Seqpacket).expect("a pair");
    let mut child = hand_over::start("shared_memory-writer", &[], &[theirs.as_fd()]);
    let fd = hand_over::given(&ours);
    child.kill();
    let memory = PeerMemory::received(fd, SIZES).expect("memory");
    assert_eq!(memory.words()[511].load(Ordering::Acquire), 42);
    assert_eq!(memory.len_bytes(), PAGE_BYTES);
}

/// Tries to write what it was given in every way, then by a store.
pub(crate) fn liar(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let fd = fds.remove(0);
    let memory = PeerMemory::received(duplicate(&fd).expect("a copy"), SIZES).expect("memory");
    // A process of the same user may open it anew.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let open = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("of the same user");
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let start = memory.words().as_ptr().cast_mut().cast();
    // SAFETY: neither of the two succeeds.
    let protect = unsafe {
        rustix::mm::mprotect(start, PAGE_BYTES, MprotectFlags::READ | MprotectFlags::WRITE)
    };
    report(format_args!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        map(fd.as_fd()).err(),
        map(open.as_fd()).err(),
        rustix::io::write(&open, b"x").err(),
        rustix::fs::ftruncate(&open, 0).err(),
        rustix::fs::fallocate(&open, hole, 0, 4096).err(),
        rustix::fs::fcntl_add_seals(&open, rustix::fs::SealFlags::WRITE).err(),
        protect.err(),
    ));
    memory.words()[0].store(1, Ordering::Relaxed);
    report("stored");
}

/// Maps a page, shared and writable.
fn map(fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let nowhere = std::ptr::null_mut();
    // SAFETY: no address is asked for, so the mapping replaces nothing; nobody uses it.
    unsafe { rustix::mm::mmap(nowhere, PAGE_BYTES, access, MapFlags::SHARED, fd, 0) }.map(drop)
}

#[test]
fn nobody_else_writes_it() {
    let memory = OwnMemory::create("ring", PAGE_BYTES).expect("memory");
    let mut child = hand_over::start("shared_memory-liar", &[], &[given(&memory).as_fd()]);
    let said = child.line().expect("what it found");
    assert_eq!(said.matches("Some").count(), 7, "{said}");
    assert_eq!(child.line(), None);
    assert_eq!(child.wait().signal(), Some(libc::SIGSEGV));
    assert!(memory.words().iter().all(|word| word.load(Ordering::Relaxed) == 0));
}

/// Rings at a doorbell that it was given, until killed.
pub(crate) fn ringer(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let bell = Doorbell::received(fds.remove(0)).expect("a doorbell");
    assert_eq!(error_of(bell.fd()), "EBADF");
    bell.words()[511].fetch_or(1 << 63, Ordering::SeqCst);
    wake(low_half(&bell.words()[511]), 1).expect("a wake");
    report("rung");
    let _ = instruction();
}

#[test]
fn a_doorbell_is_written_by_both_and_outlives_the_ringer() {
    let bell = Doorbell::create().expect("a doorbell");
    assert_eq!(bell.words().len() * 8, PAGE_BYTES);
    let fd = bell.fd().expect("a descriptor");
    let mut child = hand_over::start("shared_memory-ringer", &[], &[fd]);
    child.expect("rung");
    child.kill();
    assert_eq!(bell.words()[511].fetch_and(0, Ordering::SeqCst), 1 << 63);
}

/// What a forked child has of the memory: nothing, and new memory of its own.
pub(crate) fn forker(_: &[String]) {
    let own = OwnMemory::create("own", PAGE_BYTES).expect("memory");
    let peer = PeerMemory::received(given(&own), SIZES).expect("memory");
    let bell = Doorbell::create().expect("a doorbell");
    let place = own.words().as_ptr().cast_mut();
    let here = own.is_here() && peer.is_here() && bell.is_here();
    let checked =
        own.check_here().is_ok() && peer.check_here().is_ok() && bell.check_here().is_ok();
    let mut all = Some((own, peer, bell));
    let child = in_child(|| {
        let Some((own, peer, bell)) = all.take() else { return false };
        let gone = !(own.is_here() || peer.is_here() || bell.is_here());
        let errors = [own.check_here(), peer.check_here(), bell.check_here()].map(error_of);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: the page is taken only where nothing is: if the kernel kept it out of this child.
        let mapped = unsafe { rustix::mm::mmap_anonymous(place.cast(), PAGE_BYTES, access, flags) };
        if mapped.is_err() {
            return false;
        }
        drop((own, peer, bell));
        // SAFETY: it was just mapped here, and dropping what the parent has unmapped nothing.
        unsafe { place.write_volatile(7.into()) };
        let fresh = OwnMemory::create("fresh", PAGE_BYTES).expect("memory");
        gone && errors == ["ESTALE"; 3] && fresh.is_here()
    });
    let still = all.is_some_and(|all| {
        all.0.words()[0].store(1, Ordering::Release);
        all.0.is_here() && all.1.words()[0].load(Ordering::Acquire) == 1
    });
    report(format_args!("{here} {checked} {child} {still}"));
}

#[test]
fn a_forked_child_has_none_of_it() {
    Child::role("shared_memory-forker", &[""]).expect("true true 0 true");
}

#[test]
fn descriptors_are_given_away_and_not_kept() {
    let memory = OwnMemory::create("ring", PAGE_BYTES).expect("memory");
    let fd = given(&memory);
    let flags = rustix::io::fcntl_getfd(&fd).expect("flags");
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    assert_eq!(rustix::fs::fstat(&fd).expect("a mode").st_mode & 0o777, 0o600);
    let last = memory.clone().take_read_only_fd().expect("a descriptor");
    assert_eq!(error_of(memory.read_only_fd()), "EBADF");
    assert_eq!(error_of(memory.take_read_only_fd()), "EBADF");
    let peer = PeerMemory::received(last, SIZES).expect("memory");
    memory.words()[2].store(3, Ordering::Release);
    assert_eq!(peer.words()[2].load(Ordering::Acquire), 3);
}

/// The pages of this process that are mapped from memory files of this name.
fn mappings(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    maps.lines().filter(|line| line.contains(name)).count()
}

#[test]
fn the_last_clone_unmaps() {
    let name = format!("clones-{}", std::process::id());
    let memory = OwnMemory::create(&name, PAGE_BYTES).expect("memory");
    let peer = PeerMemory::received(given(&memory), SIZES).expect("memory");
    assert_eq!(mappings(&name), 2);
    let others = (memory.clone(), peer.clone());
    drop((memory, peer));
    std::thread::spawn(move || {
        others.0.words()[0].store(1, Ordering::Release);
        assert_eq!(others.1.words()[0].load(Ordering::Acquire), 1);
        assert_eq!(format!("{:?}", others.1), "PeerMemory { len_bytes: 4096, .. }");
    })
    .join()
    .expect("no panic");
    assert_eq!(mappings(&name), 0);
}

/// Without `/proc` there is no memory to give away, but a doorbell.
pub(crate) fn without_proc(_: &[String]) {
    let error = OwnMemory::create("ring", PAGE_BYTES).expect_err("no /proc");
    report(format_args!("{error:?} {}", Doorbell::create().is_ok()));
}

#[test]
fn without_proc_it_is_an_error_at_creation() {
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    let user: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
    let starter = [&["unshare", "--mount"], user, &["sh", "-c", script, "sh"]].concat();
    let mut child = Child::role_under(&starter, "shared_memory-without_proc", &[""]);
    match child.line() {
        Some(said) => assert_eq!(said, "open: ENOENT (2) true"),
        None => skip::skip("shared_memory::without_proc", "mount namespaces are not allowed here"),
    }
}

#[test]
fn file_sizes_are_limited() {
    let file = File::from(given(&OwnMemory::create("ring", 1 << 20).expect("memory")));
    assert_eq!(file.metadata().expect("its size").len(), 1 << 20);
    Child::role("shared_memory-limited", &[""]).expect("EFBIG EFBIG");
}

/// Makes more than `RLIMIT_FSIZE` allows.
pub(crate) fn limited(_: &[String]) {
    let limit = rustix::process::Rlimit { current: Some(4095), maximum: Some(4095) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).expect("a limit");
    let memory = OwnMemory::create("ring", PAGE_BYTES);
    report(format_args!("{} {}", error_of(memory), error_of(Doorbell::create())));
}

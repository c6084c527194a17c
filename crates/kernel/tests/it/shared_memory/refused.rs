//! What is not taken for memory of a peer.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use switchboard_kernel::Error;
use switchboard_kernel::io::duplicate;
use switchboard_kernel::memfd::Memfd;
use switchboard_kernel::mmap::{Mode, page_bytes};
use switchboard_kernel::shared_memory::{Doorbell, OwnMemory, PAGE_BYTES, PeerMemory};

use super::{SIZES, given};
use crate::mmap::error_of;

const ONE_WRITER: fn() -> SealFlags =
    || SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
const ALL_WRITE: fn() -> SealFlags = || SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;

/// Memory as a peer might make it.
struct Made {
    flags: MemfdFlags,
    len_bytes: u64,
    reserved: u64,
    seals: SealFlags,
}

impl Made {
    fn new(seals: SealFlags) -> Self {
        Self { flags: MemfdFlags::NOEXEC_SEAL, len_bytes: 8192, reserved: 8192, seals }
    }

    fn open(&self) -> Memfd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("made", flags | self.flags).expect("memory");
        rustix::fs::ftruncate(&fd, self.len_bytes).expect("a length");
        if self.reserved > 0 {
            let flags = FallocateFlags::empty();
            rustix::fs::fallocate(&fd, flags, 0, self.reserved).expect("reserved");
        }
        rustix::fs::fcntl_add_seals(&fd, self.seals).expect("sealed");
        Memfd::received(fd, switchboard_kernel::memfd::Seals::NONE).expect("memory")
    }

    fn read_only(&self) -> OwnedFd {
        self.open().reopen_read_only().expect("a descriptor")
    }
}

fn check(fd: OwnedFd, expected: &str) {
    let error: Option<Error> = PeerMemory::received(fd, SIZES).err();
    let said = error.map_or("taken".to_owned(), |e| format!("{}: {}", e.call(), e.name()));
    assert_eq!(said, expected);
}

#[test]
fn memory_that_could_change_behind_ones_back() {
    let all = Made::new(ONE_WRITER());
    check(all.read_only(), "taken");
    check(Made { flags: MemfdFlags::empty(), ..Made::new(ONE_WRITER()) }.read_only(), "taken");
    check(all.open().into(), "fcntl F_GETFL: EACCES");
    for missing in [SealFlags::SHRINK, SealFlags::GROW, SealFlags::FUTURE_WRITE, SealFlags::SEAL] {
        check(Made::new(ONE_WRITER() - missing).read_only(), "fcntl F_GET_SEALS: EPERM");
    }
    let more = Made::new(ONE_WRITER() | SealFlags::WRITE);
    check(more.read_only(), "fcntl F_GET_SEALS: EPERM");
    check(Made::new(SealFlags::empty()).read_only(), "fcntl F_GET_SEALS: EPERM");
}

#[test]
fn memory_of_a_wrong_size() {
    for len_bytes in [0, 1, 4095, 4097, 6144, (1 << 20) + 4096, 1 << 40] {
        let reserved = 0;
        let made = Made { len_bytes, reserved, ..Made::new(ONE_WRITER()) };
        check(made.read_only(), "fstat st_size: EINVAL");
    }
    let own = OwnMemory::create("own", 8192).expect("memory");
    for (sizes, expected) in [
        (8192..=8192, None),
        (0..=usize::MAX, None),
        (4096..=4096, Some("fstat st_size")),
        (12288..=1 << 20, Some("fstat st_size")),
    ] {
        let error = PeerMemory::received(given(&own), sizes).err();
        assert_eq!(error.map(Error::call), expected);
    }
}

#[test]
fn memory_that_is_not_all_there() {
    // Without transparent huge pages, which may be all there at once.
    let page = page_bytes() as u64;
    let len_bytes = 16 * page;
    for (reserved, expected) in [
        (0, "fstat st_blocks: ENODATA"),
        (15 * page, "fstat st_blocks: ENODATA"),
        (len_bytes, "taken"),
    ] {
        check(Made { len_bytes, reserved, ..Made::new(ONE_WRITER()) }.read_only(), expected);
    }
}

#[test]
fn what_is_no_memory_at_all() {
    let program = File::open("/proc/self/exe").expect("a file");
    check(program.into(), "fcntl F_GET_SEALS: EINVAL");
    let (reader, writer) = switchboard_kernel::pipe::pipe().expect("a pipe");
    check(reader, "fcntl F_GET_SEALS: EINVAL");
    check(writer, "fcntl F_GETFL: EACCES");
    let folder = File::open("/").expect("a folder");
    check(folder.into(), "fcntl F_GET_SEALS: EINVAL");
    // In the file system that memory files are made of, but with a name.
    if let Ok(file) = tempfile::tempfile_in("/dev/shm") {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        check(File::open(path).expect("the file").into(), "fcntl F_GET_SEALS: EPERM");
    }
}

#[test]
fn no_other_page_is_a_doorbell() {
    let refused = |fd: OwnedFd| {
        let error = Doorbell::received(fd).expect_err("refused");
        format!("{}: {}", error.call(), error.name())
    };
    let page = |seals| Made { len_bytes: 4096, reserved: 4096, ..Made::new(seals) };
    Doorbell::received(page(ALL_WRITE()).open().into()).expect("a doorbell");
    assert_eq!(refused(page(ALL_WRITE()).read_only()), "mmap: EACCES");
    for seals in [
        ONE_WRITER(),
        ALL_WRITE() | SealFlags::WRITE,
        SealFlags::SHRINK | SealFlags::SEAL,
        SealFlags::GROW | SealFlags::SEAL,
        SealFlags::SHRINK | SealFlags::GROW,
    ] {
        assert_eq!(refused(page(seals).open().into()), "fcntl F_GET_SEALS: EPERM");
    }
    assert_eq!(refused(Made::new(ALL_WRITE()).open().into()), "fstat st_size: EINVAL");
    let sparse = Made { reserved: 0, ..page(ALL_WRITE()) };
    assert_eq!(refused(sparse.open().into()), "fstat st_blocks: ENODATA");
}

#[test]
fn sizes_that_cannot_be() {
    for len_bytes in [0, 1, 4095, 4097, usize::MAX, usize::MAX - 4095] {
        assert_eq!(error_of(OwnMemory::create("own", len_bytes)), "EINVAL", "{len_bytes}");
    }
    assert_eq!(error_of(OwnMemory::create("nul\0", PAGE_BYTES)), "EINVAL");
}

/// A writable mapping that was there before the seals is the writer's, and refuses nothing.
#[test]
fn what_python_or_c_would_make_is_taken() {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("made", flags).expect("memory");
    rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, 4096).expect("reserved");
    let memfd = Memfd::received(duplicate(&fd).expect("a copy"), {
        switchboard_kernel::memfd::Seals::NONE
    });
    let mapping = memfd.expect("memory").map(Mode::ReadWrite).expect("a mapping");
    rustix::fs::fcntl_add_seals(&fd, ONE_WRITER()).expect("sealed");
    mapping.write_at(8, &[5]).expect("written");
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()));
    let peer = PeerMemory::received(File::open(path).expect("open").into(), SIZES);
    let peer = peer.expect("memory");
    assert_eq!(peer.words()[1].load(std::sync::atomic::Ordering::Relaxed), 5_u64.to_le());
}

//! Memory as liars give it away.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use switchboard_kernel::eventfd::EventFd;
use switchboard_kernel::unix_socket;
use switchboard_shm::layout::{PAGE_BYTES, VERSION, reader, writer, writer_bytes};

/// Of the rings here.
pub(super) const CAPACITY_BYTES: usize = 32 << 10;

/// What memory with one writer has.
pub(super) const ONE_WRITER: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::FUTURE_WRITE).union(SealFlags::SEAL);
/// What a doorbell has.
pub(super) const ALL_WRITE: SealFlags =
    SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// How memory is made.
#[derive(Clone, Debug)]
pub(super) struct Made {
    pub(super) len_bytes: usize,
    pub(super) seals: SealFlags,
    /// All of it is there.
    pub(super) reserved: bool,
    /// Given away open for writing.
    pub(super) writable: bool,
    /// What it says: index of a word, and the word.
    pub(super) words: Vec<(usize, u64)>,
}

/// A ring that is as it should be, and empty.
pub(super) fn ring(pattern: u32) -> Made {
    Made {
        len_bytes: writer_bytes(CAPACITY_BYTES),
        seals: ONE_WRITER,
        reserved: true,
        writable: false,
        words: vec![
            (writer::MAGIC_WORD, writer::MAGIC),
            (writer::KIND_WORD, u64::from(VERSION) | u64::from(pattern) << 32),
            (writer::CAPACITY_WORD, CAPACITY_BYTES as u64),
        ],
    }
}

/// A reader's page that is as it should be.
pub(super) fn page() -> Made {
    Made {
        len_bytes: PAGE_BYTES,
        words: vec![
            (reader::MAGIC_WORD, reader::MAGIC),
            (reader::VERSION_WORD, u64::from(VERSION)),
        ],
        ..ring(1)
    }
}

/// A segment of an arena.
pub(super) fn segment(len_bytes: usize) -> Made {
    Made { len_bytes, words: Vec::new(), ..ring(1) }
}

/// A doorbell.
pub(super) fn bell() -> Made {
    Made { seals: ALL_WRITE, writable: true, ..segment(PAGE_BYTES) }
}

impl Made {
    /// Says something else in a word.
    pub(super) fn with(mut self, index: usize, word: u64) -> Self {
        self.words.push((index, word));
        self
    }

    pub(super) fn make(&self) -> OwnedFd {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let memfd = rustix::fs::memfd_create("switchboard-liar", flags).expect("memory");
        let len_bytes = self.len_bytes as u64;
        rustix::fs::ftruncate(&memfd, len_bytes).expect("a size");
        if self.reserved && len_bytes > 0 {
            let none = FallocateFlags::empty();
            rustix::fs::fallocate(&memfd, none, 0, len_bytes).expect("reserved");
        }
        for (index, word) in &self.words {
            let at = *index as u64 * 8;
            rustix::io::pwrite(&memfd, &word.to_le_bytes(), at).expect("written");
        }
        if !self.seals.is_empty() {
            rustix::fs::fcntl_add_seals(&memfd, self.seals).expect("sealed");
        }
        if self.writable { memfd } else { open_again(&memfd, OFlags::RDONLY) }
    }
}

fn open_again(fd: &OwnedFd, flags: OFlags) -> OwnedFd {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).expect("opened")
}

/// What is wrong about memory that would be right else.
pub(super) fn wrong(right: &Made) -> Vec<(&'static str, OwnedFd)> {
    let with = |change: fn(&mut Made)| {
        let mut made = right.clone();
        change(&mut made);
        made.make()
    };
    let sparse = Made { reserved: false, words: Vec::new(), ..right.clone() }.make();
    let mut all = vec![
        ("not sealed", with(|made| made.seals = SealFlags::empty())),
        ("may shrink", with(|made| made.seals -= SealFlags::SHRINK)),
        ("may grow", with(|made| made.seals -= SealFlags::GROW)),
        ("more seals may come", with(|made| made.seals -= SealFlags::SEAL)),
        ("sealed for ever", with(|made| made.seals |= SealFlags::WRITE)),
        ("sparse", sparse),
        ("empty", with(|made| (made.len_bytes, made.words) = (0, Vec::new()))),
        ("half a page", with(|made| made.len_bytes += PAGE_BYTES / 2)),
        ("a name only", open_again(&right.make(), OFlags::PATH)),
    ];
    if right.seals.contains(SealFlags::FUTURE_WRITE) {
        all.push(("others may write", with(|made| made.seals -= SealFlags::FUTURE_WRITE)));
        all.push(("open for writing", with(|made| made.writable = true)));
    } else {
        all.push(("nobody else may write", with(|made| made.seals |= SealFlags::FUTURE_WRITE)));
        all.push(("open for reading", with(|made| made.writable = false)));
    }
    all.extend(other_things());
    all
}

/// Descriptors that are no memory at all.
fn other_things() -> Vec<(&'static str, OwnedFd)> {
    let open = |path: &str, flags: OFlags| {
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).expect("opened")
    };
    let (socket, _) = unix_socket::pair(unix_socket::Kind::Seqpacket).expect("sockets");
    let (pipe, _) = std::io::pipe().expect("a pipe");
    let program = std::env::current_exe().expect("this program");
    vec![
        ("a counter", EventFd::new(0).expect("a counter").as_fd().try_clone_to_owned()),
        ("a socket", Ok(socket)),
        ("a pipe", Ok(pipe.into())),
        ("a folder", Ok(open("/", OFlags::RDONLY | OFlags::DIRECTORY))),
        ("a program", Ok(open(&program.display().to_string(), OFlags::RDONLY))),
        ("nothing", Ok(open("/dev/null", OFlags::RDWR))),
        ("zeroes", Ok(open("/dev/zero", OFlags::RDWR))),
    ]
    .into_iter()
    .map(|(name, fd)| (name, fd.expect("a descriptor")))
    .collect()
}

//! Mappings between processes: shared and private, growing, and at their limits.

pub(crate) mod truncated;
pub(crate) mod written;

mod made;

use std::fmt::Debug;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use switchboard_kernel::Permissions;
use switchboard_kernel::error::{ErrorKind, Result};
use switchboard_kernel::mmap::{
    Advice, Mapping, Mode, Sync, create_file, free_bytes, give_back, page_bytes, reserve,
    start_write_back, wait_for_write_back,
};
use switchboard_testkit::child::{instruction, report};
use switchboard_testkit::{Child, Scratch};

use crate::c_program::compile;
use crate::python;

pub(crate) use made::sleeper;

pub(crate) fn error_of<T: Debug>(result: Result<T>) -> &'static str {
    result.expect_err("an error").name()
}

/// A file of so many pages.
struct Shared {
    _scratch: Scratch,
    path: PathBuf,
    file: File,
}

impl Shared {
    fn new(pages: usize) -> Self {
        let scratch = Scratch::new();
        let path = scratch.join("file");
        let file = open_new(&path);
        reserve(&file, (pages * page_bytes()) as u64).expect("room");
        Self { _scratch: scratch, path, file }
    }

    fn map(&self, mode: Mode) -> Mapping {
        map_all(&self.file, mode)
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("a path")
    }
}

fn open_new(path: &Path) -> File {
    let mut options = File::options();
    options.read(true).write(true).create_new(true).open(path).expect("a file")
}

fn map_all(file: &File, mode: Mode) -> Mapping {
    let len = usize::try_from(file.metadata().expect("a size").len()).expect("a size");
    Mapping::of_file(file, mode, 0, len).expect("a mapping")
}

fn opened(arguments: &[String]) -> File {
    File::options().read(true).write(true).open(&arguments[0]).expect("a file")
}

fn text_at(mapping: &Mapping, offset: usize, len: usize) -> Result<String> {
    let mut buffer = vec![0; len];
    mapping.read_at(offset, &mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// Writes a text, says so with a word, and counts on until killed.
pub(crate) fn writer(arguments: &[String]) {
    let mapping = map_all(&opened(arguments), Mode::ReadWrite);
    mapping.write_at(5, b"from the writer").expect("written");
    let word = mapping.atomic_u64(64).expect("a word");
    word.store(1, Ordering::Release);
    report("written");
    loop {
        word.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reports what is there for each instruction; `cut` cuts the file.
pub(crate) fn reader(arguments: &[String]) {
    let file = opened(arguments);
    let mapping = map_all(&file, Mode::ReadOnly);
    report("mapped");
    while let Some(line) = instruction() {
        match line.split_once(' ') {
            Some(("cut", pages)) => {
                let pages: u64 = pages.parse().expect("a number");
                file.set_len(pages * page_bytes() as u64).expect("cut");
                report("cut");
            }
            Some(("read", offset)) => match text_at(&mapping, offset.parse().expect("a number"), 4)
            {
                Ok(text) => report(text.escape_default()),
                Err(error) => report(error),
            },
            _ => report("?"),
        }
    }
}

#[test]
fn what_a_killed_writer_wrote_stays() {
    let shared = Shared::new(1);
    let mapping = shared.map(Mode::ReadWrite);
    let mut writer = Child::role("mmap_writer", &[shared.path()]);
    writer.expect("written");
    assert!(mapping.load_u64(64).expect("a word") >= 1);
    assert_eq!(text_at(&mapping, 5, 15).expect("text"), "from the writer");
    writer.kill();
    let count = mapping.load_u64(64).expect("a word");
    assert_eq!(mapping.atomic_u64(64).expect("a word").fetch_add(1, Ordering::Relaxed), count);
    assert_eq!(mapping.load_u32(64).expect("half a word"), (count + 1) as u32);
    assert_eq!(text_at(&mapping, 5, 15).expect("text"), "from the writer");
}

#[test]
fn a_killed_reader_leaves_the_writer_alone() {
    let shared = Shared::new(1);
    let mapping = shared.map(Mode::ReadWrite);
    mapping.write_at(0, b"abcd").expect("written");
    let mut reader = Child::role("mmap_reader", &[shared.path()]);
    reader.expect("mapped");
    reader.tell("read 0");
    reader.expect("abcd");
    reader.kill();
    mapping.write_at(0, b"efgh").expect("written");
    assert_eq!(text_at(&mapping, 0, 4).expect("text"), "efgh");
}

#[test]
fn a_private_copy_is_nobody_elses() {
    let shared = Shared::new(2);
    let mapping = shared.map(Mode::ReadWrite);
    let private = shared.map(Mode::Private);
    let mut reader = Child::role("mmap_reader", &[shared.path()]);
    reader.expect("mapped");
    private.write_at(0, b"mine").expect("written");
    mapping.write_at(4, b"ours").expect("written");
    mapping.write_at(page_bytes(), b"ours").expect("written");
    reader.tell("read 0");
    reader.expect(r"\u{0}\u{0}\u{0}\u{0}");
    reader.tell("read 4");
    reader.expect("ours");
    assert_eq!(text_at(&private, 0, 8).expect("text"), "mine\0\0\0\0");
    assert_eq!(text_at(&private, page_bytes(), 4).expect("text"), "ours");
    drop(private);
    assert_eq!(text_at(&shared.map(Mode::Private), 0, 8).expect("text"), "\0\0\0\0ours");
}

#[test]
fn places_are_checked() {
    let shared = Shared::new(1);
    let mapping = shared.map(Mode::ReadWrite);
    let len = mapping.len();
    assert_eq!((len, mapping.is_empty()), (page_bytes(), false));
    let mut buffer = vec![0; len + 1];
    for (offset, bytes) in [(0, len + 1), (1, len), (len, 1), (usize::MAX, 1), (usize::MAX, len)] {
        assert_eq!(error_of(mapping.read_at(offset, &mut buffer[..bytes])), "EINVAL");
        assert_eq!(error_of(mapping.write_at(offset, &buffer[..bytes])), "EINVAL");
    }
    assert_eq!(mapping.read_at(len, &mut []), Ok(()));
    for offset in [2, len, len - 2, usize::MAX - 3] {
        assert_eq!(error_of(mapping.atomic_u32(offset)), "EINVAL");
        assert_eq!(error_of(mapping.load_u32(offset)), "EINVAL");
    }
    for offset in [4, len, len - 4, usize::MAX - 7] {
        assert_eq!(error_of(mapping.atomic_u64(offset)), "EINVAL");
        assert_eq!(error_of(mapping.load_u64(offset)), "EINVAL");
    }
    mapping.atomic_u64(len - 8).expect("the last word").store(u64::MAX, Ordering::Relaxed);
    for (start, end) in [(0, len + 1), (len, len + 1), (2, 1)] {
        assert_eq!(error_of(mapping.sync(start..end, Sync::Wait)), "EINVAL");
        assert_eq!(error_of(mapping.advise_range(start..end, Advice::Normal)), "EINVAL");
    }
}

#[test]
fn every_alignment_copies_exactly() {
    const ROOM: usize = 17_000;
    let memory = Mapping::anonymous(5 * 4096).expect("memory");
    let pattern: Vec<u8> = (1..=251).cycle().take(ROOM).collect();
    let short = (0..40).chain([63, 64, 65, 511, 512, 513, 543, 544, 1023, 1024, 1025, 1100]);
    let lengths = short.chain([4096, 16_383, 16_384, 16_500]);
    for (offset, len) in (0..33).flat_map(|offset| lengths.clone().map(move |len| (offset, len))) {
        memory.write_at(0, &[0; ROOM]).expect("written");
        memory.write_at(offset, &pattern[offset..offset + len]).expect("written");
        let mut found = [0xff; ROOM];
        memory.read_at(0, &mut found).expect("read");
        let outside = found[..offset].iter().chain(&found[offset + len..]);
        assert!(outside.copied().all(|byte| byte == 0), "{offset} {len}");
        assert!(found[offset..offset + len] == pattern[offset..offset + len], "{offset} {len}");
        // The buffer's alignment is its own.
        for shift in [0, 1, 8, 31] {
            let mut part = vec![0; shift + len + 1];
            memory.read_at(offset, &mut part[shift..shift + len]).expect("read");
            let right = part[shift..shift + len] == pattern[offset..offset + len];
            assert!(right && part[..shift].iter().all(|byte| *byte == 0), "{offset} {len} {shift}");
            assert_eq!(part[shift + len], 0, "{offset} {len} {shift}");
        }
    }
}

#[test]
fn a_read_only_mapping_is_not_written() {
    let shared = Shared::new(1);
    let readable = File::open(&shared.path).expect("a file");
    assert_eq!(
        Mapping::of_file(&readable, Mode::ReadWrite, 0, 8).expect_err("not writable").kind(),
        ErrorKind::PermissionDenied
    );
    let mut later = shared.map(Mode::ReadWrite);
    later.write_at(0, b"once").expect("written");
    later.make_read_only().expect("protected");
    for mapping in [map_all(&readable, Mode::ReadOnly), shared.map(Mode::ReadOnly), later] {
        assert!(!mapping.is_writable());
        assert_eq!(error_of(mapping.write_at(0, b"x")), "EACCES");
        assert_eq!(error_of(mapping.atomic_u32(0)), "EACCES");
        assert_eq!(error_of(mapping.atomic_u64(0)), "EACCES");
        assert_eq!(mapping.load_u32(0), Ok(u32::from_ne_bytes(*b"once")));
        assert_eq!(mapping.load_u64(0).map(u64::to_ne_bytes), Ok(*b"once\0\0\0\0"));
    }
    let private = map_all(&readable, Mode::Private);
    private.write_at(0, b"mine").expect("written");
    assert_eq!(std::fs::read(&shared.path).expect("the file")[..4], *b"once");
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let shared = Shared::new(2);
    let page = page_bytes();
    let map = |offset, len| Mapping::of_file(&shared.file, Mode::ReadOnly, offset, len);
    for (offset, len) in
        [(0, 0), (1, 8), (page as u64, page + 1), (0, usize::MAX), (u64::MAX, 1), (1 << 62, page)]
    {
        assert_eq!(error_of(map(offset, len)), "EINVAL", "{offset} {len}");
    }
    assert_eq!(map(page as u64, page).expect("the second page").len(), page);
    let (reader, _writer) = switchboard_kernel::pipe::pipe().expect("a pipe");
    assert_eq!(error_of(Mapping::of_file(&reader, Mode::Private, 0, 8)), "ENODEV");
    assert_eq!(error_of(Mapping::anonymous(0)), "EINVAL");
    assert_eq!(error_of(Mapping::anonymous(usize::MAX)), "ENOMEM");
}

#[test]
fn a_mapping_grows_with_its_file() {
    let shared = Shared::new(1);
    let page = page_bytes();
    let mut mapping = shared.map(Mode::ReadWrite);
    mapping.write_at(0, b"kept").expect("written");
    assert_eq!(error_of(mapping.grow(page - 1)), "EINVAL");
    assert_eq!(error_of(mapping.grow(usize::MAX)), "ENOMEM");
    reserve(&shared.file, 300 * page as u64).expect("room");
    mapping.grow(300 * page).expect("grown");
    assert_eq!(text_at(&mapping, 0, 4), Ok("kept".to_owned()));
    mapping.write_at(300 * page - 4, b"last").expect("written");
    assert!(std::fs::read(&shared.path).expect("the file").ends_with(b"last"));
    // Beyond the file's end, and after it was cut, the guard is still there.
    mapping.grow(301 * page).expect("grown too far");
    assert_eq!(error_of(mapping.write_at(300 * page, b"x")), "EIO");
    assert_eq!(error_of(mapping.grow(302 * page)), "EIO");
    assert_eq!(error_of(Mapping::anonymous(page).expect("memory").grow(2 * page)), "EINVAL");
}

#[test]
fn advice_is_taken() {
    let shared = Shared::new(4);
    let mapping = shared.map(Mode::ReadWrite);
    mapping.write_at(0, b"kept").expect("written");
    for advice in [
        Advice::Sequential,
        Advice::Random,
        Advice::Normal,
        Advice::WillNeed,
        Advice::DontFork,
        Advice::DoFork,
        Advice::DontDump,
        Advice::PopulateRead,
        Advice::PopulateWrite,
        Advice::DontNeed,
    ] {
        assert_eq!(mapping.advise(advice), Ok(()), "{advice:?}");
    }
    mapping.advise_range(1..page_bytes() + 1, Advice::WillNeed).expect("two pages");
    assert_eq!(text_at(&mapping, 0, 4), Ok("kept".to_owned()));
    let private = shared.map(Mode::Private);
    private.write_at(0, b"mine").expect("written");
    private.advise(Advice::DontNeed).expect("advised");
    assert_eq!(text_at(&private, 0, 4), Ok("kept".to_owned()));
    shared.file.set_len(0).expect("cut");
    assert_eq!(error_of(private.advise(Advice::PopulateRead)), "EFAULT");
    for how in [Sync::Start, Sync::Wait] {
        mapping.sync(0..4, how).expect("synced");
    }
    mapping.lock().expect_err("no page to lock");
}

#[test]
fn a_locked_mapping_is_resident() {
    let shared = Shared::new(2);
    let mapping = shared.map(Mode::ReadWrite);
    mapping.lock().expect("two pages within RLIMIT_MEMLOCK");
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).expect("a line");
    let locked: usize = locked.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(locked * 1024 >= mapping.len(), "{locked} kB");
}

#[test]
fn a_file_is_made_with_its_mode_and_space() {
    let scratch = Scratch::new();
    let path = scratch.join("file");
    let permissions = Permissions::new().mode(0o640);
    let file = File::from(create_file(&path, 5000, permissions).expect("a file"));
    let found = file.metadata().expect("its size");
    assert_eq!((found.len(), found.mode() & 0o777), (5000, 0o640));
    assert!(found.blocks() * 512 >= 5000, "{} blocks", found.blocks());
    map_all(&file, Mode::ReadWrite).write_at(4990, b"to the end").expect("written");
    assert_eq!(std::fs::read(&path).expect("the file")[4990..], *b"to the end");
    assert_eq!(error_of(create_file(&path, 1, permissions)), "EEXIST");
    let other = scratch.join("other");
    assert_eq!(error_of(create_file(&other, 0, permissions)), "EINVAL");
    let too_large = create_file(&other, 1 << 62, permissions).expect_err("no disk is that large");
    assert_eq!(too_large.kind(), ErrorKind::NoSpace);
    assert_eq!(std::fs::read_dir(scratch.path()).expect("the folder").count(), 1);
}

#[test]
fn no_room_is_an_error_when_reserving() {
    let scratch = Scratch::new();
    let file = open_new(&scratch.join("file"));
    assert_eq!(error_of(reserve(&file, 0)), "EINVAL");
    let error = reserve(&file, 1 << 62).expect_err("no disk is that large");
    assert_eq!(error.kind(), ErrorKind::NoSpace);
    assert_eq!(file.metadata().expect("a size").len(), 0);
    let (_reader, writer) = switchboard_kernel::pipe::pipe().expect("a pipe");
    assert_eq!(error_of(reserve(writer.as_fd(), 1)), "ESPIPE");
}

#[test]
fn what_was_reserved_can_be_given_back() {
    let scratch = Scratch::new();
    let file = open_new(&scratch.join("file"));
    let half = 64 * page_bytes() as u64;
    reserve(&file, 2 * half).expect("room");
    assert!(file.metadata().expect("a size").blocks() * 512 >= 2 * half);
    give_back(&file, half, half).expect("given back");
    let metadata = file.metadata().expect("a size");
    assert_eq!(metadata.len(), 2 * half);
    assert!((half..2 * half).contains(&(metadata.blocks() * 512)), "{metadata:?}");
    assert!(free_bytes(&file).expect("what is left") > 0);
    let (_reader, writer) = switchboard_kernel::pipe::pipe().expect("a pipe");
    assert_eq!(error_of(give_back(writer.as_fd(), 0, 1)), "ESPIPE");
}

#[test]
fn what_is_being_written_is_waited_for() {
    let scratch = Scratch::new();
    let file = open_new(&scratch.join("file"));
    file.write_all_at(&[7; 1 << 16], 0).expect("written");
    start_write_back(&file, 0, 1 << 16).expect("begun");
    wait_for_write_back(&file, 0, 1 << 16).expect("written out");
    let (_reader, writer) = switchboard_kernel::pipe::pipe().expect("a pipe");
    assert_eq!(error_of(wait_for_write_back(writer.as_fd(), 0, 1)), "ESPIPE");
}

#[test]
fn a_c_program_shares_the_file() {
    let shared = Shared::new(1);
    let mapping = shared.map(Mode::ReadWrite);
    mapping.write_at(0, b"from rust").expect("written");
    let source = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <stdatomic.h>
        #include <string.h>
        #include <sys/mman.h>
        int main(int count, char **arguments) {
            int fd = open(arguments[1], O_RDWR);
            char *start = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (start == MAP_FAILED) return 1;
            puts(start);
            strcpy(start, "from c");
            atomic_fetch_add((_Atomic unsigned long *)(start + 64), 41);
            return 0;
        }"#;
    mapping.atomic_u64(64).expect("a word").store(1, Ordering::Relaxed);
    let Some(program) = compile("a_c_program_shares_the_file", source) else { return };
    let output = program.command().arg(shared.path()).output().expect("a C program");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "from rust");
    assert_eq!(text_at(&mapping, 0, 6), Ok("from c".to_owned()));
    assert_eq!(mapping.load_u64(64), Ok(42));
}

#[test]
fn python_shares_the_file() {
    let shared = Shared::new(1);
    let mapping = shared.map(Mode::ReadWrite);
    mapping.write_at(10, b"from rust").expect("written");
    let program = "import mmap, sys\n\
                   with open(sys.argv[1], 'r+b') as file, mmap.mmap(file.fileno(), 0) as m:\n\
                   \tprint(m[10:19].decode())\n\
                   \tprivate = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)\n\
                   \tprivate[10:14] = b'mine'\n\
                   \tm[10:21] = b'from python'\n\
                   \tprint(private[10:21].decode())\n";
    let Some(said) = python::run("python_shares_the_file", "mmap", program, &[shared.path()])
    else {
        return;
    };
    assert_eq!(said, "from rust\nmine rust\0\0");
    assert_eq!(text_at(&mapping, 10, 11), Ok("from python".to_owned()));
}

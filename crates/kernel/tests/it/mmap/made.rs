//! Files made to be mapped, and sleeping on a word of read-only memory.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use switchboard_kernel::Permissions;
use switchboard_kernel::futex::{Waited, wake};
use switchboard_kernel::io::Deadline;
use switchboard_kernel::mmap::{Mapping, Mode, create_file};
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE, Scratch};

use super::{error_of, map_all};

#[test]
fn a_file_has_its_size_and_mode_from_the_start() {
    let scratch = Scratch::new();
    let path = scratch.join("made");
    let permissions = Permissions::new().mode(0o642);
    let made = File::from(create_file(&path, 5000, permissions).expect("a file"));
    let found = made.metadata().expect("its status");
    assert_eq!((found.len(), found.permissions().mode() & 0o777), (5000, 0o642));
    assert_eq!(error_of(create_file(&path, 1, permissions)), "EEXIST");
    assert_eq!(error_of(create_file(&scratch.join("no/file"), 1, permissions)), "ENOENT");
    assert_eq!(error_of(create_file(&scratch.join("empty"), 0, permissions)), "EINVAL");
    // Nothing is left of what failed.
    assert_eq!(std::fs::read_dir(scratch.path()).expect("a folder").count(), 1);
}

/// Role: sleeps on the first word, which it may only read.
pub(crate) fn sleeper(arguments: &[String]) {
    let file = File::open(&arguments[0]).expect("a file");
    let mapping = Mapping::of_file(&file, Mode::ReadOnly, 0, 4096).expect("a mapping");
    report("sleeping");
    while mapping.load_u32(0).expect("a word") == 0 {
        mapping.wait_u32(0, 0, Deadline::after(DEADLINE)).expect("a wait");
    }
    report(mapping.load_u32(0).expect("a word"));
}

#[test]
fn a_reader_is_woken_at_a_word_it_cannot_write() {
    let scratch = Scratch::new();
    let path = scratch.join("word");
    let file = File::from(create_file(&path, 4096, Permissions::new()).expect("a file"));
    let mapping = map_all(&file, Mode::ReadWrite);
    let mut sleeper = Child::role("word-sleeper", &[path.display()]);
    sleeper.expect("sleeping");
    let word = mapping.atomic_u32(0).expect("a word");
    word.store(7, Ordering::Release);
    wake(word, u32::MAX).expect("awake");
    sleeper.expect("7");

    let soon = Deadline::after(Duration::from_millis(1));
    assert_eq!(mapping.wait_u32(0, 7, soon).expect("a wait"), Waited::TimedOut);
    assert_eq!(mapping.wait_u32(0, 8, Deadline::NEVER).expect("a wait"), Waited::ValueChanged);
    assert_eq!(error_of(mapping.wait_u32(2, 0, soon)), "EINVAL");
    file.set_len(0).expect("cut");
    assert_eq!(error_of(mapping.wait_u32(0, 7, soon)), "EIO");
}

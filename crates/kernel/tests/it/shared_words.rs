//! Memory that a test and its children map, and what is refused.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::Ordering;

use switchboard_kernel::shared_words::SharedWords;
use switchboard_testkit::Scratch;

/// The path by which a child opens this process's memory.
pub(crate) fn path_of(memory: &SharedWords) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), memory.as_fd().as_raw_fd())
}

/// In a child: the memory of the process that gave the path.
pub(crate) fn opened(path: &str) -> SharedWords {
    let file = OpenOptions::new().read(true).write(true).open(path).expect("the memory");
    SharedWords::from_fd(file).expect("a mapping")
}

fn error_of<T>(result: switchboard_kernel::Result<T>) -> &'static str {
    result.err().map_or("none", |error| error.name())
}

#[test]
fn slots_do_not_overlap_and_are_free_again() {
    let memory = SharedWords::create(4096).expect("memory");
    let slot = memory.slot(64, 64).expect("a slot");
    assert_eq!((slot.words().len(), slot.len_bytes()), (16, 64));
    for (offset, len, expected) in [
        (0, 68, "EBUSY"),
        (120, 8, "EBUSY"),
        (64, 64, "EBUSY"),
        (128, 64, "none"),
        (0, 64, "none"),
        (4, 4, "EINVAL"),
        (0, 6, "EINVAL"),
        (0, 0, "EINVAL"),
        (4096, 4, "EINVAL"),
        (4088, 12, "EINVAL"),
        (usize::MAX - 7, 64, "EINVAL"),
    ] {
        assert_eq!(error_of(memory.slot(offset, len)), expected, "{offset} {len}");
    }
    drop(slot);
    assert_eq!(error_of(memory.clone().slot(64, 64)), "none");
}

#[test]
fn a_slot_keeps_the_memory() {
    let memory = SharedWords::create(8).expect("memory");
    let mut slot = memory.slot(0, 8).expect("a slot");
    drop(memory);
    slot.words()[1].store(5, Ordering::Relaxed);
    slot.clear();
    assert_eq!(slot.words()[1].load(Ordering::Relaxed), 0);
}

#[test]
fn only_memory_that_cannot_shrink_is_taken() {
    let memory = SharedWords::create(64).expect("memory");
    let file = OpenOptions::new().write(true).open(path_of(&memory)).expect("the memory");
    for len in [0, 32, 128] {
        assert_eq!(file.set_len(len).expect_err("sealed").raw_os_error(), Some(libc::EPERM));
    }
    assert_eq!(error_of(SharedWords::create(0)), "EINVAL");

    let scratch = Scratch::new();
    let path = scratch.join("file");
    std::fs::write(&path, [0; 64]).expect("a file");
    let reading = File::open(&path).expect("the file");
    assert_eq!(error_of(SharedWords::from_unsealed_fd(&reading)), "EACCES");
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("the file");
    assert!(matches!(error_of(SharedWords::from_fd(&file)), "EPERM" | "EINVAL"));
    let mapped = SharedWords::from_unsealed_fd(&file).expect("a mapping");
    mapped.slot(0, 4).expect("a slot").words()[0].store(0x6162_6364, Ordering::Relaxed);
    assert_eq!(std::fs::read(&path).expect("its bytes")[..4], 0x6162_6364_u32.to_ne_bytes());
    file.set_len(0).expect("truncated");
    assert_eq!(error_of(SharedWords::from_unsealed_fd(&file)), "EINVAL");
}

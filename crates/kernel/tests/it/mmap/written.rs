//! Writing to a file that others have mapped.

use std::sync::atomic::Ordering;
use std::time::Instant;

use rustix::process::{Resource, Rlimit, setrlimit};
use switchboard_kernel::io::write_all_at;
use switchboard_kernel::mmap::Mode;
use switchboard_testkit::child::report;
use switchboard_testkit::{Child, DEADLINE};

use super::{Shared, error_of, map_all, opened};

/// Bytes that are written at once: from the middle of a page to the middle of another.
const AT: u64 = 1000;
const LEN: usize = 60_000;
const ROUNDS: u64 = 300;

/// Role: waits for the word of each round, and looks whether everything that was written before is there.
pub(crate) fn follower(arguments: &[String]) {
    let mapping = map_all(&opened(arguments), Mode::ReadWrite);
    report("mapped");
    let mut bytes = vec![0; LEN];
    for round in 1..=ROUNDS {
        let since = Instant::now();
        while mapping.load_u64(0).expect("a word") != round {
            assert!(since.elapsed() < DEADLINE, "round {round} does not come");
            std::hint::spin_loop();
        }
        mapping.read_at(AT as usize, &mut bytes).expect("what was written");
        let other = bytes.iter().position(|byte| *byte != round as u8);
        assert_eq!(other, None, "round {round}");
        // The next round may be written: pairs with the load in the test.
        mapping.atomic_u64(8).expect("a word").store(round, Ordering::Release);
    }
    report("seen");
}

#[test]
fn what_is_written_is_there_once_a_word_says_so() {
    let shared = Shared::new(16);
    let mapping = shared.map(Mode::ReadWrite);
    let mut follower = Child::role("mmap_follower", &[shared.path()]);
    follower.expect("mapped");
    for round in 1..=ROUNDS {
        write_all_at(&shared.file, &[round as u8; LEN], AT).expect("written");
        mapping.atomic_u64(0).expect("a word").store(round, Ordering::Release);
        let since = Instant::now();
        while mapping.load_u64(8).expect("a word") != round {
            assert!(since.elapsed() < DEADLINE, "round {round} is not seen");
            std::thread::yield_now();
        }
    }
    follower.expect("seen");
    assert_eq!(shared.file.metadata().expect("a size").len(), mapping.len() as u64);
}

#[test]
fn what_cannot_be_written_to_is_refused() {
    let shared = Shared::new(1);
    let read_only = std::fs::File::open(&shared.path).expect("a file");
    assert_eq!(error_of(write_all_at(&read_only, b"no", 0)), "EBADF");
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    assert_eq!(error_of(write_all_at(&writer, b"no", 0)), "ESPIPE");
    assert_eq!(error_of(write_all_at(&shared.file, b"no", u64::MAX)), "EINVAL");
    write_all_at(&shared.file, b"", 0).expect("nothing to do");
}

/// Role: writes over `RLIMIT_FSIZE`, for which the kernel would send a signal that kills.
pub(crate) fn limited(arguments: &[String]) {
    let limit = Rlimit { current: Some(5000), maximum: Some(5000) };
    setrlimit(Resource::Fsize, limit).expect("a lower limit");
    let file = opened(arguments);
    report(error_of(write_all_at(&file, &[1; 1000], 4001)));
    report(write_all_at(&file, &[1; 1000], 4000).is_ok());
}

#[test]
fn the_file_size_limit_is_an_error() {
    let shared = Shared::new(2);
    let mut child = Child::role("mmap_limited", &[shared.path()]);
    child.expect("EFBIG");
    child.expect("true");
    assert!(child.wait().success());
    let bytes = std::fs::read(&shared.path).expect("a file");
    assert!(bytes[..4000].iter().chain(&bytes[5000..]).all(|byte| *byte == 0), "a part is there");
    assert!(bytes[4000..5000].iter().all(|byte| *byte == 1));
}

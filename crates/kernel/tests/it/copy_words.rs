//! Copies of every length, and of what another process writes meanwhile.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use switchboard_kernel::copy_words::{copy_in, copy_out};
use switchboard_kernel::shared_memory::{OwnMemory, PeerMemory};
use switchboard_testkit::child::report;

use crate::hand_over;

#[test]
fn every_length_is_copied_and_nothing_beyond() {
    let bytes: Vec<u8> = (1..=255).cycle().take(700).collect();
    let words: Vec<AtomicU64> = (0..90).map(AtomicU64::new).collect();
    for (len, at) in (0..=600).flat_map(|len| [(len, 0), (len, 5)]) {
        for word in &words {
            word.store(u64::MAX, Ordering::Relaxed);
        }
        // From and to places of every alignment.
        let from = &bytes[len % 8..][..len];
        copy_in(&words[at..], from);
        let end = at + len.div_ceil(8);
        let stored: Vec<u8> = words[at..end]
            .iter()
            .flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes())
            .collect();
        assert_eq!(&stored[..len], from);
        assert!(stored[len..].iter().all(|byte| *byte == 0), "{len}");
        let others = words[..at].iter().chain(&words[end..]);
        assert!(others.map(|word| word.load(Ordering::Relaxed)).all(|word| word == u64::MAX));
        let mut found = [0xee; 620];
        copy_out(&words[at..], &mut found[len % 16..][..len]);
        assert_eq!(&found[len % 16..][..len], from);
        assert!(found[..len % 16].iter().chain(&found[len % 16 + len..]).all(|byte| *byte == 0xee));
    }
}

/// Of what it was given, reads until all of a copy is the last letter; says how many copies were of
/// other bytes than letters.
pub(crate) fn reader(arguments: &[String]) {
    let (mut fds, _) = hand_over::take(arguments);
    let memory = PeerMemory::received(fds.remove(0), 4096..=4096).expect("memory");
    let mut odd = 0;
    let mut ended = [false; LENGTHS.len()];
    report("reading");
    let since = Instant::now();
    while ended.contains(&false) && since.elapsed() < Duration::from_secs(20) {
        for (at, (len, ended)) in LENGTHS.iter().zip(&mut ended).enumerate() {
            let mut found = vec![0; *len];
            copy_out(&memory.words()[at * 128..], &mut found);
            odd += u32::from(found.iter().any(|byte| !byte.is_ascii_uppercase()));
            *ended = found.iter().all(|byte| *byte == b'Z');
        }
    }
    report(format_args!("{odd} {}", !ended.contains(&false)));
}

const LENGTHS: [usize; 4] = [7, 48, 100, 1000];

#[test]
fn what_is_written_meanwhile_comes_in_part() {
    let memory = OwnMemory::create("copies", 4096).expect("memory");
    let write = |letter: u8| {
        for (at, len) in LENGTHS.iter().enumerate() {
            copy_in(&memory.words()[at * 128..], &vec![letter; *len]);
        }
    };
    write(b'A');
    let fd = memory.take_read_only_fd().expect("a descriptor");
    let mut child = hand_over::start("copy_words-reader", &[], &[fd.as_fd()]);
    child.expect("reading");
    for turn in 0..20_000 {
        write(b'A' + u8::try_from(turn % 26).expect("a letter"));
    }
    write(b'Z');
    child.expect("0 true");
}

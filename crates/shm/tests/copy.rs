//! Copies of every length and alignment.

use std::sync::atomic::{AtomicU64, Ordering};

use switchboard_shm::{copy_in, copy_out};

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

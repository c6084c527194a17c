//! Random bytes: as many as are wanted, and never the same.

use switchboard_kernel::random;

#[test]
fn all_bytes_are_filled_and_differ() {
    for len in [0, 1, 16, 300, 1 << 20] {
        let (mut one, mut other) = (vec![0; len], vec![0; len]);
        random::fill(&mut one).expect("random bytes");
        random::fill(&mut other).expect("random bytes");
        assert!(len < 16 || one != other);
        // Of so many bytes, none is left out but by chance.
        assert!(len < 1 << 20 || (0..=255).all(|byte| one[len - 65_536..].contains(&byte)));
    }
}

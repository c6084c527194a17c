//! The end of a transfer: counts the bytes of standard input and sums them up.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use switchboard_kernel::io;

use crate::Failure;

/// Bytes per read.
const BLOCK_BYTES: usize = 256 * 1024;

/// Reads standard input to its end and prints how many bytes there were, and their sum.
pub(crate) fn main() -> Result<(), Failure> {
    let input = std::io::stdin();
    let (bytes, sum) = consume(|block| Ok(io::read(input.as_fd(), block)?))?;
    println!("{bytes} {sum:016x}");
    Ok(())
}

/// The length and sum of a file.
pub(crate) fn of_file(mut file: File) -> Result<(u64, u64), Failure> {
    consume(|block| Ok(file.read(block)?))
}

fn consume(
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Failure>,
) -> Result<(u64, u64), Failure> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut sum = Sum::default();
    let mut bytes = 0;
    // Bytes at the front that are no whole word yet.
    let mut left = 0;
    loop {
        let read = read(&mut block[left..])?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        let filled = left + read;
        let whole = filled - filled % 8;
        sum.add(&block[..whole]);
        block.copy_within(whole..filled, 0);
        left = filled - whole;
    }
    block[left..8].fill(0);
    sum.add(&block[..8]);
    Ok((bytes, sum.result()))
}

/// Fletcher's sum over 64-bit words: it notices what is changed, missing, doubled or out of order.
#[derive(Default)]
struct Sum {
    words: u64,
    sums: u64,
}

impl Sum {
    fn add(&mut self, whole_words: &[u8]) {
        for word in whole_words.as_chunks().0 {
            self.words = self.words.wrapping_add(u64::from_le_bytes(*word));
            self.sums = self.sums.wrapping_add(self.words);
        }
    }

    fn result(&self) -> u64 {
        self.words.rotate_left(32) ^ self.sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of these bytes, read in steps of `step`.
    fn sum(mut bytes: &[u8], step: usize) -> (u64, u64) {
        consume(|block| {
            let n = step.min(bytes.len()).min(block.len());
            block[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            Ok(n)
        })
        .unwrap()
    }

    #[test]
    fn how_it_is_read_does_not_matter() {
        let bytes: Vec<u8> = (0..1003u32).map(|i| (i * 7) as u8).collect();
        for step in [1, 3, 8, 64, 5000] {
            assert_eq!(sum(&bytes, step), sum(&bytes, 1003), "steps of {step}");
        }
    }

    #[test]
    fn what_is_wrong_shows() {
        let bytes: Vec<u8> = (0..64u8).collect();
        let right = sum(&bytes, 64);
        let mut swapped = bytes.clone();
        swapped.rotate_left(8);
        let mut changed = bytes.clone();
        changed[20] ^= 1;
        for wrong in [&swapped[..], &changed, &bytes[..56], &bytes[8..]] {
            assert_ne!(sum(wrong, 64), right);
        }
    }
}

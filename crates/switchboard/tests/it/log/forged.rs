//! Who sends a message puts something into it that looks like a message of its own: nobody gets that one, whatever
//! happens to the one around it, and looking takes no longer.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use switchboard::{Bytes, Topic};
use switchboard_testkit::Scratch;

use super::{number_of, read_topic, segments};

const FORGED: &[u8] = b"forged: transfer all";
/// Where the first message's payload begins, behind the header of the segment and its own.
const PAYLOAD_AT: u64 = 64 + 32;

/// A frame for lane 0 as docs/design/log.md draws it, of message 2.
fn frame(segment: u64, offset: u64) -> Vec<u8> {
    let mut rest = [2_u64, 1].map(u64::to_le_bytes).concat();
    rest.extend(FORGED);
    rest.resize(16 + FORGED.len().next_multiple_of(8), 0);
    let segment = segment.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let start = segment as u32 ^ (offset as u32).rotate_left(8) ^ FORGED.len() as u32;
    let word = FORGED.len() as u64 | 1 << 32 | 0xA6_5B9D << 40;
    let mut frame = word.to_le_bytes().to_vec();
    frame.extend(u64::from(crc32c::crc32c_append(start, &rest)).to_le_bytes());
    frame.extend(rest);
    frame
}

/// A payload of frames, each for another segment.
fn frames(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
    let mut payload = Vec::new();
    for number in numbers {
        payload.extend(frame(number, PAYLOAD_AT + payload.len() as u64));
    }
    payload
}

/// Sends that payload and another message, and flips a bit of the first one: what is read then.
fn read_damaged(address: &str, segment: &Path, payload: &[u8]) -> Vec<Vec<u8>> {
    let mut publisher =
        Topic::<Bytes>::open(address).and_then(|topic| topic.publisher()).expect("a publisher");
    for message in [payload, b"honest"] {
        publisher.send(&Bytes(message.to_vec())).expect("sent");
    }
    drop(publisher);
    // The number of the message.
    let file = File::options().read(true).write(true).open(segment).expect("a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, 64 + 17).expect("a byte");
    file.write_all_at(&[byte[0] ^ 1], 64 + 17).expect("flipped");
    read_topic(address).messages.into_iter().map(|(_, message)| message).collect()
}

/// A log that has a segment and no message.
fn log(scratch: &Scratch, name: &str) -> (String, std::path::PathBuf) {
    let address = format!("file:{}?segment=64KiB", scratch.join(name).display());
    Topic::<Bytes>::open(&address).and_then(|topic| topic.publisher()).expect("a publisher");
    let segment = segments(&scratch.join(name)).remove(0);
    (address, segment)
}

#[test]
fn what_a_message_contains_is_no_message_to_anybody() {
    let scratch = Scratch::new();
    let (address, segment) = log(&scratch, "log");
    // Whoever knows the number of the segment can do it: he may read the folder.
    let known = frames([number_of(&segment)].into_iter());
    let read = read_damaged(&address, &segment, &known);
    assert!(read.iter().any(|message| message == FORGED), "this test forges nothing: {read:?}");
    // Nobody else knows it, or comes near.
    let (address, segment) = log(&scratch, "other");
    let number = number_of(&segment);
    assert!(number > 1 << 40, "{number}");
    let guessed = frames(1..200);
    let read = read_damaged(&address, &segment, &guessed);
    assert_eq!(read, [b"honest"]);
}

#[test]
fn what_is_full_of_beginnings_is_passed_over_in_time() {
    let scratch = Scratch::new();
    let address = format!("file:{}?segment=4MiB", scratch.join("log").display());
    Topic::<Bytes>::open(&address).and_then(|topic| topic.publisher()).expect("a publisher");
    let segment = segments(&scratch.join("log")).remove(0);
    // Words that say of themselves that they begin a frame of all that follows: one by one, that were 2^36 bytes to look at.
    let len = 1_u64 << 20;
    let words =
        (0..len / 8).map(|at| (len - at * 8).saturating_sub(64) | 1 << 32 | 0xA6_5B9D << 40);
    let payload: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let read = read_damaged(&address, &segment, &payload);
    assert_eq!(read, [b"honest"]);
}

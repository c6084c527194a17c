//! Messages that are written together, as one frame. No I/O; `docs/design/log.md` draws the bytes.

use super::frame::{COMMIT_BYTE_AT, HEADER_BYTES, Header, LENGTH_BYTES, Place, frame_bytes};

/// A frame ends with so many bytes of padding, at most.
const PADDING: usize = 7;

/// Messages that are accepted and not in the segment yet.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Room for the header, and the messages. Emptied when they are written; kept for its memory.
    frame: Vec<u8>,
    /// As they will stand behind the messages.
    lengths: Vec<[u8; LENGTH_BYTES]>,
    /// Bytes that further messages and their lengths may take without another look.
    free_bytes: usize,
    is_sealed: bool,
}

impl Batch {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    pub(super) fn messages(&self) -> u64 {
        self.lengths.len() as u64
    }

    /// Bytes that its frame takes with a further message.
    #[inline]
    pub(super) fn frame_bytes_with(&self, payload: &[u8]) -> usize {
        if self.is_empty() {
            return frame_bytes(payload.len());
        }
        let messages_bytes = self.frame.len() - HEADER_BYTES + payload.len();
        frame_bytes(messages_bytes + (self.lengths.len() + 1) * LENGTH_BYTES)
    }

    #[inline]
    pub(super) fn add(&mut self, payload: &[u8]) {
        if self.frame.is_empty() {
            self.frame.resize(HEADER_BYTES, 0);
        }
        self.frame.extend_from_slice(payload);
        self.lengths.push((payload.len() as u32).to_le_bytes());
    }

    /// Its frame may take so many bytes: [`add_next`](Self::add_next) keeps to that.
    pub(super) fn allow(&mut self, most_bytes: usize) {
        let lengths_bytes = self.lengths.len() * LENGTH_BYTES;
        self.free_bytes = most_bytes.saturating_sub(self.frame.len() + lengths_bytes + PADDING);
    }

    /// Adds a message to those that are there, if it surely is within what was allowed.
    #[inline]
    pub(super) fn add_next(&mut self, payload: &[u8]) -> bool {
        let bytes = payload.len() + LENGTH_BYTES;
        let is_free = bytes <= self.free_bytes;
        if is_free {
            self.free_bytes -= bytes;
            self.add(payload);
        }
        is_free
    }

    /// The frame, all but the byte that commits it. It stays as it was made first, whatever is asked for
    /// later, until it is cleared: a part of it may be in the segment.
    pub(super) fn seal(&mut self, place: Place, sequence: u64, time_ns: u64) -> &[u8] {
        if !self.is_sealed {
            self.is_sealed = true;
            self.free_bytes = 0;
            if self.messages() > 1 {
                self.frame.extend_from_slice(self.lengths.as_flattened());
            }
            let payload_bytes = self.frame.len() - HEADER_BYTES;
            self.frame.resize(frame_bytes(payload_bytes), 0);
            let messages = self.messages() as u32;
            let header = Header { payload_bytes, messages, sequence, time_ns };
            header.seal(place, &mut self.frame);
            self.frame[COMMIT_BYTE_AT] = 0;
        }
        &self.frame
    }

    pub(super) fn clear(&mut self) {
        self.frame.clear();
        self.lengths.clear();
        self.free_bytes = 0;
        self.is_sealed = false;
    }
}

/// The messages of a batch that was read, as far as they were not handed out.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// The payload of its frame, which holds.
    bytes: Vec<u8>,
    /// Where the next message begins, and its length stands.
    at: usize,
    length_at: usize,
    /// The number of the next message.
    sequence: u64,
    time_ns: u64,
}

impl Unpacked {
    /// The buffer for the payload of the next one. Nothing is left of the one before.
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        self.clear();
        &mut self.bytes
    }

    /// The payload of a frame that holds is in the buffer.
    pub(super) fn begin(&mut self, header: &Header) {
        self.at = 0;
        self.length_at = self.bytes.len().saturating_sub(header.messages as usize * LENGTH_BYTES);
        (self.sequence, self.time_ns) = (header.sequence, header.time_ns);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.length_at = 0;
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.length_at >= self.bytes.len()
    }

    pub(super) fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// The next message, and its number.
    #[inline]
    pub(super) fn next(&mut self) -> Option<(u64, &[u8])> {
        let length = self.bytes.get(self.length_at..)?.first_chunk()?;
        let end = self.at.checked_add(u32::from_le_bytes(*length) as usize)?;
        let message = self.bytes.get(self.at..end)?;
        let sequence = self.sequence;
        self.at = end;
        self.length_at += LENGTH_BYTES;
        self.sequence = sequence.saturating_add(1);
        Some((sequence, message))
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::COMMIT_BYTE;
    use super::*;

    const PLACE: Place = Place { lane: 1, segment: 2, offset: 64 };

    /// What is read of a batch of these messages.
    fn read(messages: &[&[u8]]) -> Vec<(u64, Vec<u8>)> {
        let mut batch = Batch::default();
        let mut bytes = 0;
        for message in messages {
            bytes = batch.frame_bytes_with(message);
            batch.add(message);
        }
        let mut frame = batch.seal(PLACE, 7, 9).to_vec();
        assert_eq!(frame.len(), bytes);
        assert_eq!(batch.seal(PLACE, 8, 10), frame, "it stays as it is");
        assert_eq!(Header::check(PLACE, &frame), None, "it is not committed");
        frame[COMMIT_BYTE_AT..][..1].copy_from_slice(COMMIT_BYTE);
        let header = Header::check(PLACE, &frame).expect("a frame that holds");
        let mut unpacked = Unpacked::default();
        let payload = &frame[HEADER_BYTES..][..header.payload_bytes];
        unpacked.buffer().extend_from_slice(payload);
        if header.messages == 1 {
            return vec![(header.sequence, payload.to_vec())];
        }
        unpacked.begin(&header);
        let mut found = Vec::new();
        while let Some((sequence, message)) = unpacked.next() {
            found.push((sequence, message.to_vec()));
        }
        assert!(unpacked.is_empty());
        found
    }

    #[test]
    fn no_more_is_added_than_was_allowed() {
        for most_bytes in 0..400 {
            let mut batch = Batch::default();
            assert!(!batch.add_next(b"none is there"));
            batch.add(b"first");
            batch.allow(most_bytes);
            let mut messages = 1;
            while batch.add_next(b"four"[..messages % 5].as_ref()) {
                messages += 1;
            }
            let frame_bytes = batch.seal(PLACE, 1, 1).len();
            assert!(messages == 1 || frame_bytes <= most_bytes, "{most_bytes}");
            assert!(frame_bytes + 4 + LENGTH_BYTES + PADDING >= most_bytes.min(64), "{most_bytes}");
            assert!(!batch.add_next(b""), "it is sealed");
            batch.clear();
            assert!(!batch.add_next(b""), "it is empty");
        }
    }

    #[test]
    fn what_is_read_is_what_was_added() {
        let large = vec![3; 5000];
        let cases: [&[&[u8]]; 5] =
            [&[b"one"], &[b""], &[b"", b""], &[b"a", b"", b"bcd"], &[&large, b"x", &large]];
        for messages in cases {
            let numbered = (7..).zip(messages.iter().map(|message| message.to_vec()));
            assert_eq!(read(messages), numbered.collect::<Vec<_>>());
        }
    }
}

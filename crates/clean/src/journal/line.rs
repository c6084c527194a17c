//! A line of a log: eight digits of CRC-32C, a blank, JSON, a line feed. What does not add up ends the log.
//!
//! Source: docs/design/clean.md, "The journal".

use super::Line;

/// Longer ones are none.
pub(super) const LONGEST_BYTES: usize = 64 << 10;

/// A line as it is written.
pub(super) fn written(line: &Line) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(line).ok()?;
    let mut bytes = format!("{:08x} ", crc32c::crc32c(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    (bytes.len() <= LONGEST_BYTES).then_some(bytes)
}

/// The lines of a log, until one is torn or wrong; and whether that was before its end.
pub(super) fn lines(log: &[u8]) -> (Vec<Line>, bool) {
    let mut found = Vec::new();
    let mut rest = log;
    while let Some(end) = rest.iter().take(LONGEST_BYTES).position(|&byte| byte == b'\n') {
        let Some(line) = one(&rest[..end]) else { return (found, true) };
        found.push(line);
        rest = &rest[end + 1..];
    }
    (found, !rest.is_empty())
}

fn one(line: &[u8]) -> Option<Line> {
    let (crc, json) = line.split_at_checked(9)?;
    let crc = std::str::from_utf8(crc.strip_suffix(b" ")?).ok()?;
    let crc = u32::from_str_radix(crc, 16).ok()?;
    (crc32c::crc32c(json) == crc).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_does_not_count() {
        let first = written(&Line::Removing { number: 1 }).expect("a line");
        let second = written(&Line::Removed { number: 1 }).expect("a line");
        let log = [first.clone(), second.clone()].concat();
        assert_eq!(lines(&log).0.len(), 2);
        for cut in 0..second.len() {
            let (found, torn) = lines(&log[..first.len() + cut]);
            assert_eq!((found.len(), torn), (1, cut > 0), "{cut}");
        }
        for at in 0..first.len() {
            let mut wrong = log.clone();
            wrong[at] ^= 0x10;
            let (found, torn) = lines(&wrong);
            assert!(torn && found.len() < 2, "{at}: {found:?}");
        }
        let endless = vec![b'x'; 2 * LONGEST_BYTES];
        assert_eq!(lines(&endless), (Vec::new(), true));
    }
}

//! What a process has read and written: /proc/PID/io.
//!
//! Source: `proc_pid_io(5)`. It counts what `read`, `write` and their like move, of files and terminals, too, but
//! not what `recv` and `send` do; the kernel shows no such count of a single pipe or Unix socket.

use super::numbers::{decimal, field};
use crate::traffic::Traffic;

/// Reads `io`.
#[must_use]
pub fn counts(text: &[u8]) -> Option<Traffic> {
    let number = |name| field(text, name).and_then(decimal);
    Some(Traffic { received_bytes: number("rchar")?, sent_bytes: number("wchar")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads() {
        let text = b"rchar: 323934931\nwchar: 323929600\nsyscr: 632687\nsyscw: 632675\n";
        let expected = Traffic { received_bytes: 323_934_931, sent_bytes: 323_929_600 };
        assert_eq!(counts(text), Some(expected));
        for wrong in
            ["", "rchar: 1\n", "rchar: x\nwchar: 2\n", "wchar: 99999999999999999999\nrchar: 1\n"]
        {
            assert_eq!(counts(wrong.as_bytes()), None, "{wrong}");
        }
    }
}

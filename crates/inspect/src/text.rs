//! Text that others chose, made safe to show: names of processes, files and sockets.
//!
//! Source: docs/design/inspect.md, "Hostile text". A name may hold line feeds, escape codes, marks that
//! turn writing around, or bytes that are no text. It is escaped once, when it is read.

use std::fmt::Write;

/// The longest name that is kept, in bytes; no path of Linux is longer.
pub const LONGEST: usize = 4096;

/// The bytes as text of printable characters only. Nothing is lost but what is beyond [`LONGEST`], and `\` becomes
/// `\\`, so two names that differ stay different.
#[must_use]
pub fn escaped(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(LONGEST)];
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push(&mut text, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// The bytes that [`escaped`] made this of; none if it did not.
#[must_use]
pub fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(plain.as_bytes());
        let kind = escape.chars().next()?;
        rest = escape.get(kind.len_utf8()..)?;
        match kind {
            '\\' => bytes.push(b'\\'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'x' => {
                bytes.push(u8::from_str_radix(rest.get(..2)?, 16).ok()?);
                rest = rest.get(2..)?;
            }
            'u' => {
                let (code, after) = rest.strip_prefix('{')?.split_once('}')?;
                let c = char::from_u32(u32::from_str_radix(code, 16).ok()?)?;
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = after;
            }
            _ => return None,
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

fn push(text: &mut String, c: char) {
    match c {
        '\\' => text.push_str("\\\\"),
        '\n' => text.push_str("\\n"),
        '\t' => text.push_str("\\t"),
        c if c.is_ascii() && !c.is_ascii_control() => text.push(c),
        c if c.is_ascii() => {
            let _ = write!(text, "\\x{:02x}", u32::from(c));
        }
        c if is_harmful(c) => {
            let _ = write!(text, "{}", c.escape_unicode());
        }
        c => text.push(c),
    }
}

/// Characters that change how others are shown, or that are not seen.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// So many of something: `1 process`, `2 processes`.
#[must_use]
pub fn counted(n: u64, one: &str, more: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { more })
}

/// The text again, safe whatever it is: for what was read from a file that says it is a snapshot.
#[must_use]
pub fn tamed(text: String) -> String {
    let harmless = |c: char| !(c.is_control() || is_harmful(c));
    if text.len() <= 2 * LONGEST && text.chars().all(harmless) {
        return text;
    }
    text.chars().take(LONGEST).map(|c| if harmless(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dangerous_is_escaped() {
        for (raw, shown) in [
            (&b"plain name"[..], "plain name"),
            (b"a\nb\tc", "a\\nb\\tc"),
            (b"\x1b[31m", "\\x1b[31m"),
            (b"back\\slash", "back\\\\slash"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}gnp".as_bytes(), "\\u{202e}gnp"),
            ("\u{9b}31m".as_bytes(), "\\u{9b}31m"),
            ("grün".as_bytes(), "grün"),
            (b"", ""),
        ] {
            assert_eq!(escaped(raw), shown);
            assert_eq!(unescaped(shown).as_deref(), Some(raw));
        }
        assert_eq!(escaped(&[b'a'; 9000]).len(), LONGEST);
        for wrong in ["\\", "a\\q", "\\x1", "\\xé", "\\u{", "\\u{d800}", "\\u1"] {
            assert_eq!(unescaped(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn one_and_more() {
        let said = [0, 1, 2].map(|n| counted(n, "process", "processes"));
        assert_eq!(said, ["0 processes", "1 process", "2 processes"]);
    }

    #[test]
    fn a_snapshot_cannot_smuggle() {
        assert_eq!(tamed("a\x1b[2Jb\n".to_owned()), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(tamed("grün \\n".to_owned()), "grün \\n");
    }
}

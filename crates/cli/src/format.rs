//! Formats: how messages are told apart on standard input and standard output.
//!
//! | option | standard input and output |
//! |---|---|
//! | none | a message per line; a last line without a line feed counts |
//! | `--raw` | bytes, as they are: a stream, not messages |
//! | `--length-prefixed` | four bytes of length, most significant first, then the message |
//! | `--json` | JSON values one after the other (RFC 8259); printed compact, one per line |

use std::ops::Range;

use serde_json::value::RawValue;

use crate::output::counted;

/// The longest message any transport takes is shorter. A longer item ends the reading.
pub(crate) const LONGEST_ITEM_BYTES: usize = 64 << 20;

/// The options that choose a format.
#[derive(clap::Args, Clone, Copy, Debug)]
#[group(multiple = false)]
pub(crate) struct Choice {
    /// Bytes as they are, a stream rather than messages: files, archives
    #[arg(long)]
    raw: bool,
    /// Each message after its length: four bytes, most significant first
    #[arg(long)]
    length_prefixed: bool,
    /// Each message a JSON value; printed compact, one per line
    #[arg(long)]
    json: bool,
}

impl Choice {
    /// The format chosen; lines, if none was.
    pub(crate) fn format(self) -> Format {
        match self {
            Self { raw: true, .. } => Format::Raw,
            Self { length_prefixed: true, .. } => Format::LengthPrefixed,
            Self { json: true, .. } => Format::Json,
            _ => Format::Lines,
        }
    }
}

/// A format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Lines,
    Raw,
    LengthPrefixed,
    Json,
}

/// Why what was read is not in its format.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) String);

/// Finds messages in what was read so far.
#[derive(Debug)]
pub(crate) struct Splitter {
    format: Format,
    /// How far the unread bytes were searched without finding an end.
    searched: usize,
    json: JsonScan,
    /// Lines passed, for the position of an error.
    lines: u64,
    compact: Vec<u8>,
}

/// Where a message lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A message, and how many bytes it takes with its framing.
    Message(Range<usize>, usize),
    /// Bytes that belong to no message, to be passed over.
    Nothing(usize),
    /// More has to be read.
    More,
}

impl Splitter {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, searched: 0, json: JsonScan::default(), lines: 1, compact: Vec::new() }
    }

    /// The next message in `unread`; with `ended`, nothing follows it.
    pub(crate) fn next(&mut self, unread: &[u8], ended: bool) -> Result<Found, Malformed> {
        let found = match self.format {
            Format::Lines => Ok(self.next_line(unread, ended)),
            Format::LengthPrefixed => next_counted(unread, ended),
            Format::Json => self.next_json(unread, ended),
            Format::Raw if unread.is_empty() => Ok(Found::More),
            Format::Raw => Ok(Found::Message(0..unread.len(), unread.len())),
        }?;
        if found == Found::More && unread.len() > LONGEST_ITEM_BYTES {
            return Err(Malformed(format!(
                "it is longer than {LONGEST_ITEM_BYTES} bytes, more than any transport takes"
            )));
        }
        Ok(found)
    }

    /// Where the line feeds of `unread` are, if messages are lines: one after the other is found
    /// faster so than by [`next`](Self::next), which goes on after the last of them.
    pub(crate) fn line_feeds<'a>(
        &mut self,
        unread: &'a [u8],
    ) -> impl Iterator<Item = usize> + use<'a> {
        let lines = self.format == Format::Lines;
        let from = if lines { self.searched } else { unread.len() };
        if lines {
            // What follows the last line feed is short, or was searched before.
            self.searched = match memchr::memrchr(b'\n', &unread[from..]) {
                Some(_) => 0,
                None => unread.len(),
            };
        }
        memchr::memchr_iter(b'\n', &unread[from..]).map(move |at| from + at)
    }

    #[inline]
    fn next_line(&mut self, unread: &[u8], ended: bool) -> Found {
        if let Some(at) = memchr::memchr(b'\n', &unread[self.searched..]) {
            let len = self.searched + at;
            self.searched = 0;
            return Found::Message(0..len, len + 1);
        }
        if ended && !unread.is_empty() {
            self.searched = 0;
            return Found::Message(0..unread.len(), unread.len());
        }
        self.searched = unread.len();
        Found::More
    }

    fn next_json(&mut self, unread: &[u8], ended: bool) -> Result<Found, Malformed> {
        if !self.json.started {
            let spaces = unread.iter().take_while(|byte| is_json_space(**byte)).count();
            if spaces > 0 {
                self.lines += line_feeds(&unread[..spaces]);
                return Ok(Found::Nothing(spaces));
            }
            if unread.is_empty() {
                return Ok(Found::More);
            }
        }
        let end = match self.json.end(&unread[self.searched..]) {
            Some(at) => self.searched + at,
            None if ended => unread.len(),
            None => {
                self.searched = unread.len();
                return Ok(Found::More);
            }
        };
        (self.searched, self.json) = (0, JsonScan::default());
        self.compact.clear();
        if let Err(error) = compact_json(&unread[..end], &mut self.compact) {
            let line = self.lines + error.line().saturating_sub(1) as u64;
            let problem = without_position(&error);
            let shown = crate::output::excerpt(&unread[..end]);
            return Err(Malformed(format!(
                "no JSON at line {line}, column {}: {problem}: {shown}",
                error.column()
            )));
        }
        self.lines += line_feeds(&unread[..end]);
        Ok(Found::Message(0..end, end))
    }

    /// The message as it is sent: JSON without its spaces, everything else as it was read.
    #[inline]
    pub(crate) fn message<'a>(&'a self, found: &'a [u8]) -> &'a [u8] {
        if self.format == Format::Json { &self.compact } else { found }
    }
}

fn next_counted(unread: &[u8], ended: bool) -> Result<Found, Malformed> {
    let Some(header) = unread.first_chunk::<4>() else {
        if ended && !unread.is_empty() {
            let had = unread.len();
            return Err(Malformed(format!("the input ends after {had} of 4 bytes of a length")));
        }
        return Ok(Found::More);
    };
    let len = u32::from_be_bytes(*header) as usize;
    if len > LONGEST_ITEM_BYTES {
        return Err(Malformed(format!(
            "its length says {len} bytes, more than any transport takes; is the input \
             length-prefixed?"
        )));
    }
    if unread.len() - 4 < len {
        if ended {
            let had = unread.len() - 4;
            let len = counted(len as u64, "byte");
            return Err(Malformed(format!("the input ends after {had} of its {len}")));
        }
        return Ok(Found::More);
    }
    Ok(Found::Message(4..4 + len, 4 + len))
}

/// Finds where a JSON value ends, without judging it: brackets and strings are all it knows.
#[derive(Debug, Default)]
struct JsonScan {
    started: bool,
    /// The value is a word or a number, which ends where something else begins.
    bare: bool,
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl JsonScan {
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate() {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => {
                        self.in_string = false;
                        if self.depth == 0 {
                            return Some(at + 1);
                        }
                    }
                    _ => {}
                }
                continue;
            }
            let begins = matches!(byte, b'"' | b'{' | b'[');
            if self.bare && (begins || is_json_space(*byte)) {
                return Some(at);
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ if !self.started => self.bare = true,
                _ => {}
            }
            self.started = true;
        }
        None
    }
}

fn is_json_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn line_feeds(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// Checks that these bytes are one JSON value, and appends it without its spaces. Numbers, the order
/// of keys and escapes stay as they are.
///
/// # Errors
/// Where it is no JSON.
pub(crate) fn compact_json(bytes: &[u8], out: &mut Vec<u8>) -> serde_json::Result<()> {
    let value: &RawValue = serde_json::from_slice(bytes)?;
    let (mut in_string, mut escaped) = (false, false);
    for byte in value.get().bytes() {
        if in_string {
            (in_string, escaped) = match byte {
                _ if escaped => (true, false),
                b'\\' => (true, true),
                b'"' => (false, false),
                _ => (true, false),
            };
        } else if is_json_space(byte) {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
    Ok(())
}

/// What is wrong, without the position that serde adds: it counts from the value, not from the input.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(problem, _)| problem.to_owned())
}

/// Why a message cannot be written in a format.
#[derive(Debug)]
pub(crate) enum Unwritable {
    /// A line cannot hold a line feed.
    LineFeed,
    /// It is no JSON, and why.
    NotJson(String),
}

impl Unwritable {
    /// What else would hold it.
    pub(crate) fn advice(&self) -> Option<&'static str> {
        match self {
            Self::LineFeed => {
                Some("receive with --length-prefixed, or --json if that is what it is")
            }
            Self::NotJson(_) => None,
        }
    }
}

impl std::fmt::Display for Unwritable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LineFeed => f.write_str("contains a line feed and is no line"),
            Self::NotJson(why) => write!(f, "is no JSON: {why}"),
        }
    }
}

/// Appends a message in its format.
///
/// # Errors
/// When the format cannot hold it; nothing is appended.
#[inline]
pub(crate) fn write(format: Format, message: &[u8], out: &mut Vec<u8>) -> Result<(), Unwritable> {
    match format {
        Format::Lines => {
            if memchr::memchr(b'\n', message).is_some() {
                return Err(Unwritable::LineFeed);
            }
            out.extend_from_slice(message);
            out.push(b'\n');
        }
        Format::Raw => out.extend_from_slice(message),
        Format::LengthPrefixed => {
            // The largest message of any transport is far below what four bytes can say.
            out.extend_from_slice(&(message.len() as u32).to_be_bytes());
            out.extend_from_slice(message);
        }
        Format::Json => {
            let start = out.len();
            if let Err(error) = compact_json(message, out) {
                out.truncate(start);
                return Err(Unwritable::NotJson(without_position(&error)));
            }
            out.push(b'\n');
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the input in pieces of every size, and gives all messages, and the error that ended it.
    fn split(format: Format, input: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
        let mut all = None;
        for size in 1..=input.len().max(1) {
            let result = split_in_pieces(format, input, size);
            assert_eq!(*all.get_or_insert(result.clone()), result, "pieces of {size}");
        }
        all.unwrap_or_default()
    }

    fn split_in_pieces(
        format: Format,
        input: &[u8],
        size: usize,
    ) -> (Vec<Vec<u8>>, Option<String>) {
        let mut splitter = Splitter::new(format);
        let (mut messages, mut start, mut end, mut ended) = (Vec::new(), 0, 0, false);
        loop {
            let mut line = start;
            for line_feed in splitter.line_feeds(&input[start..end]) {
                messages.push(input[line..start + line_feed].to_vec());
                line = start + line_feed + 1;
            }
            start = line;
            match splitter.next(&input[start..end], ended) {
                Ok(Found::Message(range, whole)) => {
                    let found = &input[start..end][range];
                    messages.push(splitter.message(found).to_vec());
                    start += whole;
                }
                Ok(Found::Nothing(n)) => start += n,
                Ok(Found::More) if ended => return (messages, None),
                // As when reading: the end is known only once nothing more comes.
                Ok(Found::More) if end == input.len() => ended = true,
                Ok(Found::More) => end = (end + size).min(input.len()),
                Err(Malformed(problem)) => return (messages, Some(problem)),
            }
        }
    }

    fn check(format: Format, input: &[u8], messages: &[&str], problem: Option<&str>) {
        let (found, error) = split(format, input);
        let found: Vec<_> = found.iter().map(|m| String::from_utf8_lossy(m).into_owned()).collect();
        assert_eq!(found, messages, "{}", input.escape_ascii());
        match (problem, &error) {
            (None, None) => {}
            (Some(part), Some(error)) if error.contains(part) => {}
            _ => panic!("{}: {error:?}, not {problem:?}", input.escape_ascii()),
        }
    }

    #[test]
    fn lines() {
        check(Format::Lines, b"", &[], None);
        check(Format::Lines, b"a\n\nb\n", &["a", "", "b"], None);
        check(Format::Lines, b"a\nb", &["a", "b"], None);
    }

    #[test]
    fn counted() {
        check(Format::LengthPrefixed, b"\0\0\0\x02ab\0\0\0\0", &["ab", ""], None);
        check(Format::LengthPrefixed, b"\0\0\0\x02a", &[], Some("after 1 of its 2 bytes"));
        check(Format::LengthPrefixed, b"\0\0\0\x01a\0\0", &["a"], Some("after 2 of 4 bytes"));
        check(Format::LengthPrefixed, b"GET / HTTP", &[], Some("more than any transport"));
    }

    #[test]
    fn json() {
        check(Format::Json, b" {\"a\": [1, \"] }\"]}\n2 \"x\\\"y\"[ ]", JSON, None);
        check(Format::Json, b"true false1", &["true"], Some("line 1, column"));
        check(Format::Json, b"1\n\n{\"a\":}\n", &["1"], Some("line 3, column 6"));
        check(Format::Json, b"[1", &[], Some("EOF"));
        check(Format::Json, b"18446744073709551616000", &["18446744073709551616000"], None);
        check(Format::Json, b"}", &[], Some("line 1"));
    }

    const JSON: &[&str] = &["{\"a\":[1,\"] }\"]}", "2", "\"x\\\"y\"", "[]"];

    #[test]
    fn written() {
        let mut out = Vec::new();
        assert!(write(Format::Lines, b"a", &mut out).is_ok());
        assert!(matches!(write(Format::Lines, b"a\nb", &mut out), Err(Unwritable::LineFeed)));
        assert!(write(Format::LengthPrefixed, b"ab", &mut out).is_ok());
        assert!(write(Format::Json, b"{ }", &mut out).is_ok());
        assert!(matches!(write(Format::Json, b"{", &mut out), Err(Unwritable::NotJson(_))));
        assert_eq!(out, b"a\n\0\0\0\x02ab{}\n");
    }
}

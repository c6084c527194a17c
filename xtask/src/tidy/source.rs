//! Rust source as text: what is code, what is comment, what is a literal, and the rows of a table.
//!
//! Source: the Rust reference, "Comments" and "Tokens". Not a parser: good enough to find words
//! outside comments and strings, and `field: "literal"` in braces.

use std::collections::BTreeMap;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// The source with comments and literals blanked; lines stay where they were.
pub(super) fn code_only(source: &str) -> String {
    blank(source, |part| part != Part::Code)
}

/// The source with comments blanked; lines stay where they were.
pub(super) fn without_comments(source: &str) -> String {
    blank(source, |part| part == Part::Comment)
}

/// The lines, from 1, on which `word` stands by itself, not as a part of a longer name.
pub(super) fn lines_with(code: &str, word: &str) -> Vec<usize> {
    code.lines()
        .enumerate()
        .filter(|(_, line)| has_word(line, word))
        .map(|(index, _)| index + 1)
        .collect()
}

/// Whether `word` stands in `line` by itself.
pub(super) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// A row of a table: its string fields, and the line on which the first of them stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: usize,
    pub(super) fields: BTreeMap<String, String>,
}

/// Every pair of braces that has a field `key: "literal"` directly in it.
pub(super) fn rows(source: &str, key: &str) -> Vec<Row> {
    let text = without_comments(source);
    let parts = classify(text.as_bytes());
    let mut found = Vec::new();
    let mut open: Vec<Row> = Vec::new();
    let mut line = 1;
    let mut at = 0;
    let bytes = text.as_bytes();
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => line += 1,
            b'{' if parts[at] == Part::Code => {
                open.push(Row { line: 0, fields: BTreeMap::new() });
            }
            b'}' if parts[at] == Part::Code => {
                found.extend(open.pop().filter(|row| row.fields.contains_key(key)));
            }
            b'"' if parts[at] == Part::Literal => {
                let end = end_of_literal(&parts, at);
                if let (Some(row), Some(name)) = (open.last_mut(), field_before(&text[..at])) {
                    if row.fields.is_empty() {
                        row.line = line;
                    }
                    let value = text[at + 1..end].trim_end_matches('"');
                    row.fields.insert(name.to_owned(), value.to_owned());
                }
                line += text[at..end].matches('\n').count();
                at = end - 1;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn end_of_literal(parts: &[Part], start: usize) -> usize {
    parts[start..].iter().position(|&part| part != Part::Literal).map_or(parts.len(), |n| start + n)
}

/// The name in `name:` at the end of the text.
fn field_before(text: &str) -> Option<&str> {
    let text = text.trim_end().strip_suffix(':')?;
    if text.ends_with(':') {
        return None;
    }
    let text = text.trim_end();
    let start = text.rfind(|c| !is_name(c)).map_or(0, |at| at + 1);
    Some(&text[start..]).filter(|name| !name.is_empty())
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn blank(source: &str, unwanted: impl Fn(Part) -> bool) -> String {
    let parts = classify(source.as_bytes());
    let mut bytes = source.as_bytes().to_vec();
    for (byte, part) in bytes.iter_mut().zip(parts) {
        if unwanted(part) && *byte != b'\n' {
            *byte = b' ';
        }
    }
    // Parts begin and end at ASCII characters, so no character is cut.
    String::from_utf8(bytes).expect("whole characters")
}

fn classify(source: &[u8]) -> Vec<Part> {
    let mut parts = vec![Part::Code; source.len()];
    let mut at = 0;
    while at < source.len() {
        let (end, part) = token(source, at);
        parts[at..end].fill(part);
        at = end;
    }
    parts
}

/// Where the token at `at` ends, and what it is.
fn token(source: &[u8], at: usize) -> (usize, Part) {
    let rest = &source[at..];
    match rest {
        [b'/', b'/', ..] => {
            let length = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
            (at + length, Part::Comment)
        }
        [b'/', b'*', ..] => (at + block_comment(rest), Part::Comment),
        [b'"', ..] => (at + quoted(rest, b'"'), Part::Literal),
        [b'\'', ..] if is_character(rest) => (at + quoted(rest, b'\''), Part::Literal),
        [b'r', b'"' | b'#', ..] if !in_name(source, at) => match raw_string(rest) {
            Some(length) => (at + length, Part::Literal),
            None => (at + 1, Part::Code),
        },
        _ => (at + 1, Part::Code),
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b if b == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, as opposed to a lifetime.
fn is_character(rest: &[u8]) -> bool {
    let Some(&first) = rest.get(1) else { return false };
    let width = match first {
        b'\\' => return true,
        0..0x80 => 1,
        0x80..0xe0 => 2,
        0xe0..0xf0 => 3,
        _ => 4,
    };
    rest.get(1 + width) == Some(&b'\'')
}

fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest[1..].iter().take_while(|&&b| b == b'#').count();
    let open = 1 + hashes;
    if rest.get(open) != Some(&b'"') {
        return None;
    }
    let close: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[open + 1..];
    let end = body.windows(close.len()).position(|window| window == close);
    Some(end.map_or(rest.len(), |end| open + 1 + end + close.len()))
}

/// Whether the byte before belongs to a name; `br` and `cr` start raw strings all the same.
fn in_name(source: &[u8], at: usize) -> bool {
    let name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    match source[..at].split_last() {
        Some((b'b' | b'c', before)) => before.last().is_some_and(name),
        Some((last, _)) => name(last),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_code_from_comments_and_literals() {
        for (source, expected) in [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x \" y") + g"#, "f(         ) + g"),
            (r###"f(r#"a " b"#, c)"###, "f(           , c)".replacen("  ", " ", 1).as_str()),
            ("'a' 'b", "    'b"),
            (r"'\'' x", "     x"),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)"),
            ("b\"x\" br\"y\" r#type", "b    b     r#type"),
            ("'é' x", "     x"),
        ] {
            let got = code_only(source);
            assert_eq!(
                got.split_whitespace().collect::<Vec<_>>(),
                expected.split_whitespace().collect::<Vec<_>>(),
                "{source}"
            );
            assert_eq!(got.len(), source.len(), "{source}");
        }
    }

    #[test]
    fn unfinished_tokens_end_with_the_file() {
        for source in ["/* a", "\"a", "r#\"a", "'\\", "\"a\\"] {
            assert_eq!(code_only(source).len(), source.len(), "{source}");
        }
    }

    #[test]
    fn words_stand_alone() {
        assert!(has_word("  unsafe {", "unsafe"));
        assert!(!has_word("#![deny(unsafe_code)]", "unsafe"));
        assert!(has_word("std::process::exit(1)", "process::exit"));
        assert!(!has_word("eprintln!(x)", "println!"));
    }

    #[test]
    fn reads_the_rows_of_a_table() {
        let source = r#"
            pub struct Row { pub scheme: &'static str, file: &'static str }
            // Row { scheme: "comment", file: "comment" }
            pub const TABLE: &[Row] = &[
                Row { scheme: "unix", file: "unix", limit: Limit { name: "a" } },
                Row {
                    file: "unix",
                    scheme:
                        "unix-dgram",
                },
            ];
        "#;
        let rows = rows(source, "scheme");
        let fields: Vec<_> = rows.iter().map(|r| (r.line, &*r.fields["scheme"])).collect();
        assert_eq!(fields, [(5, "unix"), (7, "unix-dgram")]);
        assert!(rows.iter().all(|row| row.fields["file"] == "unix"));
        assert!(!rows[0].fields.contains_key("name"));
    }
}

//! Relative links in Markdown lead to a file or folder of the project.
//!
//! Source: CommonMark, "Links" and "Link reference definitions".

use super::{Finding, Tree};

/// Every relative link of every Markdown file.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts().filter(|(path, _)| path.ends_with(".md")) {
        for (line, target) in targets(text) {
            let Some(place) = relative(&target) else { continue };
            match resolve(path, place) {
                Some(resolved) if tree.has(&resolved) => {}
                Some(resolved) => findings.push(Finding::new(
                    path,
                    line,
                    format!("link to `{target}`, but there is no {resolved}; correct it"),
                )),
                None => findings.push(Finding::new(
                    path,
                    line,
                    format!("link to `{target}`, which leaves the project; make it relative"),
                )),
            }
        }
    }
    findings
}

/// Link targets with their lines, outside code.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fence: Option<&str> = None;
    for (index, line) in text.lines().enumerate() {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, mark) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => {
                found.extend(in_line(line).into_iter().map(|target| (index + 1, target)));
            }
            _ => {}
        }
    }
    found
}

fn in_line(line: &str) -> Vec<String> {
    let line = without_code(line);
    let mut found: Vec<String> =
        line.match_indices("](").filter_map(|(at, _)| destination(&line[at + 2..])).collect();
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        found.extend(destination(target));
    }
    found
}

/// The line with `code spans` blanked.
fn without_code(line: &str) -> String {
    let mut in_code = false;
    let pieces = line.split('`').map(|piece| {
        let kept = if in_code { " ".repeat(piece.len()) } else { piece.to_owned() };
        in_code = !in_code;
        kept
    });
    pieces.collect::<Vec<_>>().join(" ")
}

/// What stands before the title or the closing parenthesis.
fn destination(text: &str) -> Option<String> {
    let text = text.trim_start();
    let target = match text.strip_prefix('<') {
        Some(rest) => rest.split('>').next(),
        None => text.split([' ', ')', '\t']).next(),
    };
    target.filter(|target| !target.is_empty()).map(str::to_owned)
}

/// The path in a target; none for addresses elsewhere and for places in the same file.
fn relative(target: &str) -> Option<&str> {
    let scheme = target.split_once(':').map_or("", |(scheme, _)| scheme);
    let elsewhere = scheme.len() > 1
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let path = target.split(['#', '?']).next().unwrap_or_default();
    (!elsewhere && !path.is_empty()).then_some(path)
}

/// The place from the root; none when it lies outside.
fn resolve(file: &str, place: &str) -> Option<String> {
    if place.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in place.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::check as check_tree;
    use super::*;

    #[test]
    fn links_resolve() {
        let there = [("docs/guide.md", ""), ("README.md", "")];
        for (text, finding) in [
            ("[a](guide.md)", None),
            ("[a](guide.md#part)", None),
            ("[a](../README.md \"title\")", None),
            ("[a](..)", None),
            ("[a](../docs/)", None),
            ("[a](https://example.org/x) [b](#part) [c](mailto:a@example.org)", None),
            ("```\n[a](gone.md)\n```", None),
            ("`[a](gone.md)`", None),
            ("[a](gone.md)", Some("a.md:1: link to `gone.md`, but there is no docs/gone.md")),
            ("\n![a](<gone.png>)", Some("a.md:2: link to `gone.png`")),
            ("```\n```\n[a](gone.md)", Some("a.md:3")),
            ("[a]: gone.md", Some("a.md:1")),
            ("[a](guide.md) and [b](gone.md)", Some("gone.md")),
            ("[a](../../x)", Some("leaves the project")),
            ("[a](/docs/guide.md)", Some("leaves the project")),
        ] {
            let mut files = there.to_vec();
            files.push(("docs/a.md", text));
            check_tree(check, &files, finding.as_slice());
        }
    }
}

//! Rules about any file: its opening, name, length, white space, words and paths.
//!
//! Source: CONTRIBUTING.md, "House rules".

use super::source::{code_only, has_word, lines_with};
use super::{Finding, Tree};

const LONGEST_LINES: usize = 700;
const LONG_LINES: usize = 500;

/// A source file opens with `//!`: what it is for, and its source.
pub(super) fn purpose(tree: &Tree) -> Vec<Finding> {
    let mut sources = tree
        .rust()
        .filter(|(path, _)| {
            path.starts_with("xtask/src/")
                || (path.starts_with("crates/") && path.contains("/src/"))
        })
        .peekable();
    if sources.peek().is_none() {
        return vec![Finding::new("crates", 0, "no source files found; the rule is about them")];
    }
    sources
        .filter(|(_, text)| !text.starts_with("//!"))
        .map(|(path, _)| {
            Finding::new(path, 1, "does not open with `//!`; say there what the file is for")
        })
        .collect()
}

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] =
    &["utils", "util", "common", "core", "manager", "helpers", "helper", "misc"];

/// No file or folder is named for nothing.
pub(super) fn names(tree: &Tree) -> Vec<Finding> {
    tree.paths()
        .filter_map(|path| {
            let empty = path.split('/').find(|part| {
                let stem = part.split('.').next().unwrap_or_default();
                EMPTY_NAMES.contains(&stem)
            })?;
            let message = format!("`{empty}` says nothing; name it after the concept inside");
            Some(Finding::new(path, 0, message))
        })
        .collect()
}

/// No file of code is longer than a reader bears.
pub(super) fn length(tree: &Tree) -> Vec<Finding> {
    lengths(tree)
        .filter(|(_, lines)| *lines > LONGEST_LINES)
        .map(|(path, lines)| {
            let message = format!("{lines} lines, more than {LONGEST_LINES}; split it by concept");
            Finding::new(path, 0, message)
        })
        .collect()
}

/// Files that are getting long.
pub(super) fn length_notes(tree: &Tree) -> Vec<Finding> {
    lengths(tree)
        .filter(|(_, lines)| (LONG_LINES..=LONGEST_LINES).contains(lines))
        .map(|(path, lines)| Finding::new(path, 0, format!("{lines} lines: getting long")))
        .collect()
}

fn lengths(tree: &Tree) -> impl Iterator<Item = (&str, usize)> {
    tree.texts().filter(|(path, _)| is_code(path)).map(|(path, text)| (path, text.lines().count()))
}

fn is_code(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or_default();
    matches!(file.rsplit_once('.'), Some((_, "rs" | "sh" | "py" | "c" | "h")))
}

/// Macros and attributes that leave something undone, as code.
const UNFINISHED_CODE: &[&str] = &["todo!", "unimplemented!", "#[ignore"];

/// Words that promise to come back, anywhere; cut in two so that this file does not say them.
const UNFINISHED_WORDS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X")];

/// No white space at line ends, no tabs in Rust, nothing left undone.
pub(super) fn marks(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        for (index, line) in text.lines().enumerate() {
            let mut add = |message: String| findings.push(Finding::new(path, index + 1, message));
            if line.ends_with([' ', '\t']) {
                add("white space at the end of the line; remove it".to_owned());
            }
            if path.ends_with(".rs") && line.contains('\t') {
                add("a tab; indent with spaces, write \\t in literals".to_owned());
            }
            for word in UNFINISHED_WORDS.iter().filter(|word| has_word(line, word)) {
                add(format!("`{word}`; do it now, or open an issue"));
            }
        }
        if path.ends_with(".rs") {
            let code = code_only(text);
            for word in UNFINISHED_CODE {
                findings.extend(lines_starting(&code, word).into_iter().map(|line| {
                    Finding::new(path, line, format!("`{word}`; finish it, or take it out"))
                }));
            }
        }
    }
    findings
}

fn lines_starting(code: &str, word: &str) -> Vec<usize> {
    if word.starts_with('#') {
        let found = code.lines().enumerate().filter(|(_, line)| line.contains(word));
        found.map(|(index, _)| index + 1).collect()
    } else {
        lines_with(code, word)
    }
}

/// Folders that only one machine has; cut in two so that this file does not name them.
const MACHINE_PATHS: &[&str] = &[concat!("/ro", "ot/"), concat!("/ho", "me/")];

/// No absolute path into somebody's home.
pub(super) fn machine_paths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.texts() {
        for (index, line) in text.lines().enumerate() {
            for wanted in MACHINE_PATHS {
                let absolute = line.match_indices(wanted).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-~})".contains(c))
                });
                if absolute {
                    let message =
                        format!("`{wanted}` is a path of one machine; use a relative one");
                    findings.push(Finding::new(path, index + 1, message));
                }
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn a_source_file_opens_with_its_purpose() {
        check(purpose, &[("crates/a/src/b.rs", "use x;")], &["b.rs:1: does not open"]);
        check(purpose, &[("xtask/src/b.rs", "\n//! Late.")], &["b.rs:1: does not open"]);
        check(purpose, &[("crates/a/src/b.rs", "//! It.")], &[]);
        check(purpose, &[("crates/a/src/b.rs", "//! It."), ("crates/a/tests/it/c.rs", "")], &[]);
        check(purpose, &[("README.md", "")], &["no source files"]);
    }

    #[test]
    fn names_say_something() {
        for name in ["a/utils.rs", "tests/common/mod.rs", "core/lib.rs", "x/helpers.py", "misc"] {
            check(names, &[(name, "")], &["says nothing"]);
        }
        check(names, &[("a/score.rs", ""), ("a/commonly.rs", "")], &[]);
    }

    #[test]
    fn long_files() {
        for (lines, fails, notes) in [(499, 0, 0), (500, 0, 1), (700, 0, 1), (701, 1, 0)] {
            let text = "\n".repeat(lines);
            let tree = Tree::of(&[("a.rs", text.as_str()), ("Cargo.lock", text.as_str())]);
            assert_eq!(length(&tree).len(), fails, "{lines}");
            assert_eq!(length_notes(&tree).len(), notes, "{lines}");
        }
    }

    #[test]
    fn white_space() {
        check(marks, &[("a.md", "x \ny\t\n")], &["a.md:1: white space", "a.md:2: white space"]);
        check(marks, &[("a.rs", "\tx\n")], &["a.rs:1: a tab"]);
        check(marks, &[("Makefile", "\tx\n")], &[]);
    }

    #[test]
    fn unfinished() {
        for code in
            ["fn f() { todo!() }", "unimplemented!(\"x\")", "#[ignore = \"slow\"]", "#[ignore]"]
        {
            check(marks, &[("a.rs", code)], &["a.rs:1"]);
            check(marks, &[("a.rs", &format!("// {code}"))], &[]);
        }
        for word in UNFINISHED_WORDS {
            check(marks, &[("a.sh", &format!("# {word}: later"))], &["a.sh:1"]);
            check(marks, &[("a.sh", &format!("mktemp a{word}{word}"))], &[]);
        }
    }

    #[test]
    fn paths_of_one_machine() {
        for folder in MACHINE_PATHS {
            check(machine_paths, &[("a.md", &format!("\nsee {folder}x"))], &["a.md:2"]);
            check(machine_paths, &[("a.rs", &format!("\"file://{folder}x\""))], &["a.rs:1"]);
            check(machine_paths, &[("a.md", &format!("crates{folder}x"))], &[]);
        }
    }
}

//! What may stand where: `unsafe`, printing and exiting, I/O and clocks.
//!
//! Source: ARCHITECTURE.md, invariants 1 (unsafe), 3 (protocol logic) and 5 (who prints).

use super::source::{code_only, has_word, lines_with};
use super::{Finding, Tree};

/// The crates whose files may opt in to `unsafe`, each for itself; so one search lists them all.
/// The test kit is for development only: it forks.
const UNSAFE_CRATES: &[&str] = &["crates/kernel", "crates/shm", "crates/testkit"];

/// The one file that opts in for an item of its own instead.
const UNSAFE_BY_ITEM: &str = "crates/kernel/src/io.rs";

/// `unsafe` only in files of the fenced crates that say so at their top; all other crates forbid it.
pub(super) fn unsafe_code(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| !separate_workspace(path)) {
        let code = code_only(text);
        let lines = lines_with(&code, "unsafe");
        if !is_fenced(path) {
            findings.extend(lines.into_iter().map(|line| {
                Finding::new(path, line, "`unsafe` outside crates/kernel; wrap what it does there")
            }));
        } else if !opts_in(path, &code) {
            findings.extend(lines.first().map(|&line| {
                Finding::new(
                    path,
                    line,
                    "`unsafe` in a file that does not say `#![allow(unsafe_code)]` at its top; say \
                     it there, whatever the module above says",
                )
            }));
        }
        if let Some(required) = root_attribute(path)
            && !code.contains(required)
        {
            findings.push(Finding::new(path, 1, format!("a crate root says `{required}`; add it")));
        }
    }
    findings
}

fn is_fenced(path: &str) -> bool {
    UNSAFE_CRATES.iter().any(|root| path.starts_with(&format!("{root}/")))
}

fn opts_in(path: &str, code: &str) -> bool {
    code.contains("#![allow(unsafe_code)]")
        || (path == UNSAFE_BY_ITEM && code.contains("#[allow(unsafe_code)]"))
}

/// What the root of a crate must say; none for files that are no root.
fn root_attribute(path: &str) -> Option<&'static str> {
    let (folder, file) = path.split_once("/src/")?;
    if !is_crate(folder) {
        return None;
    }
    let root = matches!(file, "lib.rs" | "main.rs")
        || file.strip_prefix("bin/").is_some_and(|name| !name.contains('/'));
    root.then_some(if UNSAFE_CRATES.contains(&folder) {
        "#![deny(unsafe_code)]"
    } else {
        "#![forbid(unsafe_code)]"
    })
}

/// Whether `folder` is one of `crates/*`, or xtask.
fn is_crate(folder: &str) -> bool {
    folder == "xtask"
        || folder
            .strip_prefix("crates/")
            .is_some_and(|name| !name.is_empty() && !name.contains('/'))
}

fn separate_workspace(path: &str) -> bool {
    path.starts_with("bench/") || path.starts_with("fuzz/")
}

/// What prints or exits, with the lint that guards it.
const PRINTING: &[(&str, &str)] = &[
    ("println!", "clippy::print_stdout"),
    ("print!", "clippy::print_stdout"),
    ("eprintln!", "clippy::print_stderr"),
    ("eprint!", "clippy::print_stderr"),
    ("dbg!", "clippy::dbg_macro"),
    ("process::exit", "clippy::exit"),
];

/// Only the command, this tool and examples print or exit; testkit and the models where they say so.
pub(super) fn printing(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.rust().filter(|(path, _)| !may_print(path)) {
        let code = code_only(text);
        for (word, lint) in PRINTING {
            for line in lines_with(&code, word) {
                if says_where(path) && allowed_above(&code, line, lint) {
                    continue;
                }
                findings.push(Finding::new(
                    path,
                    line,
                    format!("`{word}` outside crates/cli and xtask; return an error or a value"),
                ));
            }
        }
    }
    findings
}

fn may_print(path: &str) -> bool {
    separate_workspace(path)
        || path.starts_with("crates/cli/")
        || path.starts_with("xtask/")
        || path.starts_with("examples/")
        || path.contains("/examples/")
        || path.ends_with("/build.rs")
}

/// Whether it may print in functions that allow it.
fn says_where(path: &str) -> bool {
    path.starts_with("crates/testkit/src/") || path.contains("/tests/models/")
}

/// Whether the function around `line` allows the lint: its attribute is the last that starts a line
/// without indentation before it, or stands in between.
fn allowed_above(code: &str, line: usize, lint: &str) -> bool {
    let above: Vec<&str> = code.lines().take(line).collect();
    let end = above.iter().rposition(|line| *line == "}").map_or(0, |at| at + 1);
    above[end..].iter().any(|line| line.contains("#[allow(") && line.contains(lint))
}

const LINK: &str = "crates/switchboard/src/link";

/// What does I/O or reads a clock. Parts of `std` are found in `use std::{…}` too.
const OUTSIDE_WORLD: &[&str] = &[
    "std::io",
    "std::net",
    "std::fs",
    "std::os",
    "std::process",
    "std::thread",
    "Instant",
    "SystemTime",
    "switchboard_kernel",
    "rustix",
    "libc",
    "tokio",
];

/// The link is a state machine: bytes and events in, bytes and actions out.
pub(super) fn link(tree: &Tree) -> Vec<Finding> {
    let folder = format!("{LINK}/");
    let root = format!("{LINK}.rs");
    let mut files =
        tree.rust().filter(|(path, _)| path.starts_with(&folder) || *path == root).peekable();
    if files.peek().is_none() {
        return vec![Finding::new(LINK, 0, "no link there; the rule is about its files: add them")];
    }
    let mut findings = Vec::new();
    for (path, text) in files {
        let code = code_only(text);
        let mut lines: Vec<(usize, &str)> = OUTSIDE_WORLD
            .iter()
            .flat_map(|word| lines_with(&code, word).into_iter().map(move |line| (line, *word)))
            .chain(grouped_uses(&code))
            .collect();
        lines.sort_unstable();
        findings.extend(lines.into_iter().map(|(line, word)| {
            Finding::new(
                path,
                line,
                format!(
                    "`{word}` in the link, which does no I/O and reads no clock; take what it \
                         needs as an argument"
                ),
            )
        }));
    }
    findings
}

/// `use std::{io, …}`: the forbidden names in the group.
fn grouped_uses(code: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("use std::{") {
        let group = code[at..].split(';').next().unwrap_or_default();
        let first = code[..at].matches('\n').count();
        for (offset, line) in group.lines().enumerate() {
            for word in OUTSIDE_WORLD.iter().filter(|word| word.starts_with("std::")) {
                if has_word(line, word.trim_start_matches("std::")) {
                    found.push((first + offset + 1, *word));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    #[test]
    fn unsafe_outside_the_fence() {
        let block = "fn f() { unsafe { g() } }";
        let allowed = "//! X.\n#![allow(unsafe_code)]\nfn f() { unsafe { g() } }";
        let by_item = "#[allow(unsafe_code)]\nfn f() { unsafe { g() } }";
        check(unsafe_code, &[("crates/switchboard/src/a.rs", allowed)], &["a.rs:3: `unsafe`"]);
        check(unsafe_code, &[("crates/kernel/src/a.rs", block)], &["a.rs:1: `unsafe`"]);
        check(unsafe_code, &[("crates/kernel/src/a.rs", by_item)], &["a.rs:2: `unsafe`"]);
        check(unsafe_code, &[("crates/kernel/tests/it/a.rs", block)], &["a.rs:1: `unsafe`"]);
        check(unsafe_code, &[("crates/kernel/tests/it/a.rs", allowed)], &[]);
        check(unsafe_code, &[("crates/cli/tests/it/a.rs", allowed)], &["a.rs:3: `unsafe`"]);
        check(unsafe_code, &[("crates/cli/examples/a.rs", block)], &["a.rs:1: `unsafe`"]);
        check(unsafe_code, &[("crates/kernel/src/a.rs", allowed)], &[]);
        check(unsafe_code, &[("crates/shm/src/a.rs", allowed)], &[]);
        check(unsafe_code, &[("crates/kernel/src/io.rs", by_item)], &[]);
        check(unsafe_code, &[("bench/src/main.rs", block)], &[]);
        check(unsafe_code, &[("crates/cli/src/a.rs", "// unsafe\nlet a = \"unsafe\";")], &[]);
    }

    #[test]
    fn roots_forbid_it() {
        for (path, finding) in [
            ("crates/switchboard/src/lib.rs", "forbid(unsafe_code)"),
            ("crates/cli/src/main.rs", "forbid(unsafe_code)"),
            ("crates/cli/src/bin/other.rs", "forbid(unsafe_code)"),
            ("xtask/src/main.rs", "forbid(unsafe_code)"),
            ("crates/kernel/src/lib.rs", "deny(unsafe_code)"),
        ] {
            check(unsafe_code, &[(path, "//! X.\n// #![forbid(unsafe_code)]")], &[finding]);
            check(unsafe_code, &[(path, &format!("//! X.\n#![{finding}]"))], &[]);
        }
        check(unsafe_code, &[("crates/kernel/tests/it/main.rs", "mod a;")], &[]);
    }

    #[test]
    fn printing_outside_the_command() {
        let all = "fn f() {\n println!();\n eprint!();\n std::process::exit(1);\n}";
        let three = ["a.rs:2: `println!`", "a.rs:3: `eprint!`", "a.rs:4: `process::exit`"];
        check(printing, &[("crates/switchboard/src/a.rs", all)], &three);
        check(printing, &[("crates/switchboard/tests/it/a.rs", all)], &three);
        for path in ["crates/cli/src/a.rs", "xtask/src/a.rs", "crates/kernel/examples/a.rs"] {
            check(printing, &[(path, all)], &[]);
        }
        check(printing, &[("crates/kernel/src/a.rs", "/// println!()\nfn f() {}")], &[]);
    }

    #[test]
    fn testkit_prints_where_it_says_so() {
        let path = "crates/testkit/src/a.rs";
        let allowed = "#[allow(clippy::print_stderr)]\nfn f() {\n    eprintln!();\n}\n";
        check(printing, &[(path, allowed)], &[]);
        let next = format!("{allowed}fn g() {{\n    eprintln!();\n}}\n");
        check(printing, &[(path, &next)], &["a.rs:6: `eprintln!`"]);
        let other = allowed.replace("stderr", "stdout");
        check(printing, &[(path, &other)], &["a.rs:3: `eprintln!`"]);
    }

    #[test]
    fn the_link_stays_pure() {
        let path = "crates/switchboard/src/link/state.rs";
        check(link, &[(path, "use std::time::Duration;\n/// std::io\n")], &[]);
        check(link, &[(path, "use std::time::Instant;")], &["state.rs:1: `Instant`"]);
        check(
            link,
            &[(path, "\nuse switchboard_kernel::io;")],
            &["state.rs:2: `switchboard_kernel`"],
        );
        check(link, &[(path, "fn f() -> std::io::Result<()>")], &["state.rs:1: `std::io`"]);
        check(
            link,
            &[(path, "use std::{\n    fmt,\n    net::IpAddr,\n};")],
            &["state.rs:3: `std::net`"],
        );
        check(link, &[("crates/switchboard/src/link.rs", "SystemTime")], &["link.rs:1"]);
        check(link, &[("crates/switchboard/src/lib.rs", "")], &["src/link: no link there"]);
    }
}

//! The house rules that a program can check, one row each in [`TABLE`].
//!
//! Source: ARCHITECTURE.md (the invariants) and CONTRIBUTING.md (the rules).
//!
//! A check takes the [`Tree`] of files as text and returns findings; it touches nothing else, so its
//! tests hand it a few lines and see it fail. What a check looks for and does not find (a table
//! without rows, a folder that is not there) is a finding too: no check passes for want of a subject.

mod fences;
mod links;
mod source;
mod tables;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::process::Command;

/// One house rule.
pub(crate) struct Check {
    /// What must hold.
    pub(crate) name: &'static str,
    /// Where it does not.
    pub(crate) find: fn(&Tree) -> Vec<Finding>,
}

/// Every rule. Adding one is a function and a row.
pub(crate) const TABLE: &[Check] = &[
    Check { name: "unsafe stays behind its fence", find: fences::unsafe_code },
    Check { name: "only the command prints or exits", find: fences::printing },
    Check { name: "the link does no I/O and reads no clock", find: fences::link },
    Check { name: "every mechanism has its file, test and example", find: tables::mechanisms },
    Check {
        name: "every transport has its file, document, example and test",
        find: tables::transports,
    },
    Check { name: "every command has its file and document", find: tables::commands },
    Check {
        name: "every source of the inspector has its file and is documented",
        find: tables::sources,
    },
    Check { name: "every source file says what it is for", find: text::purpose },
    Check { name: "no file is named for nothing", find: text::names },
    Check { name: "no file is too long", find: text::length },
    Check { name: "relative links resolve", find: links::check },
    Check { name: "clean white space, nothing unfinished", find: text::marks },
    Check { name: "no path of one machine", find: text::machine_paths },
];

/// A place where a rule does not hold.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    file: String,
    /// From 1; 0 means the whole file.
    line: usize,
    /// What is wrong, and the fix.
    message: String,
}

impl Finding {
    fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// The project's files: those that git tracks, or would.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Text by path, which is relative to the root.
    texts: BTreeMap<String, String>,
    /// Every path, of files that are not text too.
    paths: BTreeSet<String>,
}

impl Tree {
    /// Reads the files under `root`.
    pub(crate) fn read(root: &Path) -> std::io::Result<Self> {
        let mut tree = Self::default();
        for path in list(root)? {
            match std::fs::read(root.join(&path)) {
                Ok(bytes) => tree.insert(path, String::from_utf8(bytes).ok()),
                // Deleted but still in the index.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == std::io::ErrorKind::IsADirectory => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tree)
    }

    fn insert(&mut self, path: String, text: Option<String>) {
        if let Some(text) = text
            && !text.contains('\0')
        {
            self.texts.insert(path.clone(), text);
        }
        self.paths.insert(path);
    }

    /// All paths.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.paths.iter().map(String::as_str)
    }

    fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts().filter(|(path, _)| path.ends_with(".rs"))
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.texts.get(path).map(String::as_str)
    }

    /// Whether there is such a file or folder; the root is the empty path.
    fn has(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty()
            || self.paths.contains(path)
            || self.paths.range(folder.clone()..).next().is_some_and(|p| p.starts_with(&folder))
    }

    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Self {
        let mut tree = Self::default();
        for (path, text) in files {
            tree.insert((*path).to_owned(), Some((*text).to_owned()));
        }
        tree
    }
}

fn list(root: &Path) -> std::io::Result<Vec<String>> {
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root)
        .output();
    if let Ok(listed) = listed
        && listed.status.success()
        && !listed.stdout.is_empty()
    {
        let names = String::from_utf8_lossy(&listed.stdout);
        return Ok(names.split_terminator('\0').map(str::to_owned).collect());
    }
    let mut paths = Vec::new();
    walk(root, "", &mut paths)?;
    Ok(paths)
}

/// The files of an unpacked source archive, which has no git to ask.
fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "target" || name == ".git" {
            continue;
        }
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            walk(root, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

/// What deserves a look but breaks no rule.
pub(crate) fn notes(tree: &Tree) -> Vec<Finding> {
    text::length_notes(tree)
}

/// Runs one check on a few files and compares `FILE:LINE` of what it finds.
#[cfg(test)]
fn check(find: fn(&Tree) -> Vec<Finding>, files: &[(&str, &str)], expected: &[&str]) {
    let found: Vec<String> = find(&Tree::of(files)).iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.contains(expected), "{found:?} should contain {expected:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_files_and_folders() {
        let tree = Tree::of(&[("docs/guide/a.md", ""), ("docs-old", "")]);
        for (path, there) in [
            ("", true),
            ("docs", true),
            ("docs/guide", true),
            ("docs/guide/a.md", true),
            ("docs/gui", false),
            ("docs/guide/b.md", false),
        ] {
            assert_eq!(tree.has(path), there, "{path}");
        }
    }

    #[test]
    fn binary_files_have_no_text() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("picture"), b"\xff\xfe\0").expect("a file");
        std::fs::create_dir(folder.path().join("docs")).expect("a folder");
        std::fs::write(folder.path().join("docs/a.md"), "text").expect("a file");
        let tree = Tree::read(folder.path()).expect("a tree");
        assert_eq!(tree.paths().collect::<Vec<_>>(), ["docs/a.md", "picture"]);
        assert_eq!(tree.texts().collect::<Vec<_>>(), [("docs/a.md", "text")]);
    }

    #[test]
    fn an_empty_tree_does_not_pass_the_tables() {
        for check in TABLE.iter().filter(|check| check.name.starts_with("every")) {
            assert!(!(check.find)(&Tree::default()).is_empty(), "{}", check.name);
        }
    }
}

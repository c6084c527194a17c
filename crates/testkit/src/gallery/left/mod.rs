//! The gallery of leaks: objects that outlived everybody who used them, and objects that only look like it, each with what is true of it,
//! written down by hand.
//!
//! Source: docs/design/leaks.md, "Proof". Nothing here knows the inspector. `cargo xtask gallery NAME` makes one by hand.

mod files;
mod flight;
mod queues;
mod segments;
mod sockets;

use super::{Stage, Sure};

/// Something that was left behind, or looks so.
#[derive(Debug)]
pub struct Leftover {
    /// What it is called.
    pub name: &'static str,
    /// What happened.
    pub tells: &'static str,
    /// Makes it.
    pub make: fn(&mut Stage),
    /// Whether only root can make it, or see it.
    pub root: bool,
    /// How sure it is that it was left behind, a while after; none: it only looks so, and is at most possibly left behind.
    pub graded: Option<Sure>,
    /// Whether nothing else can be sure while it is there: what is in flight in it cannot be seen.
    pub clouds: bool,
}

/// Each of them.
pub fn all() -> impl Iterator<Item = &'static Leftover> {
    let tables = [segments::TABLE, queues::TABLE, files::TABLE, sockets::TABLE, flight::TABLE];
    tables.into_iter().flatten()
}

const fn leak(
    name: &'static str,
    tells: &'static str,
    make: fn(&mut Stage),
    graded: Sure,
) -> Leftover {
    Leftover { name, tells, make, root: false, graded: Some(graded), clouds: false }
}

const fn look_alike(name: &'static str, tells: &'static str, make: fn(&mut Stage)) -> Leftover {
    Leftover { name, tells, make, root: false, graded: None, clouds: false }
}

impl Leftover {
    const fn clouds(mut self) -> Self {
        self.clouds = true;
        self
    }

    const fn for_root(mut self) -> Self {
        self.root = true;
        self
    }
}

/// So many hexadecimal digits that nobody else has.
fn digits(count: usize) -> String {
    let mut random = [0_u8; 16];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    // A letter and two digits at least, so that it is neither a number nor a word.
    format!("a1f7{}", &text[..count - 4])
}

/// A word that nobody else has, and somebody could have thought of.
fn word() -> String {
    let mut random = [0_u8; 12];
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    random.iter().map(|byte| char::from(b'g' + byte % 20)).collect()
}

/// A file as the inspector names it.
fn file_id(kind: &str, path: &std::path::Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let found =
        std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let (major, minor) = (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
    format!("{kind}:{major}:{minor}:{}", found.ino())
}

/// The namespace of a process, by its number.
fn namespace(pid: i32, name: &str) -> u64 {
    let link = std::fs::read_link(format!("/proc/{pid}/ns/{name}")).expect("a namespace");
    let text = link.to_string_lossy().into_owned();
    let number = text.rsplit('[').next().and_then(|rest| rest.strip_suffix(']'));
    number.and_then(|number| number.parse().ok()).expect("a number")
}

//! What the commands under "See" look at: the live machine, or a snapshot in a file.
//!
//! Source: docs/design/inspect.md. All text of others is escaped by `switchboard-inspect` when it is read.

use std::fmt::Write;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use clap::Args;
use switchboard_inspect::name::Place;
use switchboard_inspect::{Coverage, Kind, Object, Request, Snapshot};

use crate::exit_code::Exit;
use crate::output::{Failure, note};

/// The options that all of them have.
#[derive(Args, Debug)]
pub(crate) struct Source {
    /// Look at a snapshot in FILE (`switchboard snapshot FILE`) instead of this machine
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// Everything, as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The most that is read of a file: some million objects.
const LARGEST_BYTES: u64 = 1 << 30;

impl Source {
    /// This machine, of commands that are about nothing else.
    pub(crate) fn live(json: bool) -> Self {
        Self { from: None, json }
    }

    /// The snapshot: taken now as the request says, or read.
    pub(crate) fn snapshot(&self, request: &Request) -> Result<Snapshot, Failure> {
        match &self.from {
            None => somebody(request.take()),
            Some(path) => load(path),
        }
    }

    /// Whether this is the machine as it is now.
    pub(crate) fn is_live(&self) -> bool {
        self.from.is_none()
    }

    /// What a word leads to as a path, on the live machine.
    pub(crate) fn place(&self, word: &str) -> Option<Place> {
        if !self.is_live() {
            return None;
        }
        let path = word
            .split_once(':')
            .map_or(word, |(scheme, rest)| if is_kind(scheme) { rest } else { word });
        let found = std::fs::metadata(path).ok()?;
        Some((found.dev(), found.ino()))
    }
}

/// Whoever looks is a process, too: where none is seen, nothing can be said.
fn somebody(snapshot: Snapshot) -> Result<Snapshot, Failure> {
    if !snapshot.processes.is_empty() {
        return Ok(snapshot);
    }
    say_missing(&snapshot.coverage);
    let problem = "no process can be seen: /proc is empty, or no file system of processes";
    Err(Failure::new(Exit::Failed, problem).hint("as root: mount -t proc proc /proc"))
}

/// Whether what follows the scheme may be a path.
fn is_kind(scheme: &str) -> bool {
    Kind::named(scheme).is_some() || ["unix-dgram", "unix-seqpacket"].contains(&scheme)
}

/// Reads a snapshot.
pub(crate) fn load(path: &std::path::Path) -> Result<Snapshot, Failure> {
    let failed = |error: &dyn std::fmt::Display, exit| {
        Failure::new(exit, format!("{}: {error}", path.display()))
    };
    let json = File::open(path).and_then(|file| bounded(file, LARGEST_BYTES));
    let json = json.map_err(|error| {
        let nothing = error.kind() == ErrorKind::NotFound;
        failed(&error, if nothing { Exit::Nothing } else { Exit::Failed })
    })?;
    Snapshot::from_json(&json).map_err(|error| failed(&error, Exit::Failed))
}

/// Reads what may be JSON, and no more of what is not: a pipe or a device says no length.
fn bounded(from: impl Read, most: u64) -> std::io::Result<Vec<u8>> {
    let error = |why: String| std::io::Error::new(ErrorKind::InvalidData, why);
    let mut json = Vec::new();
    let mut from = from.take(most.saturating_add(1));
    (&mut from).take(4096).read_to_end(&mut json)?;
    let begins = json.iter().find(|byte| !byte.is_ascii_whitespace());
    if begins != Some(&b'{') {
        return Err(error("this is no snapshot: it does not begin as an object".to_owned()));
    }
    from.read_to_end(&mut json)?;
    if json.len() as u64 > most {
        return Err(error(format!("this is no snapshot: it is larger than {most} bytes")));
    }
    Ok(json)
}

/// Says on standard error what could not be seen.
pub(crate) fn say_missing(coverage: &Coverage) {
    for missing in &coverage.missing {
        note(&format!("not seen: {missing}"));
    }
}

/// How long after the first look at waits the second one follows.
pub(crate) const GAP: std::time::Duration = std::time::Duration::from_millis(200);

/// A process id that is given as `812` or `pid:812`.
pub(crate) fn process_id(word: &str) -> Result<u32, String> {
    let number = word.strip_prefix("pid:").unwrap_or(word);
    number.parse().map_err(|_| format!("no process id: {word}"))
}

/// Kinds that a word can be about: those of its prefix, or all.
pub(crate) fn kinds_of(word: &str) -> Request {
    let kind = word.split_once(':').and_then(|(scheme, _)| Kind::named(scheme));
    match kind {
        // Words on which threads sleep are found by looking at the threads.
        None | Some(Kind::Futex) => Request::everything(),
        // Sleeping openers show with the waits.
        Some(Kind::Fifo | Kind::Lock) => Request::everything(),
        Some(kind) => Request::of([kind]).details(),
    }
}

/// Bytes, messages, connections: how full something is, or a dash.
pub(crate) fn fill(object: &Object) -> String {
    let mut text = String::new();
    // A String takes whatever is written to it.
    let _ = write_fill(&mut text, object);
    if text.is_empty() { "-".to_owned() } else { text }
}

/// As [`fill`], but nothing where there is nothing to say.
pub(crate) fn write_fill(text: &mut String, object: &Object) -> std::fmt::Result {
    match (object.fill, object.size) {
        (Some(fill), Some(size)) if !object.kind.is_memory() => write!(text, "{fill}/{size}"),
        (Some(fill), None) => write!(text, "{fill}"),
        _ => Ok(()),
    }
}

/// The users of this machine by number.
#[derive(Debug, Default)]
pub(crate) struct Users(Vec<(u32, String)>);

impl Users {
    /// Those of the live machine; of a snapshot from elsewhere, none.
    pub(crate) fn of(source: &Source) -> Self {
        if source.is_live() { Self::of_this_machine() } else { Self::default() }
    }

    /// Those of the live machine.
    pub(crate) fn of_this_machine() -> Self {
        let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = |line: &str| {
            let mut fields = line.split(':');
            let name = switchboard_inspect::text::escaped(fields.next()?.as_bytes());
            Some((fields.nth(1)?.parse().ok()?, name))
        };
        Self(text.lines().filter_map(user).collect())
    }

    /// Writes the name, or the number.
    pub(crate) fn write(&self, text: &mut String, uid: u32) -> std::fmt::Result {
        match self.0.iter().find(|(number, _)| *number == uid) {
            Some((_, name)) => text.write_str(name),
            None => write!(text, "{uid}"),
        }
    }

    /// The name, or the number.
    pub(crate) fn name(&self, uid: u32) -> String {
        let found = self.0.iter().find(|(number, _)| *number == uid);
        found.map_or_else(|| uid.to_string(), |(_, name)| name.clone())
    }

    /// The number of a name, or the number itself.
    pub(crate) fn number(&self, word: &str) -> Option<u32> {
        let found = self.0.iter().find(|(_, name)| name == word);
        found.map(|(number, _)| *number).or_else(|| word.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        assert_eq!(bounded(&b" \n{ }"[..], 100).expect("read"), b" \n{ }");
        let spaces = std::io::repeat(b' ');
        for endless in [std::io::repeat(0), std::io::repeat(b'{'), spaces] {
            let error = bounded(endless, 10_000).expect_err("no snapshot");
            assert_eq!(error.kind(), ErrorKind::InvalidData);
        }
        assert!(bounded(&b""[..], 100).is_err());
        assert_eq!(bounded(&b"{}  "[..], 4).expect("read").len(), 4);
        assert!(bounded(&b"{}   "[..], 4).is_err());
    }
}

//! The audit log: who was refused, and who was turned away, with what the kernel knows of it.
//!
//! Source: docs/design/access.md, "Audit"; systemd, *Native Journal Protocol*
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>); `proc_pid_exe(5)`, `pidfd_open(2)`.
//!
//! *Bounds*: 10 records at once and 10 a second; a text of 1 KiB, a record of 4 KiB.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Value};
use switchboard_kernel::unix_socket::{self, Kind};
use switchboard_kernel::{pidfd, process};

use super::Identity;
use crate::address::Address;
use crate::error::{Error, ErrorKind};
use crate::link::cut;

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuditTarget {
    Journal,
    File(PathBuf),
}

impl AuditTarget {
    /// `journal`, or a file's path from the root.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "journal" => Some(Self::Journal),
            path if path.starts_with('/') => Some(Self::File(path.into())),
            _ => None,
        }
    }
}

const JOURNAL: &str = "/run/systemd/journal/socket";
const MOST_AT_ONCE: u32 = 10;
const EVERY: Duration = Duration::from_millis(100);
const LONGEST_TEXT: usize = 1024;
const LONGEST_RECORD: usize = 4096;

/// What happened to a peer.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// `refused` or `evicted`.
    pub(crate) event: &'static str,
    pub(crate) verb: &'static str,
    pub(crate) pid: Option<u32>,
    pub(crate) program: &'a str,
    pub(crate) identity: &'a Identity,
    /// Readable when the process is dead, where it is known.
    pub(crate) process: Option<BorrowedFd<'a>>,
    pub(crate) reason: &'a str,
}

/// The audit log of one end.
#[derive(Debug)]
pub(crate) struct Audit {
    channel: String,
    sink: Sink,
    /// Records that may be written now.
    left: u32,
    filled: Instant,
    /// Records that were not written since the last one.
    missing: u64,
}

#[derive(Debug)]
enum Sink {
    Nowhere,
    File(File),
    Journal(OwnedFd),
}

impl Audit {
    /// The log that the address asks for, else the one that `SWITCHBOARD_AUDIT` names, else none.
    ///
    /// # Errors
    /// It cannot be opened.
    pub(crate) fn open(address: &Address) -> Result<Self, Error> {
        let named = std::env::var_os("SWITCHBOARD_AUDIT").filter(|name| !name.is_empty());
        let target = match (&address.query.audit, named) {
            (Some(target), _) => Some(target.clone()),
            (None, Some(name)) => Some(from_environment(address, name)?),
            (None, None) => None,
        };
        let sink = match target {
            None => Sink::Nowhere,
            Some(AuditTarget::Journal) => journal(address, Path::new(JOURNAL))?,
            Some(AuditTarget::File(path)) => Sink::File(file(address, &path)?),
        };
        Ok(Self::new(address.as_str(), sink))
    }

    fn new(channel: &str, sink: Sink) -> Self {
        let channel = cut(channel, LONGEST_TEXT).to_owned();
        Self { channel, sink, left: MOST_AT_ONCE, filled: Instant::now(), missing: 0 }
    }

    /// Writes a record, if it may and can.
    pub(crate) fn note(&mut self, record: &Record<'_>) {
        if matches!(self.sink, Sink::Nowhere) {
            return;
        }
        self.refill();
        if self.left == 0 {
            self.missing += 1;
            return;
        }
        self.left -= 1;
        let mut fields = self.fields(record);
        if self.missing > 0 {
            fields.insert("records_missing".into(), self.missing.into());
        }
        match self.sink.write(&fields) {
            Ok(()) => self.missing = 0,
            Err(_) => self.missing += 1,
        }
    }

    fn refill(&mut self) {
        let passed = self.filled.elapsed().as_millis() / EVERY.as_millis();
        if passed > 0 {
            self.filled = Instant::now();
            let more = u32::try_from(passed).unwrap_or(u32::MAX);
            self.left = self.left.saturating_add(more).min(MOST_AT_ONCE);
        }
    }

    fn fields(&self, record: &Record<'_>) -> Map<String, Value> {
        let Record { event, verb, pid, program, identity, process, reason } = record;
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| {
            fields.insert(name.into(), value);
        };
        add("time", time.as_secs_f64().into());
        add("event", (*event).into());
        add("channel", self.channel.clone().into());
        add("verb", (*verb).into());
        add("pid", (*pid).into());
        add("uid", identity.uid.into());
        add("gid", identity.gid.into());
        let groups: Vec<u32> = identity.groups.iter().take(64).copied().collect();
        add("groups", groups.into());
        add("program", cut(program, LONGEST_TEXT).into());
        if let Some(path) = executable(*pid, *process) {
            add("executable", path.into());
        }
        add("reason", cut(reason, LONGEST_TEXT).into());
        add("by_pid", std::process::id().into());
        add("by_uid", process::effective_user_id().into());
        fields
    }
}

/// The program that a process runs. Its number may be another's by the time that it is read: so its descriptor
/// is asked afterwards whether it lived.
fn executable(pid: Option<u32>, process: Option<BorrowedFd<'_>>) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{}/exe", pid?)).ok()?;
    if pidfd::is_dead(process?).ok()? {
        return None;
    }
    let path = path.to_string_lossy();
    Some(cut(&path, LONGEST_TEXT).to_owned())
}

impl Sink {
    fn write(&mut self, fields: &Map<String, Value>) -> std::io::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::File(file) => {
                let mut line = Value::Object(fields.clone()).to_string();
                if line.len() >= LONGEST_RECORD {
                    // JSON escapes what is strange: six bytes for one.
                    let short = |name: &&String| {
                        !["program", "executable", "reason"].contains(&name.as_str())
                    };
                    let some = fields.iter().filter(|(name, _)| short(name));
                    let some: Map<String, Value> =
                        some.map(|(name, value)| (name.clone(), value.clone())).collect();
                    line = Value::Object(some).to_string();
                }
                line.push('\n');
                // One call: records of several processes stay whole.
                match file.write(line.as_bytes())? {
                    written if written == line.len() => Ok(()),
                    _ => Err(std::io::ErrorKind::WriteZero.into()),
                }
            }
            Self::Journal(socket) => {
                let entry = journal_entry(fields);
                unix_socket::send(socket, entry.as_bytes())
                    .map(drop)
                    .map_err(|error| std::io::Error::from_raw_os_error(error.errno()))
            }
        }
    }
}

/// An entry of the journal: a line for each field.
fn journal_entry(fields: &Map<String, Value>) -> String {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| fields.get(name).map(ToString::to_string).unwrap_or_default();
    let (event, verb) = (text("event"), text("verb"));
    let mut entry = format!(
        "MESSAGE={event}: process {} of user {} may not {verb} on {}: {}\nPRIORITY=4\n\
         SYSLOG_IDENTIFIER=switchboard\n",
        number("pid"),
        number("uid"),
        one_line(text("channel")),
        one_line(text("reason"))
    );
    for (name, value) in fields {
        let value = match value {
            Value::String(text) => one_line(text),
            other => other.to_string(),
        };
        entry += &format!("SWITCHBOARD_{}={value}\n", name.to_uppercase());
    }
    entry
}

/// A line feed would begin another field.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn from_environment(address: &Address, name: OsString) -> Result<AuditTarget, Error> {
    let parsed = name.to_str().and_then(AuditTarget::parse);
    parsed.ok_or_else(|| {
        let problem = format!("SWITCHBOARD_AUDIT is {}", name.display());
        Error::new(ErrorKind::BadAddress, address, problem)
            .hint("say journal, or a file's path from the root")
    })
}

fn journal(address: &Address, path: &Path) -> Result<Sink, Error> {
    let place = unix_socket::Address::Path(path.to_owned());
    unix_socket::connect_to(Kind::Datagram, &place, true).map(Sink::Journal).map_err(|error| {
        Error::system(address, "cannot open the journal for the audit log", error)
            .hint("journald is not running here; say ?audit=/PATH for a file")
    })
}

/// A file of this user's own, which is appended to.
fn file(address: &Address, path: &Path) -> Result<File, Error> {
    let shown = path.display();
    let refused = |problem: &str| {
        let problem = format!("the audit log {shown} {problem}");
        Error::new(ErrorKind::PermissionDenied, address, problem)
    };
    let no_file = "is no file, and is not written to";
    if std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(refused(no_file));
    }
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let file = opened.map_err(|error| {
        let errno = error.raw_os_error().unwrap_or_default();
        let error = switchboard_kernel::Error::from_raw("open", errno);
        Error::system(address, &format!("cannot open the audit log {shown}"), error)
    })?;
    let same = |found: std::fs::Metadata| {
        let this = file.metadata().ok()?;
        let is_same = found.is_file() && (found.dev(), found.ino()) == (this.dev(), this.ino());
        is_same.then(|| this.uid())
    };
    // What the name leads to through a link is another file than the link.
    match std::fs::symlink_metadata(path).ok().and_then(same) {
        None => Err(refused(no_file)),
        Some(uid) if uid != process::effective_user_id() => {
            Err(refused("belongs to another user, who could change it"))
        }
        Some(_) => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use switchboard_kernel::Permissions;
    use switchboard_testkit::Scratch;

    use super::*;

    fn address(more: &str) -> Address {
        format!("shm:x{more}").parse().expect("an address")
    }

    fn note(audit: &mut Audit, reason: &str) {
        let (one, other) = unix_socket::pair(Kind::Seqpacket).expect("a pair");
        let identity = Identity::of(&one, 1001, 1002);
        let process = pidfd::open(std::process::id()).expect("this process");
        audit.note(&Record {
            event: "refused",
            verb: "publish",
            pid: Some(std::process::id()),
            program: "a\"b\nc",
            identity: &identity,
            process: Some(process.as_fd()),
            reason,
        });
        drop(other);
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).expect("a log");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    #[test]
    fn a_record_is_a_line_with_who_it_was() {
        let scratch = Scratch::new();
        let path = scratch.join("audit");
        let mut audit =
            Audit::open(&address(&format!("?audit={}", path.display()))).expect("a log");
        note(&mut audit, "because");
        let [record] = &lines(&path)[..] else { panic!("one record") };
        assert_eq!((&record["event"], &record["verb"]), (&"refused".into(), &"publish".into()));
        assert_eq!((&record["uid"], &record["gid"]), (&1001.into(), &1002.into()));
        assert_eq!(
            (&record["pid"], &record["program"]),
            (&std::process::id().into(), &"a\"b\nc".into())
        );
        let executable = std::env::current_exe().expect("this program");
        assert_eq!(record["executable"], executable.to_string_lossy().as_ref());
        assert_eq!(std::fs::metadata(&path).expect("it").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let scratch = Scratch::new();
        let path = scratch.join("audit");
        let mut audit =
            Audit::open(&address(&format!("?audit={}", path.display()))).expect("a log");
        audit.filled = Instant::now() + Duration::from_secs(3600);
        for _ in 0..1000 {
            note(&mut audit, &"long ".repeat(10_000));
        }
        assert_eq!((lines(&path).len(), audit.missing), (10, 990));
        audit.filled = Instant::now() - Duration::from_secs(1);
        note(&mut audit, &"\u{1}".repeat(10_000));
        let records = lines(&path);
        assert_eq!((records.len(), &records[10]["records_missing"]), (11, &990.into()));
        let text = std::fs::read_to_string(&path).expect("a log");
        assert!(text.lines().all(|line| line.len() < LONGEST_RECORD + 1));
    }

    #[test]
    fn links_folders_and_pipes_are_no_logs() {
        let scratch = Scratch::new();
        std::fs::write(scratch.join("target"), "").expect("a file");
        symlink(scratch.join("target"), scratch.join("link")).expect("a link");
        for name in ["link", ""] {
            let address = address(&format!("?audit={}", scratch.join(name).display()));
            let error = Audit::open(&address).expect_err("no log");
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("is no file"), "{error}");
        }
        let nowhere = address(&format!("?audit={}", scratch.join("none/x").display()));
        assert_eq!(Audit::open(&nowhere).expect_err("no folder").kind(), ErrorKind::NotFound);
    }

    #[test]
    fn the_journal_gets_a_field_a_line() {
        let scratch = Scratch::new();
        let path = unix_socket::Address::Path(scratch.join("journal"));
        let socket = unix_socket::bind_at(Kind::Datagram, &path, Permissions::new(), false);
        let socket = socket.expect("a socket");
        let sink = journal(&address(""), &scratch.join("journal")).expect("a journal");
        note(&mut Audit::new("shm:x", sink), "because\nPRIORITY=0");
        let mut bytes = [0; 8192];
        let (taken, _) = unix_socket::recv_with_fds(&socket, &mut bytes, 0).expect("an entry");
        let entry = String::from_utf8_lossy(&bytes[..taken.len]).into_owned();
        assert!(entry.starts_with("MESSAGE=refused: process "), "{entry}");
        assert!(entry.lines().any(|line| line == "SWITCHBOARD_UID=1001"), "{entry}");
        assert_eq!(entry.lines().filter(|line| line.starts_with("PRIORITY=")).count(), 1);
        assert!(entry.lines().all(|line| line.contains('=')), "{entry}");
        let none = journal(&address(""), &scratch.join("none")).expect_err("no journal");
        assert!(none.advice().is_some_and(|advice| advice.contains("?audit=/PATH")));
    }
}

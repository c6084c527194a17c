//! The options after the question mark, and how they are read.

use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use switchboard_kernel::{Permissions, process};

use super::AddressError;
use crate::access::{AuditTarget, Rules, Verb, Who};
use crate::framing::Framing;
use crate::log::Durability;
use crate::log::writer::LEAST_SEGMENT_BYTES;
use crate::options::Overflow;
use crate::pattern::state::Layout;
use crate::transport::Transport;

/// The options of an address, checked. What is absent has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) mode: Option<u32>,
    pub(crate) owner: Option<u32>,
    pub(crate) group: Option<u32>,
    pub(crate) framing: Option<Framing>,
    pub(crate) bind: Option<bool>,
    pub(crate) plaintext: bool,
    pub(crate) max_message_bytes: Option<u32>,
    pub(crate) max_messages: Option<u32>,
    pub(crate) message_type: Option<i64>,
    pub(crate) capacity_bytes: Option<u32>,
    pub(crate) segment_bytes: Option<u32>,
    pub(crate) durability: Option<Durability>,
    pub(crate) retain: Option<Duration>,
    pub(crate) retain_bytes: Option<u64>,
    pub(crate) reader: Option<String>,
    pub(crate) scope: Option<PathBuf>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) history_messages: Option<u32>,
    pub(crate) size_bytes: Option<u32>,
    pub(crate) layout: Option<Layout>,
    pub(crate) count: Option<u32>,
    pub(crate) keys: Option<u32>,
    pub(crate) index: u16,
    /// Who of other users may do what.
    pub(crate) allowed: Rules,
    pub(crate) audit: Option<AuditTarget>,
}

impl Query {
    /// Who of other users may do what on a channel.
    pub(crate) fn rules(&self) -> Rules {
        self.allowed.clone().with_mode(self.mode, self.group)
    }

    pub(crate) fn permissions(&self) -> Permissions {
        let mut permissions = Permissions::new();
        if let Some(mode) = self.mode {
            permissions = permissions.mode(mode);
        }
        permissions.owner = self.owner;
        permissions.group = self.group;
        permissions
    }
}

/// Every option, what it takes, and what it means; a row of the table names those it takes.
pub const OPTIONS: &[(&str, &str, &str)] = &[
    ("mode", "OCTAL", "permission bits of what is created; 0600 unless said otherwise"),
    ("owner", "USER", "owner of what is created: a name or a number"),
    ("group", "GROUP", "group of what is created: a name or a number"),
    ("framing", "link|lines|length|raw", "how messages are told apart on the wire"),
    ("bind", "", "this side binds the name and the other connects"),
    ("connect", "", "this side connects and the other binds the name"),
    ("plaintext", "", "allow unencrypted traffic beyond this machine"),
    ("max-message", "BYTES", "largest message this side takes"),
    ("max-messages", "COUNT", "how many messages a created queue holds"),
    (
        "capacity",
        "BYTES",
        "how many bytes a queue holds, the size of a pipe, or how much of a topic waits for a slow \
         subscriber",
    ),
    (
        "overflow",
        "block|drop-oldest|fail",
        "what a publisher does when a subscriber is too slow; block unless said otherwise",
    ),
    (
        "scope",
        "DIRECTORY|system",
        "where the ends of shm: meet; a directory of this user's unless said otherwise",
    ),
    ("publish", "WHO", "others who may publish: user:NAME, group:NAME or any, with commas"),
    ("subscribe", "WHO", "others who may subscribe"),
    ("send", "WHO", "others who may send"),
    ("receive", "WHO", "others who may receive"),
    ("call", "WHO", "others who may call"),
    ("serve", "WHO", "others who may serve"),
    ("audit", "journal|FILE", "where it is written who was refused; SWITCHBOARD_AUDIT otherwise"),
    ("history", "COUNT", "how many messages a publisher keeps for subscribers that come later"),
    ("segment", "BYTES", "length of the files of a log; 16MiB unless said otherwise"),
    ("durability", "memory|written|synced", "when a message in a log counts as acknowledged"),
    ("retain", "DURATION", "how long a topic's log keeps messages: 90s, 12h, 7d"),
    ("retain-bytes", "BYTES", "how much a topic's log keeps"),
    ("reader", "NAME", "keep a subscriber's place in a log under this name"),
    ("size", "BYTES", "the largest value of a state that is created, or the size of bare memory"),
    ("layout", "slots|bare", "whole values of any length, or the memory's bytes as they are"),
    (
        "keys",
        "COUNT",
        "how many keys a state has room for, or ids an event; 1024 unless said otherwise",
    ),
    ("value", "COUNT", "the count that a created semaphore starts with; 0 unless said otherwise"),
    (
        "index",
        "NUMBER",
        "which semaphore of a System V set, from 0; the first unless said otherwise",
    ),
    ("type", "NUMBER", "System V message type: of what is sent, or the one to receive"),
];

/// Reads one option.
pub(super) fn parse_option(
    text: &str,
    part: Range<usize>,
    transport: &Transport,
    query: &mut Query,
) -> Result<(), AddressError> {
    let option = &text[part.clone()];
    let (key, value) = match option.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (option, None),
    };
    let key_part = part.start..part.start + key.len();
    let value_part = part.end - value.map_or(0, str::len)..part.end;
    if !transport.options.contains(&key) {
        return Err(AddressError::new(
            text,
            key_part,
            format!(
                "unknown option; {}: takes {}",
                transport.scheme,
                if transport.options.is_empty() {
                    "none".into()
                } else {
                    transport.options.join(", ")
                }
            ),
        ));
    }
    let wrong = |problem: &str| AddressError::new(text, value_part.clone(), problem);
    let takes = OPTIONS.iter().find(|(name, ..)| *name == key).map_or("", |(_, takes, _)| takes);
    let value = match (takes.is_empty(), value) {
        (true, None) => "",
        (true, Some(_)) => return Err(wrong("this option takes no value")),
        (false, Some(value)) if !value.is_empty() => value,
        (false, _) => {
            return Err(AddressError::new(text, part, format!("write it as {key}={takes}")));
        }
    };
    match key {
        "mode" => {
            let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
            query.mode = Some(mode.ok_or_else(|| wrong("octal permission bits, as in 0640"))?);
        }
        "owner" => {
            query.owner = Some(process::user_id_of_name(value).map_err(|_| wrong("no such user"))?);
        }
        "group" => {
            query.group =
                Some(process::group_id_of_name(value).map_err(|_| wrong("no such group"))?);
        }
        "framing" => {
            let framing = Framing::parse(value)
                .ok_or_else(|| wrong("a framing is link, lines, length or raw"))?;
            query.framing = Some(framing);
        }
        "bind" | "connect" => {
            let bind = key == "bind";
            if query.bind.is_some_and(|other| other != bind) {
                return Err(AddressError::new(text, part, "one side binds, the other connects"));
            }
            query.bind = Some(bind);
        }
        "plaintext" => query.plaintext = true,
        "max-message" => query.max_message_bytes = Some(size(value).ok_or_else(|| wrong(SIZE))?),
        "capacity" => query.capacity_bytes = Some(size(value).ok_or_else(|| wrong(SIZE))?),
        "segment" => {
            let bytes = size(value).filter(|bytes| u64::from(*bytes) >= LEAST_SEGMENT_BYTES);
            query.segment_bytes = Some(bytes.ok_or_else(|| wrong(SEGMENT))?);
        }
        "durability" => {
            let level = Durability::parse(value);
            query.durability = Some(level.ok_or_else(|| wrong("memory, written or synced"))?);
        }
        "retain" => {
            let problem = "a time, as 90s, 15m, 12h or 7d";
            query.retain = Some(duration(value).ok_or_else(|| wrong(problem))?);
        }
        "retain-bytes" => {
            let problem = "a number of bytes, or with KiB, MiB or GiB";
            query.retain_bytes = Some(large_size(value).ok_or_else(|| wrong(problem))?);
        }
        "scope" => {
            let scope = PathBuf::from(if value == "system" { SYSTEM_SCOPE } else { value });
            if !scope.is_absolute() {
                return Err(wrong("a directory is written from the root: /run/robots"));
            }
            query.scope = Some(scope);
        }
        "publish" | "subscribe" | "send" | "receive" | "call" | "serve" => {
            let who = Who::parse(value).map_err(|problem| wrong(&problem))?;
            if let Some(verb) = Verb::parse(key) {
                query.allowed.add(verb, who);
            }
        }
        "audit" => {
            let target = AuditTarget::parse(value);
            let problem = "say journal, or a file's path from the root";
            query.audit = Some(target.ok_or_else(|| wrong(problem))?);
        }
        "reader" => {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            let fits = value.len() <= 64 && value.chars().all(plain) && !value.starts_with('.');
            if !fits {
                return Err(wrong("a name of up to 64 letters, digits, -, _ and ."));
            }
            query.reader = Some(value.to_owned());
        }
        "overflow" => {
            let overflow = Overflow::parse(value);
            query.overflow = Some(overflow.ok_or_else(|| wrong("block, drop-oldest or fail"))?);
        }
        "history" => {
            let count = value.parse().ok();
            query.history_messages = Some(count.ok_or_else(|| wrong("a number of messages"))?);
        }
        "size" => {
            let bytes = size(value).ok_or_else(|| wrong(SIZE))?;
            if bytes > transport.capabilities.largest_message_bytes {
                return Err(wrong("a state has 1 GiB at most"));
            }
            query.size_bytes = Some(bytes);
        }
        "keys" => {
            let keys = value.parse().ok().filter(|keys| (1..=1 << 20).contains(keys));
            query.keys = Some(keys.ok_or_else(|| wrong("a count of keys is 1 to 1048576"))?);
        }
        "layout" => {
            let layout = Layout::parse(value).ok_or_else(|| wrong("a layout is slots or bare"))?;
            query.layout = Some(layout);
        }
        "value" => {
            let count = value.parse().ok().filter(|count| *count <= i32::MAX.cast_unsigned());
            query.count = Some(count.ok_or_else(|| wrong("a count is 0 to 2147483647"))?);
        }
        "index" => {
            query.index = value.parse().map_err(|_| wrong("a semaphore's number, from 0"))?;
        }
        "max-messages" => {
            let count = value.parse().ok().filter(|count| *count > 0);
            query.max_messages = Some(count.ok_or_else(|| wrong("a number of messages"))?);
        }
        "type" => {
            let number = value.parse().ok().filter(|number: &i64| *number > 0);
            query.message_type = Some(number.ok_or_else(|| wrong("a type is 1 or more"))?);
        }
        _ => return Err(AddressError::new(text, key_part, "unknown option")),
    }
    Ok(())
}

/// Which the administrator makes: docs/design/access.md.
pub(crate) const SYSTEM_SCOPE: &str = "/run/switchboard";
const SEGMENT: &str = "a segment has 4096 bytes or more, below 4 GiB: 64KiB, 16MiB";
const SIZE: &str = "a size is a number of bytes, or with KiB, MiB or GiB, below 4 GiB";

/// `4096`, `64KiB`, `4MiB` in bytes.
fn size(text: &str) -> Option<u32> {
    large_size(text).and_then(|bytes| u32::try_from(bytes).ok())
}

/// `90s`, `15m`, `12h`, `7d`.
fn duration(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let count: u64 = text[..text.len() - 1].parse().ok()?;
    count.checked_mul(unit).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// As [`size`], of 4 GiB and more too.
fn large_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

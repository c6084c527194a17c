//! Addresses: `scheme:rest?option=value&option`, the names where processes meet.
//!
//! `scheme:rest` and `scheme://rest` are the same. `%XX` stands for a byte in `rest`, so that a path
//! with a question mark can be written (`%3F`). The schemes and the options that each takes come
//! from the table of transports, [`crate::transport::TABLE`].
//!
//! An [`AddressError`] points at the part that is wrong:
//!
//! ```text
//! unix:/run/x.sock?mod=0640
//!                  ^^^ unknown option; unix: takes bind, connect, framing, …
//! ```

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::str::FromStr;

use switchboard_kernel::{Permissions, process};

use crate::framing::Framing;
use crate::transport::{TABLE, Transport};

/// The longest address taken, in bytes.
pub const LONGEST_ADDRESS_BYTES: usize = 8192;

/// A parsed and checked address. Make one with [`str::parse`].
///
/// ```
/// use switchboard::Address;
///
/// let address: Address = "unix:/run/engine.sock?mode=0640".parse()?;
/// assert_eq!(address.scheme(), "unix");
/// assert_eq!(address.to_string(), "unix:/run/engine.sock?mode=0640");
/// # Ok::<(), switchboard::AddressError>(())
/// ```
#[derive(Clone)]
pub struct Address {
    text: String,
    transport: &'static Transport,
    pub(crate) target: Target,
    pub(crate) query: Query,
}

/// What the part after the scheme names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `fd:N`
    Descriptor(i32),
    /// `fifo:PATH`, `unix:PATH`
    Path(PathBuf),
    /// `unix:@NAME`
    Abstract(Vec<u8>),
    /// `mq:/NAME`
    QueueName(String),
    /// `sysv:PATH#ID`, `sysv:0xKEY`
    SysvKey(switchboard_kernel::sysv_msg::Key),
    /// `tcp:HOST:PORT`
    Host { host: String, port: u16 },
}

/// How the part after the scheme is read; a column of the table of transports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetForm {
    /// A descriptor's number.
    Descriptor,
    /// A path.
    Path,
    /// A path, or `@NAME` in the abstract namespace.
    PathOrAbstract,
    /// `/NAME`.
    QueueName,
    /// `PATH`, `PATH#ID` or `0xKEY`.
    SysvKey,
    /// `HOST:PORT`.
    HostPort,
}

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
}

impl Query {
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
    ("capacity", "BYTES", "how many bytes a created queue holds, or the size of a pipe"),
    ("type", "NUMBER", "System V message type: of what is sent, or the one to receive"),
];

impl Address {
    /// The scheme: the word before the first colon.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        self.transport.scheme
    }

    /// The transport's row in the table.
    #[must_use]
    pub fn transport(&self) -> &'static Transport {
        self.transport
    }

    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The file system path that the address names, if it names one.
    #[must_use]
    pub fn path(&self) -> Option<&std::path::Path> {
        match &self.target {
            Target::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:?})", self.text)
    }
}

/// Why a text is not an address, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    text: String,
    part: Range<usize>,
    problem: String,
}

impl AddressError {
    fn new(text: &str, part: Range<usize>, problem: impl Into<String>) -> Self {
        let end = part.end.min(text.len());
        Self { text: text.to_owned(), part: part.start.min(end)..end, problem: problem.into() }
    }

    /// The bytes of the address that are wrong.
    #[must_use]
    pub fn part(&self) -> Range<usize> {
        self.part.clone()
    }

    /// What is wrong with them, and what would be right.
    #[must_use]
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Control characters would move the marks; and a terminal must not obey an address.
        let clean = |part: &str| -> String {
            part.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
        };
        let before = clean(self.text.get(..self.part.start).unwrap_or_default());
        let wrong = clean(self.text.get(self.part.clone()).unwrap_or_default());
        let after = clean(self.text.get(self.part.end..).unwrap_or_default());
        let indent = before.chars().count();
        let marks = wrong.chars().count().max(1);
        writeln!(f, "not an address:")?;
        writeln!(f, "  {before}{wrong}{after}")?;
        write!(f, "  {:indent$}{} {}", "", "^".repeat(marks), self.problem)
    }
}

impl std::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > LONGEST_ADDRESS_BYTES {
            let shown: String = text.chars().take(60).collect();
            return Err(AddressError::new(
                &shown,
                0..shown.len(),
                format!("… is {} bytes long; at most {LONGEST_ADDRESS_BYTES}", text.len()),
            ));
        }
        if let Some(at) = text.find('\0') {
            return Err(AddressError::new(text, at..at + 1, "a name cannot hold a NUL byte"));
        }
        let Some(colon) = text.find(':') else {
            return Err(AddressError::new(
                text,
                0..text.len(),
                format!("no scheme; write it as unix:{text}, or with one of: {}", schemes()),
            ));
        };
        let scheme = &text[..colon];
        let Some(transport) = TABLE.iter().find(|row| row.scheme == scheme) else {
            return Err(AddressError::new(
                text,
                0..colon,
                format!("unknown scheme; known: {}", schemes()),
            ));
        };
        let mut start = colon + 1;
        if text[start..].starts_with("//") && transport.target != TargetForm::QueueName {
            // "unix:///run/x" is "unix:/run/x"; "mq://jobs" is "mq:/jobs" below.
            start += 2;
        } else if text[start..].starts_with("//") {
            start += 1;
        }
        let question = text[start..].find('?').map_or(text.len(), |at| start + at);
        let target = parse_target(text, start..question, transport)?;
        let mut query = Query::default();
        let mut at = question + 1;
        while at <= text.len() && question < text.len() {
            let end = text[at..].find('&').map_or(text.len(), |n| at + n);
            parse_option(text, at..end, transport, &mut query)?;
            at = end + 1;
        }
        Ok(Self { text: text.to_owned(), transport, target, query })
    }
}

/// The known schemes, for messages.
fn schemes() -> String {
    TABLE.iter().map(|row| row.scheme).collect::<Vec<_>>().join(", ")
}

fn parse_target(
    text: &str,
    part: Range<usize>,
    transport: &Transport,
) -> Result<Target, AddressError> {
    let wrong = |problem: String| AddressError::new(text, part.clone(), problem);
    let rest = &text[part.clone()];
    let scheme = transport.scheme;
    if rest.is_empty() {
        return Err(wrong(format!("nothing after the scheme; for example {}", transport.example)));
    }
    let path = |rest: &str| -> Result<PathBuf, AddressError> {
        let bytes = percent_decode(rest)
            .ok_or_else(|| wrong("a % must be followed by two hexadecimal digits".into()))?;
        if bytes.contains(&0) {
            return Err(wrong("a name cannot hold a NUL byte".into()));
        }
        Ok(PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(bytes)))
    };
    match transport.target {
        TargetForm::Descriptor => rest
            .parse::<i32>()
            .ok()
            .filter(|number| *number >= 0)
            .map(Target::Descriptor)
            .ok_or_else(|| wrong(format!("{scheme}: takes a descriptor's number, as in fd:3"))),
        TargetForm::Path => Ok(Target::Path(path(rest)?)),
        TargetForm::PathOrAbstract => match rest.strip_prefix('@') {
            Some("") => Err(wrong("an abstract name cannot be empty".into())),
            Some(name) => {
                let name = percent_decode(name)
                    .ok_or_else(|| wrong("a % must be followed by two hex digits".into()))?;
                if name.len() > 107 {
                    return Err(wrong("an abstract name is at most 107 bytes".into()));
                }
                Ok(Target::Abstract(name))
            }
            None => Ok(Target::Path(path(rest)?)),
        },
        TargetForm::QueueName => {
            let name = rest.strip_prefix('/').unwrap_or_default();
            if name.is_empty() || name.contains('/') || name.len() > 254 {
                return Err(wrong(
                    "a POSIX queue's name is a slash and 1 to 254 bytes with no further slash, as \
                     in mq:/jobs"
                        .into(),
                ));
            }
            Ok(Target::QueueName(rest.to_owned()))
        }
        TargetForm::SysvKey => parse_key(rest, path).map_err(wrong).map(Target::SysvKey),
        TargetForm::HostPort => parse_host(rest).map_err(wrong),
    }
}

fn parse_key(
    rest: &str,
    path: impl Fn(&str) -> Result<PathBuf, AddressError>,
) -> Result<switchboard_kernel::sysv_msg::Key, String> {
    use switchboard_kernel::sysv_msg::Key;
    if let Some(hex) = rest.strip_prefix("0x") {
        let key = u32::from_str_radix(hex, 16)
            .map_err(|_| "a key is 0x and up to eight hexadecimal digits".to_owned())?;
        if key == 0 {
            return Err("key 0 is IPC_PRIVATE, which nobody else could find".into());
        }
        return Ok(Key::Value(key.cast_signed()));
    }
    let (name, id) = match rest.rsplit_once('#') {
        None => (rest, 1),
        Some((name, id)) => match id.parse::<u8>() {
            Ok(id) if id > 0 => (name, id),
            _ => return Err("the number after # is 1 to 255".into()),
        },
    };
    if name.is_empty() {
        return Err("a path comes before the #".into());
    }
    Ok(Key::Path { path: path(name).map_err(|error| error.problem)?, id })
}

fn parse_host(rest: &str) -> Result<Target, String> {
    let rest = rest.trim_end_matches('/');
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed
            .split_once(']')
            .ok_or("an IPv6 address ends with ]: [::1]:7000".to_owned())?;
        (host, after.strip_prefix(':').unwrap_or_default())
    } else {
        let (host, port) =
            rest.rsplit_once(':').ok_or("no port; write HOST:PORT, as in 127.0.0.1:7000")?;
        if host.contains(':') {
            return Err("an IPv6 address stands in brackets: [::1]:7000".into());
        }
        (host, port)
    };
    let port: u16 =
        port.parse().map_err(|_| format!("{port:?} is not a port; ports are 0 to 65535"))?;
    if host.is_empty() {
        return Err("no host; write 127.0.0.1 for this machine".into());
    }
    Ok(Target::Host { host: host.to_owned(), port })
}

fn parse_option(
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

const SIZE: &str = "a size is a number of bytes, or with KiB, MiB or GiB, below 4 GiB";

/// `4096`, `64KiB`, `4MiB` in bytes.
fn size(text: &str) -> Option<u32> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(unit)?;
    u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

fn percent_decode(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    Some(decoded)
}

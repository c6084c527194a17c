//! What the part after the scheme names, and how it is read.

use std::ops::Range;
use std::path::PathBuf;

use switchboard_kernel::signal::Signal;

use super::AddressError;
use crate::transport::Transport;

/// What the part after the scheme names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `fd:N`
    Descriptor(i32),
    /// `fifo:PATH`, `unix:PATH`
    Path(PathBuf),
    /// `unix:@NAME`
    Abstract(Vec<u8>),
    /// `mq:/NAME`, `sem:/NAME`, `posix-shm:/NAME`
    QueueName(String),
    /// `signal:PID/SIGNAL`; without a process, this one
    Signal { pid: Option<u32>, signal: Signal },
    /// `sysv:PATH#ID`, `sysv:0xKEY`
    SysvKey(switchboard_kernel::sysv_msg::Key),
    /// `shm:NAME`
    Name(Vec<u8>),
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
    /// A name, which may have slashes.
    Name,
    /// `/NAME`.
    QueueName,
    /// `PATH`, `PATH#ID` or `0xKEY`.
    SysvKey,
    /// `HOST:PORT`.
    HostPort,
    /// `PID/SIGNAL` or `self/SIGNAL`.
    Signal,
}

/// Reads the part after the scheme.
pub(super) fn parse_target(
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
        TargetForm::Name => {
            use std::os::unix::ffi::OsStringExt;
            let name = path(rest)?.into_os_string().into_vec();
            if name == b"." || name == b".." {
                return Err(wrong("a name cannot be . or ..".into()));
            }
            Ok(Target::Name(name))
        }
        TargetForm::QueueName => {
            let name = rest.strip_prefix('/').unwrap_or_default();
            if name.is_empty() || name.contains('/') || name.len() > 254 {
                let problem = "a POSIX name is a slash and 1 to 254 bytes with no further slash";
                return Err(wrong(format!("{problem}, as in {}", transport.example)));
            }
            Ok(Target::QueueName(rest.to_owned()))
        }
        TargetForm::SysvKey => parse_key(rest, path).map_err(wrong).map(Target::SysvKey),
        TargetForm::HostPort => parse_host(rest).map_err(wrong),
        TargetForm::Signal => parse_signal(rest).map_err(wrong),
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

fn parse_signal(rest: &str) -> Result<Target, String> {
    let example = "as in signal:4711/SIGUSR1 or signal:self/SIGRTMIN+1";
    let (process, name) =
        rest.split_once('/').ok_or_else(|| format!("write PID/SIGNAL, {example}"))?;
    let pid = match process {
        "self" => None,
        number => match number.parse::<u32>() {
            Ok(pid) if (1..=i32::MAX.cast_unsigned()).contains(&pid) => Some(pid),
            _ => return Err(format!("a process is its number, or self, {example}")),
        },
    };
    let signal = name.parse().map_err(|_| format!("there is no signal {name:?}; {example}"))?;
    if [Signal::KILL, Signal::STOP].contains(&signal) {
        return Err(format!("{signal} cannot be waited for; kill(1) sends it"));
    }
    Ok(Target::Signal { pid, signal })
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

//! What `send` and `recv` share: the address as a format needs it, durations, tuned options.

use std::time::Duration;

use switchboard::address::TargetForm;
use switchboard::transport::{TABLE, Transport};
use switchboard::{Address, Framing, Options};

use crate::exit_code::Exit;
use crate::format::Format;
use crate::interrupt::Interrupt;
use crate::output::Failure;

/// What the messages of a command mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// A queue: each is acknowledged, or given back.
    Queue,
    /// A topic: they stay for other subscribers, whatever becomes of them here.
    Topic,
}

impl Pattern {
    /// Who sends the messages.
    pub(crate) fn sender(self) -> &'static str {
        match self {
            Self::Queue => "sender",
            Self::Topic => "publisher",
        }
    }

    /// Who gets them.
    pub(crate) fn receiver(self) -> &'static str {
        match self {
            Self::Queue => "receiver",
            Self::Topic => "subscriber",
        }
    }
}

/// The address of one end of a queue, with what the format adds to it.
///
/// # Errors
/// When it is no address, or does not fit the format.
pub(crate) fn address(text: &str, format: Format) -> Result<Address, Failure> {
    let address: Address = text.parse()?;
    let framing = option(&address, "framing");
    let streams = address.transport().framing.is_some();
    let misfit = |problem: &str, hint: &str| {
        Err(Failure::new(Exit::Usage, format!("{text}: {problem}")).hint(hint))
    };
    if format != Format::Raw {
        if streams && framing == Some("raw") {
            return misfit(
                "framing=raw keeps no messages apart",
                "add --raw to pass the bytes on as they are, or choose framing=lines or length",
            );
        }
        return Ok(address);
    }
    let row = address.transport();
    if !row.capabilities.reliable {
        let others = schemes(|other| {
            let (this, other) = (&row.capabilities, &other.capabilities);
            other.reliable && other.crosses_hosts >= this.crosses_hosts
        });
        return misfit(
            "a datagram can be lost or overtaken, and --raw bytes would be damaged unseen",
            &format!("use {others} for a stream of bytes, or send lines, where gaps are reported"),
        );
    }
    match framing {
        // Where lines are bare, bytes are as well, so that cat can be the other side.
        None if row.framing == Some(Framing::Lines) => {
            Ok(with_option(text, "framing=raw").parse()?)
        }
        Some("lines") => misfit(
            "framing=lines cannot carry --raw bytes",
            "leave out the framing, or choose framing=raw",
        ),
        _ => Ok(address),
    }
}

/// The address with one more option.
pub(crate) fn with_option(text: &str, option: &str) -> String {
    let separator = if text.contains('?') { '&' } else { '?' };
    format!("{text}{separator}{option}")
}

/// The value of an address's option, empty where it takes none.
pub(crate) fn option<'a>(address: &'a Address, name: &str) -> Option<&'a str> {
    let (_, query) = address.as_str().split_once('?')?;
    query.split('&').find_map(|option| {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        (key == name).then_some(value)
    })
}

/// Whether messages go over connections, whose other side can be seen to come and go.
pub(crate) fn connects(transport: &Transport) -> bool {
    transport.framing.is_some()
}

/// Whether a state at this address lives as long as its writer.
pub(crate) fn lives_with_writer(address: &Address) -> bool {
    let transport = address.transport();
    transport.patterns().contains(&"state") && !transport.capabilities.outlives_processes
}

/// Whether a receiving end that could be opened without waiting has its other side already.
pub(crate) fn meets_at_once(address: &Address, pattern: Pattern) -> bool {
    let is_open = address.transport().target == TargetForm::Descriptor;
    let connects = match pattern {
        Pattern::Queue => option(address, "connect").is_some(),
        Pattern::Topic => option(address, "bind").is_none(),
    };
    is_open || connects
}

/// Whether an empty message says the end of raw bytes, because nothing else can.
pub(crate) fn ends_with_empty(transport: &Transport) -> bool {
    !transport.capabilities.says_end
}

/// The schemes of the transports that can do something, as `mq:, tcp:`.
pub(crate) fn schemes(can: impl Fn(&Transport) -> bool) -> String {
    let found = TABLE.iter().filter(|row| can(row)).map(|row| format!("{}:", row.scheme));
    found.collect::<Vec<_>>().join(", ")
}

/// Messages that a receiver takes ahead of its acknowledgements: enough that neither side of a fast
/// stream of small ones waits for the other.
pub(crate) const AHEAD: u32 = 32_768;

/// Options for moving many messages fast.
pub(crate) fn options(interrupt: &Interrupt, wait: bool) -> Options {
    Options::default()
        .wait_for_peer(wait)
        .prefetch(AHEAD)
        .prefetch_bytes(8 << 20)
        .acknowledge_every(4096)
        .cancel(Some(interrupt.cancel()))
}

/// `500ms`, `2s`, `1.5`, `3m`, `1h`.
///
/// # Errors
/// What would be right.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err("write it as 500ms, 2s, 3m or 1h".into()),
    };
    let number: f64 = digits.parse().map_err(|_| "write it as 500ms, 2s, 3m or 1h".to_owned())?;
    Duration::try_from_secs_f64(number * unit).map_err(|_| "not a length of time".into())
}

/// A number of bytes: `4096`, `64KiB`, `1GiB`.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    const WRONG: &str = "write it as 4096, 64KiB, 16MiB or 1GiB";
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" | "K" | "k" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        "TiB" | "T" => 1 << 40,
        _ => return Err(WRONG.into()),
    };
    let number: u64 = digits.parse().map_err(|_| WRONG.to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "that is more than there is".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(
            (bytes("4096"), bytes("64KiB"), bytes("2G")),
            (Ok(4096), Ok(65_536), Ok(2 << 30))
        );
        for wrong in ["", "KiB", "-1", "1.5M", "1XB", "99999999999T"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("3m"), Ok(Duration::from_secs(180)));
        for wrong in ["", "s", "-1", "2 s", "2y", "1e400", "nan"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn formats_and_framings() {
        let fifo = address("fifo:/x?mode=0640", Format::Raw).expect("an address");
        assert_eq!(fifo.as_str(), "fifo:/x?mode=0640&framing=raw");
        assert!(address("udp:127.0.0.1:9", Format::Raw).is_err());
        assert!(address("tcp:127.0.0.1:9?framing=raw", Format::Lines).is_err());
        assert!(address("udp:127.0.0.1:9?framing=raw", Format::Lines).is_ok());
        assert!(address("fifo:/x?framing=lines", Format::Raw).is_err());
    }
}

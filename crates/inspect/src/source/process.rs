//! What a process is: /proc/PID/stat and status.
//!
//! Source: `proc_pid_stat(5)`, `proc_pid_status(5)`. The name in `stat` stands in parentheses and may hold
//! any byte, closing parentheses too, so the last one ends it.

use super::numbers::{decimal, field, hexadecimal, signed, small, words};
use crate::text::escaped;

/// What `stat` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The name, escaped.
    pub name: String,
    /// `R`, `S`, `D`, `T`, `Z` …
    pub state: char,
    /// The parent, or 0.
    pub parent: u32,
    /// The session, by its first process.
    pub session: u32,
    /// Its terminal's device, major and minor; zeroes for none.
    pub terminal: (u32, u32),
    /// A thread of the kernel.
    pub kernel: bool,
    /// How many threads.
    pub threads: u32,
    /// Since boot.
    pub started_ticks: u64,
    /// Where it ran last.
    pub processor: u32,
}

const PF_KTHREAD: u64 = 0x0020_0000;

/// Reads `stat`.
#[must_use]
pub fn stat(text: &[u8]) -> Option<Stat> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let name = escaped(text.get(open + 1..close)?);
    let fields: Vec<&[u8]> = words(text.get(close + 1..)?).take(50).collect();
    let number = |at: usize| fields.get(at).and_then(|word| decimal(word));
    let state = fields.first().filter(|word| word.len() == 1).map(|word| char::from(word[0]))?;
    Some(Stat {
        name,
        state: if state.is_ascii_alphabetic() { state } else { return None },
        parent: fields.get(1).and_then(|word| signed(word)).and_then(|n| u32::try_from(n).ok())?,
        session: number(3).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        terminal: number(4).map_or((0, 0), device),
        kernel: number(6)? & PF_KTHREAD != 0,
        threads: u32::try_from(number(17)?).ok()?,
        started_ticks: number(19)?,
        processor: number(36).and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
    })
}

/// A device as the kernel writes it in one number.
fn device(number: u64) -> (u32, u32) {
    let part = |bits: u64| u32::try_from(bits).unwrap_or(0);
    (part(number >> 8 & 0xfff), part(number & 0xff | number >> 12 & 0xf_ff00))
}

/// The path in `cgroup`, escaped: that of the unified hierarchy, or the longest of the others. Empty if there is none.
#[must_use]
pub fn control_group(text: &[u8]) -> String {
    let mut best: &[u8] = b"";
    for line in text.split(|&byte| byte == b'\n') {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (Some(number), Some(_), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if number == b"0" && path.len() > 1 {
            best = path;
            break;
        }
        if path.len() > best.len() {
            best = path;
        }
    }
    escaped(best)
}

/// What `status` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
    /// Its id in each PID namespace, from the reader's inwards.
    pub inner_pids: Vec<u32>,
    /// Signals with a handler, a bit each.
    pub caught_signals: u64,
    /// The thread that traces it.
    pub tracer: Option<u32>,
}

/// Reads `status`.
#[must_use]
pub fn status(text: &[u8]) -> Option<Status> {
    let effective = |name| field(text, name).and_then(|ids| small(words(ids).nth(1)?));
    Some(Status {
        uid: effective("Uid")?,
        gid: effective("Gid")?,
        inner_pids: field(text, "NSpid")
            .map_or_else(Vec::new, |ids| words(ids).take(40).map_while(small).collect()),
        caught_signals: field(text, "SigCgt").and_then(hexadecimal).unwrap_or(0),
        tracer: field(text, "TracerPid").and_then(small).filter(|&tid| tid != 0),
    })
}

/// The arguments in `cmdline`, escaped; at most some.
#[must_use]
pub fn arguments(text: &[u8]) -> Vec<String> {
    const MOST: usize = 256;
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split(|&byte| byte == 0).take(MOST).map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REST: &str = " S 1 10 10 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 3 0 777 1 1 1 1 1 1 1 1 1 0 0 0 0 0 0 17 1 0 0 0 0 0";

    #[test]
    fn a_name_can_be_anything() {
        for (name, shown) in [
            ("sh", "sh"),
            (") R 0 (", ") R 0 ("),
            ("a\nb", "a\\nb"),
            ("\x1b[0m", "\\x1b[0m"),
            ("", ""),
        ] {
            let found = stat(format!("42 ({name}){REST}").as_bytes()).expect("a process");
            assert_eq!((found.name.as_str(), found.state, found.parent), (shown, 'S', 1));
            assert_eq!((found.threads, found.started_ticks, found.processor), (3, 777, 1));
            assert!(!found.kernel);
        }
        let in_a_terminal = REST.replacen(" 10 10 0 ", " 10 10 34823 ", 1);
        let found = stat(format!("42 (sh){in_a_terminal}").as_bytes()).expect("a process");
        assert_eq!(found.terminal, (136, 7));
        for wrong in ["", "42", "42 (", "42 )(", "42 (a)", "42 (a) S", "42 (a) S x"] {
            assert_eq!(stat(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn status_and_arguments() {
        let text = b"Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nNSpid:\t40\t7\nSigCgt:\t0000000000000440\n";
        let found = status(text).expect("a status");
        assert_eq!((found.uid, found.gid, found.caught_signals), (2, 6, 0x440));
        assert_eq!(found.inner_pids, [40, 7]);
        assert_eq!(found.tracer, None);
        let traced = status(b"Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nTracerPid:\t90\n");
        assert_eq!(traced.and_then(|status| status.tracer), Some(90));
        let not = status(b"Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nTracerPid:\t0\n");
        assert_eq!(not.map(|status| status.tracer), Some(None));
        assert_eq!(status(b"Uid:\t1\n"), None);
        assert_eq!(arguments(b"a\0b c\0"), ["a", "b c"]);
        assert!(arguments(b"").is_empty());
    }
}

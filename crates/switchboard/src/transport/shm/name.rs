//! The names of `shm:`: a channel's folder, and the sockets in it.
//!
//! ```text
//! NAME         1 to 8192 bytes, none of them 0; not "." and not ".."
//! its folder   bytes of A-Z a-z 0-9 . _ - as they are, all others as %XX; over 200 bytes: as many as
//!              fit of the first 167, then ~ and 32 digits of a hash of all
//! a socket     q.s.ID  q.r.ID  t.p.ID  t.s.ID: a queue's sender and receiver, a topic's publisher and
//!              subscriber; ID is 32 hexadecimal digits
//! hidden       the same behind a dot, cut, and further digits: bound, and not yet listening
//! ```

use std::fmt;

use super::hello::{Id, Pattern, Role};

/// The longest name of a folder, in bytes; `NAME_MAX` is 255.
const LONGEST_FOLDER: usize = 200;
const HASH_DIGITS: usize = 32;

/// The name of a channel, as an address says it, and the folder where its ends meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChannelName {
    folder: String,
}

/// What the name of a folder says about its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listed {
    /// The whole name.
    Whole(Vec<u8>),
    /// A long name: how it begins.
    Begin(Vec<u8>),
}

impl ChannelName {
    /// Checks a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(name: &[u8]) -> Result<Self, String> {
        match name {
            [] => Err("no name; write shm:NAME, as in shm:engine/temperature".into()),
            b"." | b".." => Err("a name cannot be . or ..".into()),
            _ if name.contains(&0) => Err("a name cannot hold a NUL byte".into()),
            _ => Ok(Self { folder: folder_of(name) }),
        }
    }

    /// The folder, one component of a path.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }
}

fn folder_of(name: &[u8]) -> String {
    let encoded: Vec<String> = name.iter().map(|byte| encode(*byte)).collect();
    let whole = encoded.concat();
    if whole.len() <= LONGEST_FOLDER {
        return whole;
    }
    let mut cut = String::with_capacity(LONGEST_FOLDER);
    for byte in &encoded {
        if cut.len() + byte.len() + 1 + HASH_DIGITS > LONGEST_FOLDER {
            break;
        }
        cut.push_str(byte);
    }
    format!("{cut}~{:032x}", hash(name))
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-".contains(&byte)
}

fn encode(byte: u8) -> String {
    if is_plain(byte) { char::from(byte).into() } else { format!("%{byte:02X}") }
}

/// FNV-1a of 128 bits: <http://www.isthe.com/chongo/tech/comp/fnv/>. Names are their user's own, so it
/// keeps apart what differs by chance, not by intent.
fn hash(bytes: &[u8]) -> u128 {
    bytes.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b)
    })
}

/// The channel of a folder, for whoever lists them; none for a folder that no channel has.
pub(crate) fn channel_of(folder: &str) -> Option<Listed> {
    let (text, cut) = match folder.rsplit_once('~') {
        Some((text, digits)) => (text, Some(digits)),
        None => (folder, None),
    };
    let name = decode(text)?;
    match cut {
        None => (ChannelName::new(&name).ok()?.folder == folder).then_some(Listed::Whole(name)),
        Some(digits) => {
            let is_cut = text.len() + 1 + HASH_DIGITS > LONGEST_FOLDER - "%XX".len();
            (is_cut && folder.len() <= LONGEST_FOLDER && number(digits).is_some())
                .then_some(Listed::Begin(name))
        }
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
            name.push(u8::try_from(high * 16 + low).ok()?);
        } else if is_plain(byte) {
            name.push(byte);
        } else {
            return None;
        }
    }
    Some(name)
}

/// The socket of one endpoint in a channel's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) pattern: Pattern,
    pub(crate) role: Role,
    pub(crate) id: Id,
}

/// What a name in a channel's folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// An endpoint's socket.
    Visible(Entry),
    /// An endpoint's socket before it listens, or one that is being removed.
    Hidden,
}

impl Entry {
    /// What a name is; none if it is none of ours.
    pub(crate) fn parse(name: &str) -> Option<Found> {
        if let Some(hidden) = name.strip_prefix('.') {
            return ends(hidden).map(|_| Found::Hidden);
        }
        let (pattern, role, id) = ends(name)?;
        Some(Found::Visible(Self { pattern, role, id: Id(number(id)?.to_be_bytes()) }))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", prefix(self.pattern, self.role), self.id)
    }
}

const PREFIXES: [(&str, Pattern, Role); 12] = [
    ("q.s.", Pattern::Queue, Role::Writer),
    ("q.r.", Pattern::Queue, Role::Reader),
    ("t.p.", Pattern::Topic, Role::Writer),
    ("t.s.", Pattern::Topic, Role::Reader),
    ("s.c.", Pattern::Service, Role::Writer),
    ("s.s.", Pattern::Service, Role::Reader),
    ("e.n.", Pattern::Event, Role::Writer),
    ("e.l.", Pattern::Event, Role::Reader),
    ("v.w.", Pattern::State, Role::Writer),
    ("v.r.", Pattern::State, Role::Reader),
    ("a.s.", Pattern::Answers, Role::Writer),
    ("a.c.", Pattern::Answers, Role::Reader),
];

fn prefix(pattern: Pattern, role: Role) -> &'static str {
    match (pattern, role) {
        (Pattern::Queue, Role::Writer) => "q.s.",
        (Pattern::Queue, Role::Reader) => "q.r.",
        (Pattern::Topic, Role::Writer) => "t.p.",
        (Pattern::Topic, Role::Reader) => "t.s.",
        (Pattern::Service, Role::Writer) => "s.c.",
        (Pattern::Service, Role::Reader) => "s.s.",
        (Pattern::Event, Role::Writer) => "e.n.",
        (Pattern::Event, Role::Reader) => "e.l.",
        (Pattern::State, Role::Writer) => "v.w.",
        (Pattern::State, Role::Reader) => "v.r.",
        (Pattern::Answers, Role::Writer) => "a.s.",
        (Pattern::Answers, Role::Reader) => "a.c.",
    }
}

fn ends(name: &str) -> Option<(Pattern, Role, &str)> {
    PREFIXES.iter().find_map(|(prefix, pattern, role)| {
        name.strip_prefix(prefix).map(|rest| (*pattern, *role, rest))
    })
}

/// 32 hexadecimal digits, in lower case.
fn number(digits: &str) -> Option<u128> {
    let fits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (digits.len() == HASH_DIGITS && digits.bytes().all(fits))
        .then(|| u128::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_become_one_component() {
        let check = |name: &str, folder: &str| {
            assert_eq!(ChannelName::new(name.as_bytes()).unwrap().folder(), folder, "{name:?}");
        };
        check("engine", "engine");
        check("engine/temperature", "engine%2Ftemperature");
        check("../x", "..%2Fx");
        check("/", "%2F");
        check("...", "...");
        check("a b%~", "a%20b%25%7E");
        check("ü", "%C3%BC");
        check(&"x".repeat(200), &"x".repeat(200));
    }

    #[test]
    fn some_names_are_refused() {
        let check = |name: &[u8], problem: &str| {
            let error = ChannelName::new(name).unwrap_err();
            assert!(error.contains(problem), "{name:?}: {error}");
        };
        check(b"", "no name");
        check(b".", "cannot be . or ..");
        check(b"..", "cannot be . or ..");
        check(b"a\0b", "NUL");
    }

    #[test]
    fn long_names_keep_their_begin_and_differ() {
        let one = "/".repeat(300);
        let folder = ChannelName::new(one.as_bytes()).unwrap().folder;
        assert!(folder.len() <= LONGEST_FOLDER && folder.starts_with("%2F%2F"), "{folder}");
        assert_eq!(channel_of(&folder), Some(Listed::Begin(vec![b'/'; 55])));
        let other = ChannelName::new("/".repeat(301).as_bytes()).unwrap().folder;
        assert_ne!(folder, other);
        assert_eq!(hash(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(hash(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }

    #[test]
    fn foreign_folders_are_no_channels() {
        for folder in ["", ".", "..", "a/b", "a b", "%2f", "%", "%4", "%zz", "%41", "x~", "x~12"] {
            assert_eq!(channel_of(folder), None, "{folder:?}");
        }
    }

    #[test]
    fn sockets_have_names() {
        let entry = Entry { pattern: Pattern::Topic, role: Role::Reader, id: Id([0xa5; 16]) };
        let name = entry.to_string();
        assert_eq!(name, format!("t.s.{}", "a5".repeat(16)));
        assert_eq!(Entry::parse(&name), Some(Found::Visible(entry)));
        assert_eq!(
            Entry::parse(&format!(".{}.0123456789abcdef", &name[..32])),
            Some(Found::Hidden)
        );
        let upper = format!("t.s.{}", "A5".repeat(16));
        for foreign in ["", ".", ".x", "t.s.", "x.s.", "lock", "t.s.+5", &upper, &name[..35]] {
            assert_eq!(Entry::parse(foreign), None, "{foreign:?}");
        }
    }

    proptest! {
        #[test]
        fn names_come_back(name in proptest::collection::vec(1_u8..=255, 1..400)) {
            prop_assume!(name != b"." && name != b"..");
            let folder = ChannelName::new(&name).unwrap().folder;
            prop_assert!(folder.len() <= LONGEST_FOLDER);
            match channel_of(&folder) {
                Some(Listed::Whole(whole)) => prop_assert_eq!(whole, name),
                Some(Listed::Begin(begin)) => prop_assert!(name.starts_with(&begin)),
                None => prop_assert!(false, "{} is no channel", folder),
            }
        }

        #[test]
        fn any_folder_is_looked_at(folder in ".{0,250}") {
            if let Some(Listed::Whole(name)) = channel_of(&folder) {
                prop_assert_eq!(ChannelName::new(&name).unwrap().folder, folder);
            }
        }
    }
}

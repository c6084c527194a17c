//! What to watch for, and what was seen.
//!
//! Source: `inotify(7)`.

use core::fmt;
use core::ops::BitOr;

/// Some kinds of events, and ways to watch.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mask(u32);

impl Mask {
    /// None.
    pub const EMPTY: Self = Self(0);
    /// `IN_ACCESS`: read, or executed.
    pub const ACCESS: Self = Self(libc::IN_ACCESS);
    /// `IN_MODIFY`: written or truncated.
    pub const MODIFY: Self = Self(libc::IN_MODIFY);
    /// `IN_ATTRIB`: owner, mode, times or the number of names changed.
    pub const ATTRIBUTES: Self = Self(libc::IN_ATTRIB);
    /// `IN_CLOSE_WRITE`: closed, after having been open for writing. Also when the writer died.
    pub const CLOSE_WRITE: Self = Self(libc::IN_CLOSE_WRITE);
    /// `IN_CLOSE_NOWRITE`: closed, without having been open for writing.
    pub const CLOSE_NO_WRITE: Self = Self(libc::IN_CLOSE_NOWRITE);
    /// `IN_OPEN`: opened.
    pub const OPEN: Self = Self(libc::IN_OPEN);
    /// `IN_MOVED_FROM`: a name in the folder was moved away; the cookie is that of where to.
    pub const MOVED_FROM: Self = Self(libc::IN_MOVED_FROM);
    /// `IN_MOVED_TO`: a name was moved into the folder; the cookie is that of where from.
    pub const MOVED_TO: Self = Self(libc::IN_MOVED_TO);
    /// `IN_CREATE`: a name was made in the folder.
    pub const CREATE: Self = Self(libc::IN_CREATE);
    /// `IN_DELETE`: a name in the folder was removed.
    pub const DELETE: Self = Self(libc::IN_DELETE);
    /// `IN_DELETE_SELF`: the watched file itself is gone: no name, and nobody has it open.
    pub const DELETE_SELF: Self = Self(libc::IN_DELETE_SELF);
    /// `IN_MOVE_SELF`: the watched file itself was renamed. It goes on being watched.
    pub const MOVE_SELF: Self = Self(libc::IN_MOVE_SELF);
    /// All of these.
    pub const ALL: Self = Self(libc::IN_ALL_EVENTS);

    /// `IN_ONLYDIR`, a way to watch: refuse what is no folder.
    pub const ONLY_FOLDER: Self = Self(libc::IN_ONLYDIR);
    /// `IN_DONT_FOLLOW`, a way to watch: a symbolic link itself, not where it leads.
    pub const NO_FOLLOW: Self = Self(libc::IN_DONT_FOLLOW);
    /// `IN_EXCL_UNLINK`, a way to watch: no events of files in the folder that have lost their name.
    pub const NOT_UNLINKED: Self = Self(libc::IN_EXCL_UNLINK);
    /// `IN_ONESHOT`, a way to watch: for one event, then the watch is removed.
    pub const ONCE: Self = Self(libc::IN_ONESHOT);

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in it and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The kernel's bits.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    pub(super) const fn has_events(self) -> bool {
        self.0 & libc::IN_ALL_EVENTS != 0
    }

    /// The kinds of events in what the kernel reported.
    pub(super) const fn of_event(bits: u32) -> Self {
        Self(bits & libc::IN_ALL_EVENTS)
    }
}

impl BitOr for Mask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `CREATE | DELETE`.
impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = NAMES.iter().filter(|(mask, _)| self.contains(*mask));
        let mut separator = "";
        for (_, name) in names {
            write!(f, "{separator}{name}")?;
            separator = " | ";
        }
        if separator.is_empty() { f.write_str("EMPTY") } else { Ok(()) }
    }
}

const NAMES: &[(Mask, &str)] = &[
    (Mask::ACCESS, "ACCESS"),
    (Mask::MODIFY, "MODIFY"),
    (Mask::ATTRIBUTES, "ATTRIBUTES"),
    (Mask::CLOSE_WRITE, "CLOSE_WRITE"),
    (Mask::CLOSE_NO_WRITE, "CLOSE_NO_WRITE"),
    (Mask::OPEN, "OPEN"),
    (Mask::MOVED_FROM, "MOVED_FROM"),
    (Mask::MOVED_TO, "MOVED_TO"),
    (Mask::CREATE, "CREATE"),
    (Mask::DELETE, "DELETE"),
    (Mask::DELETE_SELF, "DELETE_SELF"),
    (Mask::MOVE_SELF, "MOVE_SELF"),
    (Mask::ONLY_FOLDER, "ONLY_FOLDER"),
    (Mask::NO_FOLLOW, "NO_FOLLOW"),
    (Mask::NOT_UNLINKED, "NOT_UNLINKED"),
    (Mask::ONCE, "ONCE"),
];

//! Which seals a memory file has.
//!
//! Source: `fcntl(2)` ("File sealing").

use core::fmt;
use core::ops::BitOr;

use rustix::fs::SealFlags;

/// A set of seals: what nobody can do any more, for as long as the memory exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seals(SealFlags);

impl Seals {
    /// None.
    pub const NONE: Self = Self(SealFlags::empty());
    /// `F_SEAL_SHRINK`: it cannot get shorter, so that no access meets a missing page.
    pub const SHRINK: Self = Self(SealFlags::SHRINK);
    /// `F_SEAL_GROW`: it cannot get longer.
    pub const GROW: Self = Self(SealFlags::GROW);
    /// `F_SEAL_WRITE`: its content cannot change. Refused while somebody has it mapped shared and
    /// writable.
    pub const WRITE: Self = Self(SealFlags::WRITE);
    /// `F_SEAL_FUTURE_WRITE`: only writable mappings that are there already can change it. So one
    /// process writes, and nobody else can begin to.
    pub const FUTURE_WRITE: Self = Self(SealFlags::FUTURE_WRITE);
    /// `F_SEAL_SEAL`: no seal can be added.
    pub const SEAL: Self = Self(SealFlags::SEAL);
    /// `F_SEAL_EXEC`: it cannot be made executable. There from the start since Linux 6.3.
    pub const EXEC: Self = Self(SealFlags::EXEC);

    /// Whether all of these are in the set.
    #[must_use]
    pub fn contains(self, others: Self) -> bool {
        self.0.contains(others.0)
    }

    pub(super) fn flags(self) -> SealFlags {
        self.0
    }

    pub(crate) fn from_flags(flags: SealFlags) -> Self {
        Self(flags)
    }
}

impl BitOr for Seals {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `Seals(SHRINK | GROW)`.
impl fmt::Debug for Seals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            NAMES.iter().filter(|(seal, _)| self.contains(*seal)).map(|(_, name)| *name).collect();
        write!(f, "Seals({})", names.join(" | "))
    }
}

const NAMES: &[(Seals, &str)] = &[
    (Seals::SHRINK, "SHRINK"),
    (Seals::GROW, "GROW"),
    (Seals::WRITE, "WRITE"),
    (Seals::FUTURE_WRITE, "FUTURE_WRITE"),
    (Seals::SEAL, "SEAL"),
    (Seals::EXEC, "EXEC"),
];

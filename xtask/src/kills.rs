//! What the kill harness did: how often it killed a process, at how many boundaries.
//!
//! Source: `switchboard_testkit::killstep`, which writes a line per operation: killed, boundaries, text.

use std::fmt;

/// One operation; or many, added up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Kills {
    pub(crate) killed: u64,
    /// 0: this only says how far it is.
    pub(crate) boundaries: u64,
    pub(crate) text: String,
}

impl Kills {
    /// None: another kind of line.
    pub(crate) fn read(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, '\t');
        let mut number = || fields.next()?.parse().ok();
        let (killed, boundaries) = (number()?, number()?);
        Some(Self { killed, boundaries, text: fields.next()?.to_owned() })
    }

    /// Whether it is a result.
    pub(crate) fn is_result(&self) -> bool {
        self.boundaries > 0
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Total {
    operations: usize,
    killed: u64,
    boundaries: u64,
}

impl Total {
    pub(crate) fn add(&mut self, kills: &Kills) {
        self.operations += usize::from(kills.is_result());
        self.killed += kills.killed;
        self.boundaries += kills.boundaries;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operations == 0
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, killed, boundaries } = self;
        write!(f, "{killed} kills and stops at {boundaries} boundaries of {operations} operations")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_added() {
        let mut total = Total::default();
        assert!(total.is_empty());
        for line in ["7\t788\tlock: killed at 7 of 788", "0\t0\tlock: so far", "5\t100\tx\ty"] {
            total.add(&Kills::read(line).expect(line));
        }
        assert_eq!(total.to_string(), "12 kills and stops at 888 boundaries of 2 operations");
        for wrong in ["", "7", "7\t788", "seven\t8\tx"] {
            assert_eq!(Kills::read(wrong), None, "{wrong}");
        }
    }
}

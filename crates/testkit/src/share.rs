//! A part of a long series.
//!
//! `cargo xtask test` runs all tests twice as root: as root, and as an ordinary user. What a process leaves where it
//! is killed does not depend on who runs it, so the two runs divide the longest series of kills between them.

use std::sync::OnceLock;

/// In the environment: which part of each series is run, and of how many, as `0/2`. Without it all is.
pub const VARIABLE: &str = "SWITCHBOARD_SHARE";

/// Whether this run has the step of this number in a series.
#[must_use]
pub fn is_mine(number: usize) -> bool {
    let (part, parts) = part();
    number % parts == part
}

/// Whether this run has all of each series.
#[must_use]
pub fn is_whole() -> bool {
    part().1 == 1
}

fn part() -> (usize, usize) {
    static PART: OnceLock<(usize, usize)> = OnceLock::new();
    *PART.get_or_init(|| parse(&std::env::var(VARIABLE).unwrap_or_default()).unwrap_or((0, 1)))
}

fn parse(text: &str) -> Option<(usize, usize)> {
    let (part, parts) = text.split_once('/')?;
    let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
    (part < parts).then_some((part, parts))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_no_part_is_all() {
        assert_eq!(parse("1/2"), Some((1, 2)));
        for text in ["", "2/2", "1", "a/b", "0/0", "-1/2"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

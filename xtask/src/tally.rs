//! What passed, failed and was skipped, and the line that says so.

use std::collections::BTreeSet;
use std::process::ExitCode;

use crate::show;

/// Counts of a whole run.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
    failures: Vec<String>,
}

impl Tally {
    /// One check that passed.
    pub(crate) fn pass(&mut self, what: &str) {
        self.passed += 1;
        show::good(what);
    }

    /// One check that failed, and why.
    pub(crate) fn fail(&mut self, what: &str, why: &str) {
        self.failed += 1;
        self.failures.push(what.to_owned());
        show::bad(what);
        for line in why.trim_end().lines() {
            println!("        {line}");
        }
    }

    /// Tests of an executable, already shown.
    pub(crate) fn add(&mut self, passed: usize, failed: usize, what: &str) {
        self.passed += passed;
        self.failed += failed;
        if failed > 0 {
            self.failures.push(what.to_owned());
        }
    }

    /// One test or check that did not run, and why.
    pub(crate) fn skip(&mut self, what_and_why: String) {
        self.skipped.push(what_and_why);
    }

    /// Whether nothing ran at all; skips do not count as running.
    pub(crate) fn is_empty(&self) -> bool {
        self.passed + self.failed == 0
    }

    /// Whether anything did not run.
    pub(crate) fn has_skipped(&self) -> bool {
        !self.skipped.is_empty()
    }

    /// Says how it went; the last line is the counts.
    pub(crate) fn finish(mut self, ci: bool) -> ExitCode {
        if self.is_empty() {
            self.fail("tests", "none ran");
        }
        if !self.skipped.is_empty() {
            println!("\nSkipped{}:", if ci { " (with CI=true, nothing may be)" } else { "" });
            for skip in &self.skipped {
                println!("    {skip}");
            }
        }
        if !self.failures.is_empty() {
            println!("\nFailed:");
            for failure in self.failures.iter().collect::<BTreeSet<_>>() {
                println!("    {failure}");
            }
        }
        println!("\n{}", self.line());
        if self.succeeded(ci) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn succeeded(&self, ci: bool) -> bool {
        let skips_allowed = !ci;
        self.failed == 0 && (skips_allowed || self.skipped.is_empty())
    }

    fn line(&self) -> String {
        format!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_judges() {
        let mut tally = Tally::default();
        assert!(tally.is_empty());
        tally.add(3, 0, "a");
        assert_eq!(tally.line(), "3 passed, 0 failed, 0 skipped");
        assert!(tally.succeeded(true));
        tally.skip("b: no root".to_owned());
        assert_eq!(tally.line(), "3 passed, 0 failed, 1 skipped");
        assert!(tally.succeeded(false));
        assert!(!tally.succeeded(true), "CI skips nothing");
        tally.add(1, 2, "c");
        assert_eq!(tally.line(), "4 passed, 2 failed, 1 skipped");
        assert!(!tally.succeeded(false));
        assert_eq!(tally.failures, ["c"]);
    }

    #[test]
    fn a_run_without_tests_fails() {
        assert_eq!(
            format!("{:?}", Tally::default().finish(false)),
            format!("{:?}", ExitCode::FAILURE)
        );
    }
}

//! What a test executable said: counts, and the names of the tests that did not run.
//!
//! Source: the output of libtest (`cargo test`), "test NAME ... ok" and "test result: …".

/// One executable's result.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Names, with the reason where one is given.
    pub(crate) ignored: Vec<String>,
}

/// The test that is only the door for child processes (see the testkit crate): it tests nothing in
/// an ordinary run, so it does not count.
const DOOR: &str = "child_process";

/// Reads the output; none when it holds no result, as that of a crashed executable.
pub(crate) fn read(output: &str) -> Option<Report> {
    let result = output.lines().rev().find(|line| line.starts_with("test result: "))?;
    let mut report = Report {
        passed: count(result, "passed")?,
        failed: count(result, "failed")?,
        ignored: ignored(output),
    };
    // A name may be lost where another process wrote into its line.
    let lost = count(result, "ignored")?.saturating_sub(report.ignored.len());
    report.ignored.extend((0..lost).map(|_| "a test: ignored".to_owned()));
    if passed_tests(output).any(|name| leaf(name) == DOOR) {
        report.passed = report.passed.saturating_sub(1);
    }
    Some(report)
}

/// Takes tests that recorded a skip out of those that passed. A skip is `TEST: REASON`.
///
/// Only where TEST is the whole name of a passed test, or its end: a test may also skip one of many
/// cases, under a name of the case, and has passed all the same.
pub(crate) fn without_skipped(report: &mut Report, output: &str, skips: &[String]) {
    let skipped = passed_tests(output)
        .filter(|name| {
            skips.iter().any(|skip| {
                let test = skip.split(": ").next().unwrap_or_default();
                *name == test || name.ends_with(&format!("::{test}"))
            })
        })
        .count();
    report.passed = report.passed.saturating_sub(skipped);
}

/// The tests that did not run, with the reason where one is given.
pub(crate) fn ignored(output: &str) -> Vec<String> {
    let tests = lines(output).filter(|(_, outcome)| outcome.starts_with("ignored"));
    tests.map(|(name, outcome)| format!("{name}: {outcome}")).collect()
}

/// How many tests passed in all the results of an output, as `cargo test --doc` gives for a
/// workspace.
pub(crate) fn total_passed(output: &str) -> usize {
    let results = output.lines().filter(|line| line.starts_with("test result: "));
    results.filter_map(|result| count(result, "passed")).sum()
}

fn passed_tests(output: &str) -> impl Iterator<Item = &str> {
    lines(output).filter(|(_, outcome)| *outcome == "ok").map(|(name, _)| name)
}

/// Name and outcome of each line that tells of a test.
fn lines(output: &str) -> impl Iterator<Item = (&str, &str)> {
    output.lines().filter_map(|line| {
        let (name, outcome) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        Some((name.trim_end_matches(" - should panic"), outcome))
    })
}

fn leaf(name: &str) -> &str {
    name.rsplit("::").next().unwrap_or(name)
}

/// The number before `word`: "test result: ok. 3 passed; 0 failed; …".
fn count(result: &str, word: &str) -> Option<usize> {
    result
        .split(['.', ';', ' '])
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .windows(2)
        .find_map(|pair| (pair[1] == word).then(|| pair[0].parse().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 5 tests
test child_process ... ok
test fifo::order ... ok
test fifo::slow ... ignored, takes an hour
test mq::limit - should panic ... ok
test mq::death ... FAILED

test result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s
";

    #[test]
    fn reads_counts() {
        let report = read(OUTPUT).expect("a report");
        let ignored = vec!["fifo::slow: ignored, takes an hour".to_owned()];
        assert_eq!(report, Report { passed: 2, failed: 1, ignored });
    }

    #[test]
    fn a_crash_has_no_result() {
        assert_eq!(read("running 5 tests\ntest a ... ok\n"), None);
        assert_eq!(read("test result: ok. many passed; 0 failed; 0 ignored"), None);
    }

    #[test]
    fn sums_several_results() {
        assert_eq!(total_passed(&OUTPUT.repeat(3)), 9);
        assert_eq!(ignored(&OUTPUT.repeat(2)).len(), 2);
    }

    #[test]
    fn a_lost_name_still_counts() {
        let report =
            read("test result: ok. 0 passed; 0 failed; 2 ignored; 0 measured").expect("a report");
        assert_eq!(report.ignored.len(), 2);
    }

    #[test]
    fn skipped_tests_did_not_pass() {
        for (skip, passed) in [
            ("fifo::order: no nc", 1),
            ("order: no nc", 1),
            ("mq::limit: not root", 1),
            ("der: no nc", 2),
            ("conformance of sysv: no python", 2),
        ] {
            let mut report = read(OUTPUT).expect("a report");
            without_skipped(&mut report, OUTPUT, &[skip.to_owned()]);
            assert_eq!(report.passed, passed, "{skip}");
        }
    }
}

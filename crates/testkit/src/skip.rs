//! Skips that are counted. `cargo xtask test` names a file in `SWITCHBOARD_SKIPS`; each skipped test
//! adds its line there. With `CI=true` a skip is a failure.

use std::io::Write;

/// Records that a test cannot run here, and why. The test returns right after.
///
/// # Panics
/// With `CI=true` in the environment: there, nothing may be skipped.
#[allow(clippy::print_stderr)]
pub fn skip(test: &str, reason: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{test}: skipped ({reason}), which CI does not allow"
    );
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("SWITCHBOARD_SKIPS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        if let Ok(mut file) = file {
            let _ = writeln!(file, "{test}: {reason}");
        }
    }
}

/// Says something to whoever reads the test's output.
#[allow(clippy::print_stderr)]
pub fn say(text: &str) {
    eprintln!("{text}");
}

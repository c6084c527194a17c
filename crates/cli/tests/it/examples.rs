//! The examples: each script of `examples/` runs as it stands and prints what it says.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::run::binary;

fn examples() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo");
    Path::new(&here).join("../../examples")
}

#[test]
fn every_example_prints_one_and_two() {
    let binary = PathBuf::from(binary());
    let folder = binary.parent().expect("the binary's folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut count = 0;
    for entry in std::fs::read_dir(examples()).expect("the examples").flatten() {
        let script = entry.path();
        if script.extension().is_none_or(|extension| extension != "sh") {
            continue;
        }
        count += 1;
        // `timeout` ends an example that hangs, and its children with it.
        let output = Command::new("timeout")
            .args(["30", "sh"])
            .arg(&script)
            .env("PATH", format!("{}:{path}", folder.display()))
            .output()
            .expect("timeout(1) and sh(1)");
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {complained}", script.display());
        assert_eq!(said, "one\ntwo\n", "{}: {complained}", script.display());
    }
    assert!(count >= 15, "an example per transport; {count} were found");
}

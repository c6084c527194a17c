//! Builds the C sides of the comparisons as executables of their own.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=c");
    build("peer", "PEER_C");
    build("locks", "LOCKS_C");
    build("inspect", "INSPECT_C");
}

fn build(name: &str, variable: &str) {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let out = out.join(format!("{name}-c"));
    let compiler = cc::Build::new().opt_level(2).warnings(true).extra_warnings(true).get_compiler();
    let status = compiler
        .to_command()
        // GCC 12 would copy 64 bytes by rep movsq, which takes five times as long as the call.
        .args(["-std=gnu11", "-fno-builtin-memcpy", "-o"])
        .arg(&out)
        .args([&format!("c/{name}.c"), "-lrt", "-pthread"])
        .status()
        .expect("the C compiler runs");
    assert!(status.success(), "the C compiler failed: {status}");
    println!("cargo::rustc-env={variable}={}", out.display());
}

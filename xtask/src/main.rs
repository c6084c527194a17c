//! Repository tasks: `cargo xtask test`, `tidy`, `ci`.
fn main() {}

//! The library, between real processes.

#![forbid(unsafe_code)]

mod conformance;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] =
    &[("receiver", conformance::receiver), ("sender", conformance::sender)];

#[test]
fn child_process() {
    enter(ROLES);
}

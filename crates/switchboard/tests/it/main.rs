//! The library, between real processes.

#![forbid(unsafe_code)]

mod conformance;
#[cfg(feature = "tokio")]
mod tokio;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    ("receiver", conformance::ends::receiver),
    ("sender", conformance::ends::sender),
];

#[test]
fn child_process() {
    enter(ROLES);
}

//! The library, between real processes.

#![forbid(unsafe_code)]

mod conformance;
#[cfg(feature = "tokio")]
mod tasks;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    #[cfg(feature = "tokio")]
    ("async-receiver", tasks::receiver),
    #[cfg(feature = "tokio")]
    ("async-sender", tasks::sender),
    ("receiver", conformance::ends::receiver),
    ("sender", conformance::ends::sender),
];

#[test]
fn child_process() {
    enter(ROLES);
}

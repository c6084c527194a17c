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
    ("lossy-proxy", conformance::udp::lossy_proxy),
    ("receiver", conformance::ends::receiver),
    ("sender", conformance::ends::sender),
    ("stranger", conformance::permissions::stranger),
    ("strict-receiver", conformance::permissions::strict_receiver),
];

#[test]
fn child_process() {
    enter(ROLES);
}

//! The library, between real processes.

#![forbid(unsafe_code)]

mod address;
mod conformance;
mod message;
#[cfg(feature = "tokio")]
mod tasks;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    #[cfg(feature = "tokio")]
    ("async-receiver", tasks::receiver),
    #[cfg(feature = "tokio")]
    ("async-sender", tasks::sender),
    #[cfg(feature = "tokio")]
    ("tasks-of-one-thread", tasks::one_thread),
    ("crowd", conformance::crowds::crowd),
    ("full-file-system", conformance::limits::full_file_system),
    ("json-receiver", conformance::ends::json_receiver),
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

//! The inspector, looking at real processes. One module per subject.

#![forbid(unsafe_code)]

mod agreement;
mod analysis;
mod containers;
mod fuzz;
mod gallery;
mod graph;
mod hostile;
mod leaks;
mod leases;
mod left;
mod objects;
mod recorded;
mod watch;
mod whole_machine;
mod world;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] =
    &[("gallery", switchboard_testkit::gallery::role), ("objects-holder", objects::holder)];

#[test]
fn child_process() {
    enter(ROLES);
}

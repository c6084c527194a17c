//! Removing and restoring, between real processes.

#![forbid(unsafe_code)]

mod files;
mod interrupted;
mod journal;
mod owners;
mod queues;
mod rings;
mod stage;
mod system_v;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    ("clean-holder", stage::holder),
    ("clean-ring", rings::holder),
    ("clean-interrupted", interrupted::interrupted),
    ("clean-as-another", owners::remover),
];

#[test]
fn child_process() {
    enter(ROLES);
}

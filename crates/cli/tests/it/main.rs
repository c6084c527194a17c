//! The command, between real processes. One module per subject; `run` starts and watches the binary.

#![forbid(unsafe_code)]

mod channels;
mod cleaning;
mod closed_output;
mod command;
mod demo;
mod errors;
mod events;
mod examples;
mod formats;
mod help;
mod interrupted;
mod leaks;
mod limits;
mod live_topics;
mod lock;
mod logs;
mod map;
mod objects;
mod pages;
mod peeking;
mod run;
mod seeing;
mod send_recv;
mod services;
mod snapshots;
mod states;
mod terminals;
mod top;
mod topics;
mod waiting;
mod web;
mod world;

/// Children of these tests that are not the command: situations of the gallery.
#[test]
fn child_process() {
    let mut roles: Vec<(&str, switchboard_testkit::child::Role)> =
        vec![("crowd", top::cost::crowd), ("gallery", switchboard_testkit::gallery::role)];
    roles.extend(cleaning::ROLES);
    switchboard_testkit::child::enter(&roles);
}

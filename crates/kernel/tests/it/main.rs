//! Every mechanism, between real processes. One module per source file.

#![deny(unsafe_code)]

use switchboard_testkit::child::{self, Role};

mod fifo;
mod hand_over;
mod pipe;
mod tcp;
mod udp;
mod unix_socket;

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    ("fifo-creator", fifo::creator),
    ("fifo-opener", fifo::opener),
    ("fifo-reader", fifo::reader),
    ("fifo-writer", fifo::writer),
    ("hand-over-holder", hand_over::holder),
    ("hand-over-writer", hand_over::writer),
    ("pipe-out-of-descriptors", pipe::out_of_descriptors),
    ("pipe-unprivileged", pipe::unprivileged),
    ("pipe-writer", pipe::writer),
    ("tcp-interrupted", tcp::interrupted),
    ("tcp-peer", tcp::peer),
    ("udp-member", udp::member),
    ("unix-binder", unix_socket::names::binder),
    ("unix-copied-peer", unix_socket::copied_peer),
    ("unix-listener", unix_socket::names::listener),
    ("unix-many-listeners", unix_socket::names::many_listeners),
    ("unix-out-of-descriptors", unix_socket::descriptors::out_of_descriptors),
    ("unix-pair-user", unix_socket::pair_user),
    ("unix-peer", unix_socket::peer),
];

#[test]
fn child_process() {
    child::enter(ROLES);
}

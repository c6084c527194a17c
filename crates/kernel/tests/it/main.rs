//! Every mechanism, between real processes. One module per source file.

#![deny(unsafe_code)]

mod c_program;
mod epoll;
mod eventfd;
mod fifo;
mod file_lock;
mod hand_over;
mod inotify;
mod mechanism;
mod pidfd;
mod pipe;
mod posix_mq;
mod privileges;
mod process;
mod python;
mod signal;
mod signalfd;
mod sysv_msg;
mod tcp;
mod timerfd;
mod udp;
mod unix_socket;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    ("fifo-creator", fifo::creator),
    ("fifo-opener", fifo::opener),
    ("fifo-reader", fifo::reader),
    ("fifo-writer", fifo::writer),
    ("file-locker", file_lock::locker),
    ("hand-over-holder", hand_over::holder),
    ("hand-over-writer", hand_over::writer),
    ("inotify-limits", inotify::limits_role),
    ("inotify-stranger", inotify::stranger),
    ("inotify-watcher", inotify::watcher),
    ("inotify-writer", inotify::writer),
    ("mq_creator", posix_mq::creator),
    ("mq_limits", posix_mq::limits_role),
    ("mq_modes", posix_mq::modes),
    ("mq_notified", posix_mq::notified),
    ("mq_patient", posix_mq::patient),
    ("mq_queues_max", posix_mq::queues_max),
    ("mq_receiver", posix_mq::receiver),
    ("mq_sender", posix_mq::sender),
    ("pipe-out-of-descriptors", pipe::out_of_descriptors),
    ("pipe-unprivileged", pipe::unprivileged),
    ("pipe-writer", pipe::writer),
    ("process_comm", process::comm),
    ("process_file_limit", process::file_limit_role),
    ("process_parent", process::parent),
    ("process_waiter", process::waiter),
    ("signal-distrustful", signal::distrustful),
    ("signal-interrupted", signal::interrupted),
    ("signal-parent", signal::parent),
    ("signal-recorder", signal::recorder),
    ("signal-restorer", signal::restorer),
    ("signal-sender", signal::sender),
    ("signal-stranger", signal::stranger),
    ("signal-taker", signal::taker),
    ("signal-waker", signal::waker),
    ("signalfd-copy", signalfd::copy),
    ("signalfd-out-of-descriptors", signalfd::out_of_descriptors),
    ("signalfd-taker", signalfd::taker),
    ("sysv_interrupted", sysv_msg::interrupted),
    ("sysv_modes", sysv_msg::modes),
    ("sysv_receiver", sysv_msg::receiver),
    ("sysv_sender", sysv_msg::sender),
    ("tcp-interrupted", tcp::interrupted),
    ("tcp-peer", tcp::peer),
    ("udp-member", udp::member),
    ("udp-multicast-v6", udp::multicast_v6),
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
    enter(ROLES);
}

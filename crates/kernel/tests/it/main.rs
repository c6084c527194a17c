//! Tests of the kernel crate, one file per source file, between real processes.

#![allow(clippy::multiple_unsafe_ops_per_block)]

mod epoll;
mod eventfd;
mod mechanism;
mod pidfd;
mod posix_mq;
mod privileges;
mod process;
mod python;
mod sysv_msg;
mod timerfd;

use switchboard_testkit::child::{Role, enter};

const ROLES: &[(&str, Role)] = &[
    ("mq_creator", posix_mq::creator),
    ("mq_limits", posix_mq::limits_role),
    ("mq_modes", posix_mq::modes),
    ("mq_notified", posix_mq::notified),
    ("mq_patient", posix_mq::patient),
    ("mq_queues_max", posix_mq::queues_max),
    ("mq_receiver", posix_mq::receiver),
    ("mq_sender", posix_mq::sender),
    ("process_comm", process::comm),
    ("process_file_limit", process::file_limit_role),
    ("process_parent", process::parent),
    ("process_waiter", process::waiter),
    ("sysv_interrupted", sysv_msg::interrupted),
    ("sysv_modes", sysv_msg::modes),
    ("sysv_receiver", sysv_msg::receiver),
    ("sysv_sender", sysv_msg::sender),
];

#[test]
fn child_process() {
    enter(ROLES);
}

//! Every mechanism, between real processes. One module per source file.

#![deny(unsafe_code)]

mod background;
mod biased;
mod c_program;
mod epoll;
mod eventfd;
mod examples;
mod fifo;
mod file_lock;
mod folder_file;
mod fork;
mod futex;
mod hand_over;
mod inotify;
mod interruption;
#[cfg(target_arch = "x86_64")]
mod killstep;
mod lease;
mod mechanism;
mod memfd;
mod mmap;
mod pidfd;
mod pipe;
mod posix_mq;
mod posix_sem;
mod posix_shm;
mod private_folder;
mod privileges;
mod process;
mod pthread;
mod pty;
mod python;
mod random;
mod shared_folder;
mod shared_memory;
mod shared_words;
mod signal;
mod signalfd;
mod splice;
mod sync;
mod sysv_msg;
mod sysv_sem;
mod sysv_shm;
mod tcp;
mod timerfd;
mod torture;
mod udp;
mod unix_socket;

use switchboard_testkit::child::{Role, enter};

/// What the child processes of these tests do.
const ROLES: &[(&str, Role)] = &[
    ("biased-rarely", biased::rarely),
    ("biased-storm", biased::storm),
    ("eventfd-adder", eventfd::adder),
    ("fifo-creator", fifo::creator),
    ("fifo-opener", fifo::opener),
    ("fifo-reader", fifo::reader),
    ("fifo-writer", fifo::writer),
    ("fork-forker", fork::forker),
    ("futex_any_waiter", futex::any_waiter),
    ("futex_holder", futex::holder),
    ("futex_waiter", futex::waiter),
    #[cfg(target_arch = "x86_64")]
    ("killstep-announcer", killstep::wrong::announcer),
    #[cfg(target_arch = "x86_64")]
    ("killstep-careful", killstep::toy::careful),
    #[cfg(target_arch = "x86_64")]
    ("killstep-careless", killstep::toy::careless),
    #[cfg(target_arch = "x86_64")]
    ("killstep-counter", killstep::wrong::counter),
    #[cfg(target_arch = "x86_64")]
    ("killstep-locker", killstep::mutex::locker),
    #[cfg(target_arch = "x86_64")]
    ("killstep-two-folders", killstep::toy::two_folders),
    ("hand-over-holder", hand_over::holder),
    ("hand-over-writer", hand_over::writer),
    ("lease-opener", lease::opener),
    ("memfd_huge", memfd::huge),
    ("memfd_receiver", memfd::receiver),
    ("memfd_sender", memfd::sender),
    ("mmap_follower", mmap::written::follower),
    ("mmap_fork", mmap::truncated::forked),
    ("mmap_limited", mmap::written::limited),
    ("mmap_reader", mmap::reader),
    ("mmap_signal", mmap::truncated::foreign_signal),
    ("mmap_table", mmap::truncated::table),
    ("mmap_writer", mmap::writer),
    ("file-locker", file_lock::locker),
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
    ("posix_shm_creator", posix_shm::creator),
    ("posix_shm_file_limit", posix_shm::file_limit),
    ("posix_shm_full", posix_shm::full),
    ("posix_shm_modes", posix_shm::modes),
    ("posix_shm_outsider", posix_shm::outsider),
    ("posix_shm_reader", posix_shm::reader),
    ("posix_shm_writer", posix_shm::writer),
    ("posix_sem_full", posix_sem::full),
    ("posix_sem_modes", posix_sem::modes),
    ("posix_sem_outsider", posix_sem::outsider),
    ("posix_sem_racer", posix_sem::racer),
    ("posix_sem_waiter", posix_sem::waiter),
    ("private_folder-holder", private_folder::holder),
    ("private_folder-maker", private_folder::maker),
    ("private_folder-masked", private_folder::masked),
    ("private_folder-stranger", private_folder::stranger),
    ("process_comm", process::comm),
    ("process_file_limit", process::file_limit_role),
    ("process_orphaner", process::tree::orphaner),
    ("process_parent", process::parent),
    ("process_named", process::tree::named),
    ("process_subreaper", process::tree::subreaper),
    ("process_waiter", process::waiter),
    ("pty-limit", pty::limit),
    ("pty-master", pty::master),
    ("splice-pages", splice::pages),
    ("splice-mover", splice::mover),
    ("pthread_peer", pthread::peer),
    ("shared_memory-forker", shared_memory::forker),
    ("shared_memory-liar", shared_memory::liar),
    ("shared_memory-limited", shared_memory::limited),
    ("shared_memory-reader", shared_memory::reader),
    ("shared_memory-ringer", shared_memory::ringer),
    ("shared_memory-without_proc", shared_memory::without_proc),
    ("shared_memory-writer", shared_memory::writer),
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
    ("sync_forker", sync::forker),
    ("sync_leaver", sync::leaver),
    ("sync_opener", sync::opener),
    ("sync_peer", sync::peer),
    ("sync_user", sync::user),
    ("sync_victim", sync::victim),
    ("sysv_interrupted", sysv_msg::interrupted),
    ("sysv_modes", sysv_msg::modes),
    ("sysv_receiver", sysv_msg::receiver),
    ("sysv_sem_full", sysv_sem::full),
    ("sysv_sem_modes", sysv_sem::modes),
    ("sysv_sem_operator", sysv_sem::operator),
    ("sysv_sem_outsider", sysv_sem::outsider),
    ("sysv_sem_patient", sysv_sem::patient),
    ("sysv_sem_racer", sysv_sem::racer),
    ("sysv_sender", sysv_msg::sender),
    ("sysv_shm_limits", sysv_shm::limits_role),
    ("sysv_shm_modes", sysv_shm::modes),
    ("sysv_shm_reader", sysv_shm::reader),
    ("sysv_shm_user", sysv_shm::user),
    ("timerfd-armer", timerfd::armer),
    ("tcp-interrupted", tcp::interrupted),
    ("tcp-peer", tcp::peer),
    ("torture-worker", torture::worker),
    ("udp-member", udp::member),
    ("udp-talker", udp::talker),
    ("udp-multicast-v6", udp::multicast_v6),
    ("unix-binder", unix_socket::names::binder),
    ("unix-copied-peer", unix_socket::copied_peer),
    ("unix-folder-listener", unix_socket::within::listener),
    ("unix-id-peer", unix_socket::peer::peer),
    ("unix-listener", unix_socket::names::listener),
    ("unix-many-listeners", unix_socket::names::many_listeners),
    ("unix-out-of-descriptors", unix_socket::descriptors::out_of_descriptors),
    ("unix-pair-user", unix_socket::pair_user),
    ("unix-peer", unix_socket::peer),
    ("word-sleeper", mmap::sleeper),
];

#[test]
fn child_process() {
    enter(ROLES);
}

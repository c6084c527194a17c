//! The meeting of `shm:`: its datagrams, its folder, and endpoints in one process and in many.

mod base;
mod crowd;
mod datagram;
mod deaths;
mod ends;
mod folder;
mod hostile;
#[cfg(target_arch = "x86_64")]
mod killstep;
mod meeting;
mod raw;

use switchboard_testkit::child::Role;

/// What the child processes of these tests do.
pub(crate) const ROLES: &[(&str, Role)] = &[
    ("shm-come-and-go", folder::come_and_go),
    ("shm-counted", hostile::counted),
    ("shm-flood", hostile::flood),
    ("shm-inner", hostile::inner),
    ("shm-keeper", hostile::keeper),
    #[cfg(target_arch = "x86_64")]
    ("shm-killstep", killstep::victim),
    ("shm-make-base", base::make_base),
    ("shm-member", crowd::member),
    ("shm-mortal", deaths::mortal),
    ("shm-short", hostile::short),
    ("shm-stranger", hostile::stranger),
    ("shm-thief", hostile::thief),
];

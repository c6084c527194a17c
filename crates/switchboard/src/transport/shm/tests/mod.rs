//! The meeting of `shm:`: its datagrams, its folder, and endpoints in one process and in many.

mod base;
mod bounds;
mod crowd;
mod datagram;
mod deaths;
mod ends;
mod folder;
mod hostile;
#[cfg(target_arch = "x86_64")]
mod killstep;
mod looking;
mod meeting;
mod raw;
mod segments;
mod services;
mod strangers;

use switchboard_testkit::child::Role;

/// What the child processes of these tests do.
pub(crate) const ROLES: &[(&str, Role)] = &[
    ("shm-come-and-go", folder::come_and_go),
    ("shm-counted", bounds::counted),
    ("shm-flood", bounds::flood),
    ("shm-hands-over", hostile::hands_over),
    ("shm-honest", hostile::honest),
    ("shm-inner", strangers::inner),
    ("shm-keeper", strangers::keeper),
    #[cfg(target_arch = "x86_64")]
    ("shm-killstep", killstep::victim),
    ("shm-last-words", strangers::last_words),
    ("shm-make-base", base::make_base),
    ("shm-member", crowd::member),
    ("shm-many-links", bounds::many_links),
    ("shm-mortal", deaths::mortal),
    ("shm-short", bounds::short),
    ("shm-stranger", strangers::stranger),
    ("shm-thief", hostile::thief),
];

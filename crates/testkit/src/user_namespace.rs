//! A user namespace of one's own, as an unprivileged container has.

#![allow(unsafe_code)]

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::UnshareFlags;

/// Enters a user namespace that has a number for this user and its own group, and for nobody else. In a process of one
/// thread, as a role is.
///
/// # Panics
/// When namespaces are refused.
pub fn enter() {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    // Else what is in /proc of a process that was root's would be root's.
    set_dumpable_behavior(DumpableBehavior::Dumpable).expect("its own files in /proc");
    // SAFETY: no memory, descriptor or file system is unshared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }.expect("a user namespace");
    for (file, text) in [
        ("setgroups", "deny".to_owned()),
        ("uid_map", format!("{user} {user} 1", user = user.as_raw())),
        ("gid_map", format!("{group} {group} 1", group = group.as_raw())),
    ] {
        std::fs::write(format!("/proc/self/{file}"), text).expect(file);
    }
}

//! Who may do what across namespaces: the table of `access.rs`, with one side in PID and user namespaces of its own, and
//! in the system's scope.

use std::process::Command;

use switchboard_kernel::process::effective_user_id;
use switchboard_testkit::Child;
use switchboard_testkit::skip::skip;

use super::access::{ALL, NONE, READ, Row, SHARED, Where, check};

/// Who may do what at Alice's ends where her namespace has a number for her alone: no rule can name another user or
/// group, and 65534, which stands there for all others, is nobody's.
const NAMED_BY_NOBODY: &[Row] = &[
    ("", [ALL, NONE, NONE, NONE]),
    ("&publish=user:2002&call=group:2100", [ALL, NONE, NONE, NONE]),
    ("&publish=user:65534&send=group:65534", [ALL, NONE, NONE, NONE]),
    ("&publish=any", [ALL, &["publish"], &["publish"], &["publish"]]),
    ("&mode=0604", [ALL, READ, READ, READ]),
];
/// At Alice's ends in the system's scope.
const SYSTEM: &[Row] = &[("&mode=0660&group=2100", [ALL, ALL, NONE, NONE])];

/// What starts a process in a PID namespace of its own.
pub(super) fn starter() -> &'static [&'static str] {
    match effective_user_id() {
        0 => &["unshare", "--pid", "--fork", "--kill-child"],
        _ => &["unshare", "--user", "--map-current-user", "--pid", "--fork", "--kill-child"],
    }
}

/// Whether processes can be started in namespaces, by whoever is to be there.
fn can(test: &str, starter: &[&str]) -> bool {
    if effective_user_id() == 65_534 {
        // In a namespace that is the number of all who have none there, and nobody's own.
        return false;
    }
    let probe = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["unshare", "--user", "true"])
        .output();
    let others = effective_user_id() != 0 || probe.is_ok_and(|output| output.status.success());
    let own = Command::new(starter[0]).args(&starter[1..]).arg("true").output();
    let can = others && own.is_ok_and(|output| output.status.success());
    if !can {
        skip(test, "namespaces are refused");
    }
    can
}

#[test]
fn visitors_in_namespaces_may_what_the_table_says() {
    if can("visitors_in_namespaces_may_what_the_table_says", starter()) {
        check(SHARED, Where::ContainedVisitors);
    }
}

#[test]
fn in_a_namespace_rules_name_whom_it_has_a_number_for() {
    if can("in_a_namespace_rules_name_whom_it_has_a_number_for", starter()) {
        check(NAMED_BY_NOBODY, Where::ContainedHost);
    }
}

/// Role: checks a table in the system's scope.
pub(crate) fn system_scope(_: &[String]) {
    check(SYSTEM, Where::System);
}

#[test]
fn in_the_systems_scope_it_is_as_the_table_says() {
    let test = "in_the_systems_scope_it_is_as_the_table_says";
    if effective_user_id() != 0 {
        // An ordinary user is one identity only.
        return;
    }
    let prepare =
        "mount -t tmpfs none /run && install -d -m 1777 /run/switchboard && exec \"$0\" \"$@\"";
    let starter = ["unshare", "--mount", "sh", "-c", prepare];
    if can(test, &starter) {
        assert!(Child::role_under(&starter, "shm-access-system", &[0]).wait().success());
    }
}

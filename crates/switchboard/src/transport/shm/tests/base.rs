//! Where channels are, and what is said when that is no place to meet.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use switchboard_kernel::process;
use switchboard_testkit::Scratch;

use super::ends::{address, surroundings};
use crate::address::SYSTEM_SCOPE;
use crate::error::{Error, ErrorKind};
use crate::transport::shm::base::{Surroundings, open};
use crate::transport::shm::folder::Folder;
use crate::transport::shm::name::ChannelName;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a folder").mode() & 0o7777
}

#[test]
fn the_surroundings_say_where() {
    let scratch = Scratch::new();
    let user = process::effective_user_id();
    let all = Surroundings {
        runtime: Some(scratch.join("runtime")),
        users: scratch.join("users"),
        temporary: scratch.join("temporary"),
    };
    let own = scratch.join("users").join(user.to_string());
    for folder in [&scratch.join("runtime"), &own, &scratch.join("temporary")] {
        std::fs::create_dir_all(folder).expect("a folder");
    }
    let check = |surroundings: &Surroundings, scope: Option<&Path>, expected: &str| {
        let base = open(&address(), scope, surroundings).expect("a base");
        assert_eq!(base.folder.path, scratch.join(expected));
        assert_eq!(mode(&base.folder.path), 0o700);
        assert_eq!(mode(base.folder.path.parent().expect("a folder")), 0o700);
        // Again, when it is there.
        open(&address(), scope, surroundings).expect("a base");
    };
    check(&all, None, "runtime/switchboard/shm");
    let without = Surroundings { runtime: None, ..all.clone() };
    check(&without, None, &format!("users/{user}/switchboard/shm"));
    let neither = Surroundings { runtime: None, users: scratch.join("nowhere"), ..all.clone() };
    check(&neither, None, &format!("temporary/switchboard-{user}/shm"));
    check(&all, Some(&scratch.join("scope")), "scope/shm");
    // What is given may be a link.
    symlink(scratch.join("scope"), scratch.join("link")).expect("a link");
    check(&all, Some(&scratch.join("link")), "link/shm");
    symlink(scratch.join("runtime"), scratch.join("linked")).expect("a link");
    let linked = Surroundings { runtime: Some(scratch.join("linked")), ..all };
    check(&linked, None, "linked/switchboard/shm");
}

#[test]
fn what_is_for_all_users_is_made_by_none_of_them() {
    let system = Path::new(SYSTEM_SCOPE);
    if system.exists() {
        let test = "shm::tests::base::what_is_for_all_users_is_made_by_none_of_them";
        return switchboard_testkit::skip::skip(test, "this machine has such a folder");
    }
    let scratch = Scratch::new();
    let error =
        open(&address(), Some(system), &surroundings(scratch.path())).expect_err("no folder");
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let said = format!("{error:?}");
    assert!(said.contains("install -d -m 1777 /run/switchboard"), "{said}");
    assert!(!system.exists());
}

#[test]
fn the_umask_has_no_say() {
    let mut child = switchboard_testkit::Child::role_under(
        &["sh", "-c", "umask 0277; exec \"$@\"", "sh"],
        "shm-make-base",
        &[Scratch::new().path().display()],
    );
    child.expect("700 700");
    // It removes its folder.
    assert!(child.wait().success());
}

/// Role: makes a base, and says how.
pub(super) fn make_base(_: &[String]) {
    let scratch = Scratch::new();
    // The scratch folder is of this umask, too.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o700)).expect("mode");
    let base = open(&address(), None, &surroundings(scratch.path())).expect("a base");
    let above = base.folder.path.parent().expect("a folder");
    switchboard_testkit::child::report(format!("{:o} {:o}", mode(above), mode(&base.folder.path)));
}

#[track_caller]
fn check(result: Result<impl Sized, Error>, kind: ErrorKind, problem: &str, advice: &str) {
    let error = result.err().expect("an error");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(problem), "{error} where {problem:?} was expected");
    let given = error.advice().unwrap_or_default();
    assert!(given.contains(advice), "{given:?} where {advice:?} was expected");
}

#[test]
fn a_base_that_others_touch_is_refused() {
    let denied = ErrorKind::PermissionDenied;
    for below in ["", "/shm"] {
        let scratch = Scratch::new();
        let base = scratch.join("switchboard");
        let place = scratch.join(&format!("switchboard{below}"));
        let attempt = || open(&address(), None, &surroundings(scratch.path()));
        let shown = place.display().to_string();
        let again = || {
            let _ = std::fs::remove_dir_all(&base);
            let _ = std::fs::remove_file(&base);
            attempt().expect("a base");
        };
        again();
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o750)).expect("mode");
        check(
            attempt(),
            denied,
            &format!("{shown} is open to other users (mode 0750)"),
            "chmod 0700",
        );
        again();
        std::fs::remove_dir_all(&place).expect("removed");
        std::fs::write(&place, "").expect("a file");
        check(attempt(), denied, &format!("{shown} is no folder"), "remove it");
        std::fs::remove_file(&place).expect("removed");
        symlink("/", &place).expect("a link");
        check(attempt(), denied, &format!("{shown} is a symbolic link"), "remove it");
        std::fs::remove_file(&place).expect("removed");
        if process::effective_user_id() == 0 {
            again();
            chown(&place, Some(65534), None).expect("another owner");
            check(attempt(), denied, "belongs to user nobody (65534), and this is", "?scope=");
        }
    }
}

#[test]
fn a_scope_that_is_no_place_to_meet_is_refused() {
    let scratch = Scratch::new();
    let attempt = |scope: &Path| open(&address(), Some(scope), &surroundings(scratch.path()));
    let denied = ErrorKind::PermissionDenied;
    let open_to_all = scratch.join("open");
    std::fs::create_dir(&open_to_all).expect("a folder");
    let set = |mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&open_to_all, mode).expect("a mode");
    };
    set(0o777);
    check(attempt(&open_to_all), denied, "(mode 0777) others can take names away", "chmod +t");
    for mode in [0o1777, 0o1770, 0o755] {
        set(mode);
        let base = attempt(&open_to_all).expect("a shared scope");
        assert!(base.is_shared && base.folder.path == open_to_all, "{mode:o}");
    }
    set(0o700);
    assert!(!attempt(&open_to_all).expect("a private scope").is_shared);
    let missing = scratch.join("a/b");
    check(attempt(&missing), ErrorKind::NotFound, "a/b: ", "mkdir -m 0700 -p");
    std::fs::write(scratch.join("file"), "").expect("a file");
    check(attempt(&scratch.join("file")), denied, "file is no folder", "");
    let nowhere = surroundings(&scratch.join("nowhere"));
    check(open(&address(), None, &nowhere), ErrorKind::NotFound, "nowhere", "XDG_RUNTIME_DIR");
}

#[test]
fn a_channel_that_others_touch_is_refused() {
    let scratch = Scratch::new();
    let name = ChannelName::new(b"a/b").expect("a name");
    let attempt = || Folder::open(&address(), None, &surroundings(scratch.path()), &name);
    let place = scratch.join("switchboard/shm/a%2Fb");
    let folder = attempt().expect("a folder");
    assert_eq!(mode(&place), 0o700);
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o701)).expect("mode");
    check(attempt(), ErrorKind::PermissionDenied, "a%2Fb is open to other users", "chmod 0700");
    drop(folder);
    assert!(!place.exists(), "nobody was there, and the folder went");
    symlink("/", &place).expect("a link");
    check(attempt(), ErrorKind::PermissionDenied, "a%2Fb is a symbolic link", "remove it");
}

fn channel_at(scope: &Path, more: &str) -> Result<Folder, Error> {
    let text = format!("shm:a?scope={}{more}", scope.display());
    let address: crate::Address = text.parse().expect("an address");
    let name = ChannelName::new(b"a").expect("a name");
    let scope = address.query.scope.clone();
    Folder::open(&address, scope.as_deref(), &surroundings(scope.as_deref().expect("one")), &name)
}

#[test]
fn a_channel_in_a_shared_scope_is_as_open_as_its_rules() {
    let scratch = Scratch::new();
    let scope = scratch.join("shared");
    std::fs::create_dir(&scope).expect("a folder");
    std::fs::set_permissions(&scope, std::fs::Permissions::from_mode(0o1777)).expect("a mode");
    let group = process::effective_group_id();
    for (more, expected) in [
        ("".to_owned(), 0o700),
        ("&mode=0660".to_owned(), 0o700),
        (format!("&mode=0660&group={group}"), 0o1770),
        (format!("&publish=group:{group}"), 0o1770),
        ("&publish=any".to_owned(), 0o1777),
        ("&mode=0604".to_owned(), 0o1777),
    ] {
        let folder = channel_at(&scope, &more).expect("a folder");
        assert_eq!((mode(&scope.join("a")), folder.is_shared()), (expected, true), "{more}");
    }
    // Its user opens it further, and never closes it for those who are there.
    let narrow = channel_at(&scope, "").expect("a folder");
    let wide = channel_at(&scope, "&publish=any").expect("a folder");
    let again = channel_at(&scope, "").expect("a folder");
    assert_eq!(mode(&scope.join("a")), 0o1777);
    drop((narrow, wide, again));
    assert!(!scope.join("a").exists());
    // Rules that let others in mean nothing where nobody else can come.
    std::fs::set_permissions(&scope, std::fs::Permissions::from_mode(0o700)).expect("a mode");
    check(
        channel_at(&scope, "&publish=any"),
        ErrorKind::BadAddress,
        "is this user's alone",
        "mkdir -m 1777",
    );
    let owner = process::effective_user_id() + 1;
    std::fs::set_permissions(&scope, std::fs::Permissions::from_mode(0o1777)).expect("a mode");
    let of_another = || channel_at(&scope, &format!("&owner={owner}"));
    // What this user made would be in the owner's way.
    check(of_another(), ErrorKind::NotFound, "has not made", "its owner comes first");
    assert!(!scope.join("a").exists());
    let _own = channel_at(&scope, &format!("&owner={}", owner - 1)).expect("its own");
    check(of_another(), ErrorKind::PermissionDenied, "belongs to user ", "another user was first");
}

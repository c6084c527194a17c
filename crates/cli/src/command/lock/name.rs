//! The name of a lock on the command line: `NAME`, `/PATH`, `sync:` before either, options behind it.

use std::fmt;
use std::str::FromStr;

use switchboard_kernel::Permissions;
use switchboard_kernel::process::{group_id_of_name, user_id_of_name};
use switchboard_kernel::sync::{NAME_MAX, Name};

use crate::exit_code::Exit;
use crate::output::{self, Failure};

const SCHEME: &str = "sync:";

/// A name, checked.
#[derive(Debug)]
pub(super) struct LockName {
    name: Name,
    /// As it is shown: with the scheme, without options.
    shown: String,
}

impl LockName {
    pub(super) fn name(&self) -> &Name {
        &self.name
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&output::shown(&self.shown))
    }
}

impl FromStr for LockName {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let (plain, query) = match text.split_once('?') {
            Some((plain, query)) => (plain, Some(query)),
            None => (text, None),
        };
        let wrong = |problem: &str| {
            let text = if text.is_empty() { "''".to_owned() } else { output::shown(text) };
            Err(Failure::new(Exit::Usage, format!("not the name of a lock: {text}: {problem}")))
        };
        let rest = match plain.strip_prefix(SCHEME) {
            Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
            None if plain.contains(':') && !plain.starts_with('/') => {
                return wrong("unknown scheme; write it as sync:NAME or NAME");
            }
            None => plain,
        };
        let Some(path) = percent_decoded(rest) else {
            return wrong("a % must be followed by two hexadecimal digits");
        };
        if path.is_empty() {
            return wrong("it is empty");
        }
        let name = match Name::new(&path) {
            Ok(name) => name,
            Err(error) if error.name() == "ENAMETOOLONG" => {
                return wrong(&format!("over {NAME_MAX} bytes"));
            }
            Err(_) => {
                return wrong("a name has no / in it and no dot in front; a path begins with /");
            }
        };
        match permissions(query, path.starts_with('/')) {
            Ok(permissions) => {
                Ok(Self { name: name.permissions(permissions), shown: format!("{SCHEME}{rest}") })
            }
            Err(problem) => wrong(&problem),
        }
    }
}

/// Of a file that several users may have. A plain name lies in a folder where only its user comes.
fn permissions(query: Option<&str>, is_path: bool) -> Result<Permissions, String> {
    let mut permissions = Permissions::new();
    let mut seen = Vec::new();
    for option in query.into_iter().flat_map(|query| query.split('&')) {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        if seen.contains(&key) {
            return Err(format!("{key} is given twice"));
        }
        seen.push(key);
        permissions = match key {
            "mode" | "owner" | "group" if !is_path => {
                return Err(format!(
                    "{key} is for a path, as /dev/shm/NAME: a plain name is of this user alone"
                ));
            }
            "mode" => {
                let mode = u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o777);
                permissions.mode(mode.ok_or("mode takes octal permission bits, as in 0660")?)
            }
            "owner" => permissions.owner(user_id_of_name(value).map_err(|_| "no such user")?),
            "group" => permissions.group(group_id_of_name(value).map_err(|_| "no such group")?),
            _ => return Err("unknown option; sync: takes mode, owner, group".to_owned()),
        };
    }
    Ok(permissions)
}

/// `%3F` is a question mark.
fn percent_decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits =
            part.get(..2).filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, shown, path) in [
            ("backup", "sync:backup", "backup"),
            ("sync:backup", "sync:backup", "backup"),
            ("/dev/shm/x", "sync:/dev/shm/x", "/dev/shm/x"),
            ("sync:///dev/shm/x?mode=0660", "sync:/dev/shm/x", "/dev/shm/x"),
            ("a%3Fb", "sync:a%3Fb", "a?b"),
            ("sync:a:b", "sync:a:b", "a:b"),
            ("/dev/shm/x?mode=0660&owner=0", "sync:/dev/shm/x", "/dev/shm/x"),
        ] {
            let name: LockName = text.parse().expect("a name");
            assert_eq!(name.to_string(), shown);
            assert!(name.name().path().ends_with(path), "{name:?}");
        }
        let long = "x".repeat(256);
        for wrong in [
            "",
            "sync:",
            ".",
            "..",
            ".x",
            "a/b",
            "./a",
            "/",
            "/x/",
            "unix:./a",
            "mq:/a",
            "a%",
            "a%zz",
            "a%+1",
            "a%00b",
            &long,
            "a?",
            "a?mode=0600",
            "/a?mode",
            "/a?mode=9",
            "/a?mode=1777",
            "a?size=1",
            "/a?size=1",
            "/a?mode=0600&mode=0600",
            "/a?group=no-such-group-here",
            "/a?owner=",
        ] {
            assert!(wrong.parse::<LockName>().is_err(), "{wrong}");
        }
    }
}

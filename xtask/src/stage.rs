//! Where a run of the tests happens: a fresh temporary folder that every user can read, with a
//! temporary, runtime and home folder per user, and the environment that tests are promised.
//!
//! | variable | what |
//! |---|---|
//! | `SWITCHBOARD_BIN` | the `switchboard` command |
//! | `SWITCHBOARD_EXAMPLES` | the folder of the built `crates/kernel/examples` |
//! | `SWITCHBOARD_PYTHON` | a Python with `posix_ipc` and `sysv_ipc`; unset when there is none |
//! | `SWITCHBOARD_SKIPS` | the file to which skipped tests are appended |
//! | `SWITCHBOARD_KILLS` | the file to which the kill harness writes what it did |
//! | `SWITCHBOARD_TEST_RUN` | names this run; marks its processes |
//! | `CARGO_MANIFEST_DIR` | the package's folder, which is the working directory too |
//! | `TMPDIR`, `XDG_RUNTIME_DIR` | the user's own, short enough for a socket's path |

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::kills::Kills;

/// The variable that marks the processes of a run.
pub(crate) const RUN: &str = "SWITCHBOARD_TEST_RUN";

/// Longer than this, and a socket's path in a test's folder would not fit `sun_path`.
const LONGEST_BASE_BYTES: usize = 24;

/// The folder of one run; removed on drop.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: TempDir,
    /// The lines already taken.
    skips_seen: usize,
    kills_seen: usize,
}

/// One user's folders.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) temporary: PathBuf,
    pub(crate) runtime: PathBuf,
    pub(crate) home: PathBuf,
}

/// What a run drives; each path as the user who runs the tests sees it.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    pub(crate) command: Option<PathBuf>,
    /// The folder of the examples.
    pub(crate) examples: Option<PathBuf>,
    pub(crate) python: Option<PathBuf>,
}

impl Stage {
    /// A new one.
    pub(crate) fn new() -> io::Result<Self> {
        let mut base = std::env::temp_dir();
        if base.as_os_str().len() > LONGEST_BASE_BYTES {
            base = PathBuf::from("/tmp");
        }
        let folder = tempfile::Builder::new().prefix("xt").rand_bytes(6).tempdir_in(base)?;
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let stage = Self { folder, skips_seen: 0, kills_seen: 0 };
        for file in [stage.skips_file(), stage.kills_file()] {
            fs::write(&file, "")?;
            fs::set_permissions(&file, Permissions::from_mode(0o666))?;
        }
        Ok(stage)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A folder in it that every user can read.
    pub(crate) fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.path().join(name);
        fs::create_dir(&folder)?;
        fs::set_permissions(&folder, Permissions::from_mode(0o755))?;
        Ok(folder)
    }

    /// A user's folders, which belong to this user until given away.
    pub(crate) fn place(&self, name: &str) -> io::Result<Place> {
        let folder = self.folder(name)?;
        let place = Place {
            temporary: folder.join("t"),
            runtime: folder.join("r"),
            home: folder.join("h"),
        };
        // The temporary folder is like /tmp, so that modes of what is in it matter.
        for (path, mode) in
            [(&place.temporary, 0o1777), (&place.runtime, 0o700), (&place.home, 0o700)]
        {
            fs::create_dir(path)?;
            fs::set_permissions(path, Permissions::from_mode(mode))?;
        }
        Ok(place)
    }

    /// The variables that tests are promised; none as value: must not be set.
    pub(crate) fn environment(
        &self,
        place: &Place,
        programs: &Programs,
    ) -> BTreeMap<&'static str, Option<OsString>> {
        let path = |path: &Path| Some(path.as_os_str().to_owned());
        BTreeMap::from([
            (RUN, path(self.path())),
            ("SWITCHBOARD_SKIPS", path(&self.skips_file())),
            ("SWITCHBOARD_KILLS", path(&self.kills_file())),
            ("SWITCHBOARD_BIN", programs.command.as_deref().and_then(path)),
            ("CARGO_BIN_EXE_switchboard", programs.command.as_deref().and_then(path)),
            ("SWITCHBOARD_EXAMPLES", programs.examples.as_deref().and_then(path)),
            ("SWITCHBOARD_PYTHON", programs.python.as_deref().and_then(path)),
            ("TMPDIR", path(&place.temporary)),
            ("XDG_RUNTIME_DIR", path(&place.runtime)),
        ])
    }

    /// The skips recorded since the last call, as `TEST: REASON`, each once.
    pub(crate) fn new_skips(&mut self) -> Vec<String> {
        let mut new = new_lines(&self.skips_file(), &mut self.skips_seen);
        new.sort();
        new.dedup();
        new
    }

    /// What the kill harness wrote since the last call.
    pub(crate) fn new_kills(&mut self) -> Vec<Kills> {
        let new = new_lines(&self.kills_file(), &mut self.kills_seen);
        new.iter().filter_map(|line| Kills::read(line)).collect()
    }

    fn kills_file(&self) -> PathBuf {
        self.path().join("kills")
    }

    fn skips_file(&self) -> PathBuf {
        self.path().join("skips")
    }
}

/// The lines of a file after the first `seen`; now they are seen too. A line without an end is not
/// there yet.
fn new_lines(file: &Path, seen: &mut usize) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines: Vec<&str> = whole.lines().collect();
    let new = lines.iter().skip(*seen).map(|&line| line.to_owned()).collect();
    *seen = lines.len();
    new
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn skips_are_taken_once() {
        let mut stage = Stage::new().expect("a stage");
        assert!(stage.new_skips().is_empty());
        let mut file =
            fs::OpenOptions::new().append(true).open(stage.skips_file()).expect("the file");
        writeln!(file, "b: no nc\na: no nc\nb: no nc").expect("a line");
        assert_eq!(stage.new_skips(), ["a: no nc", "b: no nc"]);
        writeln!(file, "a: no nc").expect("a line");
        assert_eq!(stage.new_skips(), ["a: no nc"]);
        assert!(stage.new_skips().is_empty());
    }

    #[test]
    fn is_readable_short_and_goes_away() {
        let stage = Stage::new().expect("a stage");
        let path = stage.path().to_owned();
        let place = stage.place("u").expect("a place");
        assert!(place.temporary.as_os_str().len() < 48, "{place:?}");
        for (path, mode) in [(&path, 0o755), (&place.temporary, 0o1777), (&place.runtime, 0o700)] {
            let found = fs::metadata(path).expect("a folder").permissions().mode();
            assert_eq!(found & 0o7777, mode, "{}", path.display());
        }
        drop(stage);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_there_is_not_promised() {
        let stage = Stage::new().expect("a stage");
        let place = stage.place("u").expect("a place");
        let programs = Programs { command: Some("/bin/x".into()), ..Programs::default() };
        let environment = stage.environment(&place, &programs);
        assert_eq!(environment["SWITCHBOARD_BIN"], Some("/bin/x".into()));
        assert_eq!(environment["SWITCHBOARD_PYTHON"], None);
        assert_eq!(environment["SWITCHBOARD_EXAMPLES"], None);
    }
}

//! Runs the tests once more as somebody who is not root.
//!
//! Source: `setpriv(1)`, `passwd(5)`.
//!
//! Nothing on the way to a test may depend on what that user can read: the executables, the command,
//! the examples, the sources and, if need be, Python's virtual environment are put into the stage.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::executables::{Built, Executable};
use crate::prepare::PYTHON_CHECK;
use crate::show;
use crate::stage::{Place, Programs, Stage};
use crate::tidy::Tree;

/// Where the system's programs are; what root has in its home is of no use to others.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An ordinary user of this machine.
#[derive(Debug, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// All that a run as that user needs.
#[derive(Debug)]
pub(crate) struct OrdinaryUser {
    account: Account,
    place: Place,
    programs: Programs,
    executables: PathBuf,
    sources: PathBuf,
}

impl OrdinaryUser {
    /// Puts everything in place.
    pub(crate) fn new(
        stage: &Stage,
        built: &Built,
        tree: &Tree,
        root: &Path,
        python: Option<&Path>,
    ) -> io::Result<Self> {
        let account = account(&fs::read_to_string("/etc/passwd").unwrap_or_default());
        let place = stage.place("u")?;
        for folder in [&place.temporary, &place.runtime, &place.home] {
            chown(folder, Some(account.uid), Some(account.gid))?;
        }
        let executables = stage.folder("bin")?;
        for test in &built.tests {
            provide(&test.path, &executables)?;
        }
        let mut programs = Programs::default();
        if let Some(command) = &built.command {
            programs.command = Some(provide(command, &executables)?);
        }
        let examples = stage.folder("examples")?;
        for example in &built.examples {
            provide(example, &examples)?;
        }
        programs.examples = Some(examples);
        let sources = stage.folder("src")?;
        copy_sources(tree, root, &sources)?;
        let mut user = Self { account, place, programs, executables, sources };
        user.programs.python = python.and_then(|python| user.python(stage, python));
        Ok(user)
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &str {
        &self.account.name
    }

    /// The command that runs a test executable as this user.
    pub(crate) fn command(&self, stage: &Stage, executable: &Executable) -> Command {
        let file = executable.path.file_name().unwrap_or_default();
        let folder = self.sources.join(&executable.folder);
        let mut command = self.run(&self.executables.join(file));
        for (name, value) in stage.environment(&self.place, &self.programs) {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command.env("CARGO_MANIFEST_DIR", &folder).current_dir(folder);
        command
    }

    /// Any program as this user, with next to no environment.
    fn run(&self, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", self.account.uid))
            .arg(format!("--regid={}", self.account.gid))
            .args(["--clear-groups", "--pdeathsig=KILL", "--"])
            .arg(program)
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", &self.place.home)
            .env("USER", &self.account.name)
            .env("LOGNAME", &self.account.name)
            .envs(
                ["CI", "LANG", "RUST_BACKTRACE"]
                    .into_iter()
                    .filter_map(|name| std::env::var_os(name).map(|value: OsString| (name, value))),
            )
            .current_dir("/");
        command
    }

    /// A Python with the clients that this user can run: the one given, else a copy.
    fn python(&self, stage: &Stage, python: &Path) -> Option<PathBuf> {
        if self.has_clients(python) {
            return Some(python.to_owned());
        }
        let copy = stage.path().join("python");
        let environment = python.parent().and_then(Path::parent)?;
        let copied = succeeds(Command::new("cp").args(["-R", "-P"]).arg(environment).arg(&copy))
            && succeeds(Command::new("chmod").args(["-R", "a+rX"]).arg(&copy));
        let python = copy.join("bin/python");
        if copied && self.has_clients(&python) {
            return Some(python);
        }
        show::note(&format!(
            "{} cannot run the Python clients, tests with them are skipped for that user: its \
             interpreter lies in a folder closed to others; install with: apt-get install \
             python3-venv, and remove {}",
            self.account.name,
            environment.display()
        ));
        None
    }

    fn has_clients(&self, python: &Path) -> bool {
        succeeds(self.run(python).args(["-B", "-c", PYTHON_CHECK]))
    }
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// `nobody`, as this machine has it.
fn account(passwd: &str) -> Account {
    let nobody = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|&name| name == "nobody")?;
        let mut numbers = fields.skip(1).map_while(|field| field.parse().ok());
        Some(Account { name: name.to_owned(), uid: numbers.next()?, gid: numbers.next()? })
    });
    nobody.filter(|account| account.uid != 0).unwrap_or_else(|| Account {
        name: "user 65534".to_owned(),
        uid: 65534,
        gid: 65534,
    })
}

/// Puts a program into the folder, as a link if everybody may run it through one.
fn provide(program: &Path, folder: &Path) -> io::Result<PathBuf> {
    let place = folder.join(program.file_name().unwrap_or_default());
    let open_to_all = fs::metadata(program)?.permissions().mode() & 0o005 == 0o005;
    if !(open_to_all && fs::hard_link(program, &place).is_ok()) {
        fs::copy(program, &place)?;
        fs::set_permissions(&place, Permissions::from_mode(0o755))?;
    }
    Ok(place)
}

/// Copies the project's files, readable by all.
fn copy_sources(tree: &Tree, root: &Path, sources: &Path) -> io::Result<()> {
    for path in tree.paths() {
        let (from, to) = (root.join(path), sources.join(path));
        if !from.is_file() {
            continue;
        }
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(&from, &to)?;
    }
    if succeeds(Command::new("chmod").args(["-R", "a+rX"]).arg(sources)) {
        Ok(())
    } else {
        Err(io::Error::other(format!("cannot make {} readable", sources.display())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_nobody() {
        let nobody = |uid, gid| Account { name: "nobody".to_owned(), uid, gid };
        let passwd = "root:x:0:0:root:/:/bin/sh\nnobody:x:99:98:nobody:/:/bin/false\n";
        assert_eq!(account(passwd), nobody(99, 98));
        for passwd in ["", "nobody:x", "nobody:x:0:0::/:", "nobodyelse:x:7:7::/:"] {
            assert_eq!((account(passwd).uid, account(passwd).gid), (65534, 65534), "{passwd}");
        }
    }

    #[test]
    fn a_closed_program_is_copied_an_open_one_linked() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\n").expect("a program");
        for (mode, linked) in [(0o700, false), (0o755, true)] {
            fs::set_permissions(&program, Permissions::from_mode(mode)).expect("a mode");
            let place = folder.path().join(format!("{mode:o}"));
            fs::create_dir(&place).expect("a folder");
            let provided = provide(&program, &place).expect("a program");
            let (a, b) = (fs::metadata(&program), fs::metadata(provided));
            let (a, b) = (a.expect("metadata"), b.expect("metadata"));
            assert_eq!(a.ino() == b.ino(), linked, "{mode:o}");
            assert_eq!(b.mode() & 0o777, 0o755, "{mode:o}");
        }
    }
}

//! Installs what the tests need: Debian packages, and Python clients in a virtual environment under
//! the target directory. What it cannot install, it names, with the way to install it.
//!
//! Source: `dpkg-query(1)`, `apt-get(8)`, the Python documentation of `venv`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bounded::{self, Outcome};
use crate::show;
use crate::workspace::Workspace;

/// A Debian package, and a command of it to look for where there is no dpkg.
struct Package {
    name: &'static str,
    command: Option<&'static str>,
}

const PACKAGES: &[Package] = &[
    Package { name: "chromium", command: Some("chromium") },
    Package { name: "chromium-driver", command: Some("chromedriver") },
    Package { name: "gcc", command: Some("gcc") },
    Package { name: "graphviz", command: Some("dot") },
    Package { name: "iproute2", command: Some("ip") },
    Package { name: "libc6-dev", command: None },
    Package { name: "lsof", command: Some("lsof") },
    Package { name: "netcat-openbsd", command: Some("nc") },
    Package { name: "procps", command: Some("ps") },
    Package { name: "python3", command: Some("python3") },
    Package { name: "python3-dev", command: None },
    Package { name: "python3-venv", command: None },
    Package { name: "socat", command: Some("socat") },
    Package { name: "strace", command: Some("strace") },
    Package { name: "tmux", command: Some("tmux") },
    Package { name: "util-linux", command: Some("setpriv") },
];

/// Python packages, pinned so that a new release cannot break an old checkout.
const PYTHON_PACKAGES: &[&str] = &["posix_ipc==1.3.2", "sysv_ipc==1.2.0"];

/// Exits 0 when a Python has the clients.
pub(crate) const PYTHON_CHECK: &str = "import posix_ipc, sysv_ipc";

const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// Prepares this machine; returns the Python that has the clients, if there is one.
pub(crate) fn prepare(workspace: &Workspace, install: bool) -> Option<PathBuf> {
    show::step("Preparing: Debian packages");
    packages(install);
    show::step("Preparing: Python clients");
    match python(&workspace.target.join("python"), install) {
        Ok(python) => {
            show::good(&format!("posix_ipc, sysv_ipc in {}", python.display()));
            Some(python)
        }
        Err(why) => {
            show::note(&format!("no Python clients, tests with them are skipped: {why}"));
            None
        }
    }
}

fn packages(install: bool) {
    let mut missing = missing_packages();
    let privilege = if install { privilege() } else { None };
    if let (false, Some(privilege)) = (missing.is_empty(), &privilege) {
        show::note(&format!("installing {}", missing.join(" ")));
        if let Err(why) = apt_get(privilege, &missing) {
            show::note(&why);
        }
        missing = missing_packages();
    }
    if missing.is_empty() {
        show::good("all there");
    } else {
        show::note(&format!(
            "missing, tests with them are skipped: {0}\n          install with: sudo apt-get install {0}",
            missing.join(" ")
        ));
    }
}

fn missing_packages() -> Vec<&'static str> {
    let has_dpkg = Command::new("dpkg-query").arg("--version").output().is_ok();
    let missing = PACKAGES.iter().filter(|package| {
        if has_dpkg {
            !is_installed(package.name)
        } else {
            package.command.is_some_and(|command| find_program(command).is_none())
        }
    });
    missing.map(|package| package.name).collect()
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// The program's path, if it is on `PATH`.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// What to put before a command that root must run; none when this user cannot become root.
fn privilege() -> Option<Vec<&'static str>> {
    if rustix::process::geteuid().is_root() {
        return Some(Vec::new());
    }
    let sudo = Command::new("sudo").args(["-n", "true"]).stderr(Stdio::null()).status();
    sudo.is_ok_and(|status| status.success()).then(|| vec!["sudo", "-n"])
}

fn apt_get(privilege: &[&str], packages: &[&str]) -> Result<(), String> {
    let update: &[&str] = &["update", "--quiet"];
    let install: &[&str] = &["install", "--quiet", "--yes", "--no-install-recommends"];
    for (arguments, packages) in [(update, &[][..]), (install, packages)] {
        let words: Vec<&str> = privilege
            .iter()
            .chain(&["env", "DEBIAN_FRONTEND=noninteractive"])
            .chain(&["apt-get", "-o", "DPkg::Lock::Timeout=120"])
            .chain(arguments)
            .chain(packages)
            .copied()
            .collect();
        succeeds(Command::new(words[0]).args(&words[1..]))?;
    }
    Ok(())
}

/// Makes the virtual environment unless it works already.
fn python(folder: &Path, install: bool) -> Result<PathBuf, String> {
    let python = folder.join("bin/python");
    if has_clients(&python) {
        return Ok(python);
    }
    if !install {
        return Err(format!("{} lacks them; run without --no-install", folder.display()));
    }
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    // The system's Python first: one in somebody's home cannot be run by another user.
    let mut why = "no python3 found; install with: sudo apt-get install python3-venv".to_owned();
    let system = Some(PathBuf::from("/usr/bin/python3")).filter(|path| path.is_file());
    for base in system.into_iter().chain(find_program("python3")) {
        match make(&base, folder, &python) {
            Ok(()) => return Ok(python),
            Err(error) => why = error,
        }
    }
    Err(why)
}

fn make(base: &Path, folder: &Path, python: &Path) -> Result<(), String> {
    succeeds(Command::new(base).args(["-m", "venv", "--clear"]).arg(folder))?;
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    succeeds(Command::new(python).args(install).args(PYTHON_PACKAGES))?;
    if has_clients(python) {
        Ok(())
    } else {
        Err(format!("{} cannot import the clients it has installed", python.display()))
    }
}

fn has_clients(python: &Path) -> bool {
    Command::new(python)
        .args(["-c", PYTHON_CHECK])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs a command to its end; otherwise says what it said.
fn succeeds(command: &mut Command) -> Result<(), String> {
    let outcome: Outcome =
        bounded::run(command, INSTALL_LIMIT).map_err(|error| format!("{command:?}: {error}"))?;
    if outcome.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}\n{}", outcome.ending(), outcome.output.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_programs_on_the_path() {
        assert!(find_program("sh").is_some_and(|path| path.is_absolute()));
        assert!(find_program("no-such-program-anywhere").is_none());
    }

    #[test]
    fn a_failed_command_says_what_it_said() {
        let why = succeeds(Command::new("sh").args(["-c", "echo no room >&2; exit 7"]));
        assert!(why.is_err_and(|why| why.contains("no room") && why.contains('7')));
        assert!(succeeds(&mut Command::new("no-such-program-anywhere")).is_err());
    }

    #[test]
    fn a_broken_environment_has_no_clients() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(!has_clients(&folder.path().join("bin/python")));
        let why = python(folder.path(), false).expect_err("no installation was allowed");
        assert!(why.contains("--no-install"), "{why}");
    }
}

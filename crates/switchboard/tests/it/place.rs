//! A place of a row's kind that nobody else uses, removed on drop; and running a check for each row.

use switchboard::Address;
use switchboard::transport::{TABLE, Transport};
use switchboard_testkit::{Scratch, free_port, unique};

pub(crate) struct Place {
    pub(crate) row: &'static Transport,
    pub(crate) scratch: Scratch,
    pub(crate) address: String,
}

impl Place {
    pub(crate) fn new(row: &'static Transport) -> Self {
        let scratch = Scratch::new();
        let path = scratch.join("a").to_str().expect("a path").to_owned();
        let scheme = row.scheme;
        let address = match scheme {
            "signal" => "signal:self/SIGRTMIN+1".to_owned(),
            "sem" | "posix-shm" => format!("{scheme}:/{}", unique(scheme)),
            "sysv-sem" | "sysv-shm" => format!("{scheme}:{}", scratch.path().display()),
            "shm" => format!("shm:{}", unique("live")),
            "tcp" => format!("tcp:127.0.0.1:{}", free_port()),
            _ => format!("{scheme}:{path}"),
        };
        Self { row, scratch, address }
    }

    pub(crate) fn of(scheme: &str) -> Self {
        Self::new(TABLE.iter().find(|row| row.scheme == scheme).expect("a row"))
    }

    /// The address with options.
    pub(crate) fn with(&self, query: &str) -> String {
        format!("{}{query}", self.address)
    }

    pub(crate) fn parsed(&self, query: &str) -> Address {
        self.with(query).parse().expect("an address")
    }

    /// What comes after the scheme.
    pub(crate) fn target(&self) -> &str {
        self.address.split_once(':').expect("a scheme").1
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = switchboard::object::unlink(&self.parsed(""));
    }
}

/// Whether a row's ends meet: what it carries lives with them. The others have objects of the kernel.
pub(crate) fn meets(row: &Transport) -> bool {
    row.patterns().contains(&"queue")
}

/// Runs a check for each row that carries a pattern in an object of the kernel, in a thread of that name.
pub(crate) fn each_row_of(pattern: &str, check: fn(&Place)) {
    each_row_that(pattern, |row| !meets(row), check);
}

/// Runs a check for each row that carries a pattern and fits, in a thread of that name.
pub(crate) fn each_row_that(pattern: &str, fits: fn(&Transport) -> bool, check: fn(&Place)) {
    let rows = TABLE.iter().filter(|row| row.patterns().contains(&pattern) && fits(row));
    let rows: Vec<_> = rows.collect();
    assert!(rows.len() >= 3, "rows that carry {pattern}");
    std::thread::scope(|scope| {
        let running: Vec<_> = rows
            .into_iter()
            .map(|row| {
                let thread = std::thread::Builder::new().name(row.scheme.to_owned());
                let run = move || check(&Place::new(row));
                (row.scheme, thread.spawn_scoped(scope, run).expect("a thread"))
            })
            .collect();
        let failed: Vec<&str> = running
            .into_iter()
            .filter_map(|(name, thread)| thread.join().is_err().then_some(name))
            .collect();
        assert!(failed.is_empty(), "it does not hold over: {}", failed.join(", "));
    });
}

/// In a child: root becomes `nobody`; others stay who they are.
pub(crate) fn become_ordinary_user() {
    use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};
    /// `nobody`, or what stands in for it.
    const NOBODY: u32 = 65_534;
    if switchboard_kernel::process::effective_user_id() == 0 {
        set_thread_groups(&[]).expect("no groups");
        set_thread_gid(rustix::fs::Gid::from_raw(NOBODY)).expect("another group");
        set_thread_uid(rustix::fs::Uid::from_raw(NOBODY)).expect("another user");
    }
}

/// A Python interpreter that has this module.
pub(crate) fn python(test: &str, module: &str) -> Option<String> {
    let interpreter = std::env::var("SWITCHBOARD_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = format!("import {module}");
    let found = std::process::Command::new(&interpreter).args(["-c", &import]).output();
    if found.is_ok_and(|output| output.status.success()) {
        return Some(interpreter);
    }
    switchboard_testkit::skip::skip(test, &format!("{interpreter} has no module {module}"));
    None
}

/// Runs a Python program to its end, and gives what it printed.
pub(crate) fn run_python(interpreter: &str, program: &str, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new(interpreter);
    let output = command.args(["-c", program]).args(arguments).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

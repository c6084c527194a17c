//! A web server and a logger over a Unix socket of mode 0660: whoever is neither its owner nor in
//! its group is refused by the kernel, and who writes is known from the kernel, not from the text.
//!
//! Source: `unix(7)` ("Pathname socket ownership and permissions", `SO_PEERCRED`).

#![allow(clippy::print_stdout)]

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use switchboard_kernel::io::{Deadline, read, read_full, write_all};
use switchboard_kernel::process::{Child, Spawn, effective_user_id, inherited_descriptor};
use switchboard_kernel::unix_socket::{self, Address, Kind, peer_credentials};
use switchboard_kernel::{Permissions, tcp};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The number under which the servers have their listening sockets.
const LISTENER: i32 = 3;
const PAGES: [&str; 3] = ["/", "/prices", "/missing"];
/// Neither the owner of the socket nor in its group.
const OUTSIDER: u32 = 65_534;

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("logger") => logger(),
        Some("web") => web_server(Path::new(&arguments[2])),
        Some("outsider") => outsider(Path::new(&arguments[2])),
        _ => {
            let folder =
                std::env::temp_dir().join(format!("switchboard-example-{}", std::process::id()));
            std::fs::create_dir(&folder)?;
            let outcome = in_folder(&folder);
            std::fs::remove_dir_all(&folder)?;
            outcome
        }
    }
}

fn in_folder(folder: &Path) -> Outcome {
    // The folder lets everybody through, so that it is the socket's mode that decides.
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    let path = folder.join("log");
    let address = Address::Path(path.clone());
    let permissions = Permissions::new().mode(0o660);
    let log = unix_socket::listen_at(Kind::Stream, &address, permissions, 8, false)?;
    let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
    println!("{} has mode {mode:o} and belongs to user {}", path.display(), effective_user_id());

    let web = tcp::listen_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 8, false)?;
    let web_address = tcp::local_address(&web)?;
    let own = std::env::current_exe()?;
    let server = |role| Spawn::new(&own).arg(role).die_with_parent();
    let logger = server("logger").descriptor(LISTENER, log).spawn()?;
    let web = server("web").arg(&path).descriptor(LISTENER, web).spawn()?;

    send_outsider(&path)?;
    for page in PAGES {
        println!("browser: {page}: {}", browse(web_address, page)?);
    }
    ended(web)?;
    ended(logger)
}

fn browse(address: SocketAddr, page: &str) -> Result<String, Box<dyn std::error::Error>> {
    let connection = tcp::connect(address)?;
    write_all(&connection, format!("GET {page} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = [0; 1000];
    let len = read_full(&connection, &mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..len]);
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// Answers as many requests as the browser makes, and logs each.
fn web_server(log: &Path) -> Outcome {
    let listener = inherited_descriptor(LISTENER)?;
    let log = unix_socket::connect_to(Kind::Stream, &Address::Path(log.to_owned()), false)?;
    for _ in PAGES {
        let (browser, _) = tcp::accept(&listener, false)?;
        let mut request = [0; 1000];
        let len = read(&browser, &mut request)?;
        let request = String::from_utf8_lossy(&request[..len]);
        let page = request.split(' ').nth(1).unwrap_or_default();
        let status = if page == "/missing" { "404 Not Found" } else { "200 OK" };
        unix_socket::send(&log, format!("{page} {status}\n").as_bytes())?;
        write_all(&browser, format!("HTTP/1.0 {status}\r\n\r\n").as_bytes())?;
    }
    Ok(())
}

/// Writes down what one server logs, until that has ended.
fn logger() -> Outcome {
    let server = unix_socket::accept(inherited_descriptor(LISTENER)?, false)?;
    let peer = peer_credentials(&server)?;
    let mut line = [0; 1000];
    loop {
        let len = read(&server, &mut line)?;
        if len == 0 {
            println!("  logger: the web server is gone");
            return Ok(());
        }
        let process = peer.pid.unwrap_or_default();
        for line in String::from_utf8_lossy(&line[..len]).lines() {
            println!("  logger: process {process} of user {}: {line}", peer.uid);
        }
    }
}

/// Only root can start a process of another user.
fn send_outsider(log: &Path) -> Outcome {
    if effective_user_id() != 0 {
        println!("skipped: an outsider who is refused; only root can play another user");
        return Ok(());
    }
    // This program by a path that another user can go, too.
    let this_program = PathBuf::from("/proc/self/exe");
    let mut outsider = Command::new(this_program);
    outsider.arg("outsider").arg(log).uid(OUTSIDER).gid(OUTSIDER);
    match outsider.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the outsider was not refused: {status}").into()),
        Err(error) => {
            println!("skipped: an outsider who is refused; no process of user {OUTSIDER}: {error}");
            Ok(())
        }
    }
}

fn outsider(log: &Path) -> Outcome {
    match unix_socket::connect_to(Kind::Stream, &Address::Path(log.to_owned()), false) {
        Err(error) if error.name() == "EACCES" => {
            println!("  outsider, user {}: {error}", effective_user_id());
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_) => Err("connected".into()),
    }
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}

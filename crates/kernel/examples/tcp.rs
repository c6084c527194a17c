//! A TCP connection between two processes: a client asks, closes its half, and reads the answer to
//! its end.
//!
//! Source: `tcp(7)`.

#![allow(clippy::print_stdout)]

use std::net::{Ipv4Addr, SocketAddr};

use switchboard_kernel::io::{Deadline, read_full, write_all};
use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::tcp;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    if let Some(address) = std::env::args().nth(1) {
        return client(address.parse()?);
    }
    let listener = tcp::listen_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 8, false)?;
    let address = tcp::local_address(&listener)?;
    println!("server: listens at {address}");
    let child =
        Spawn::new(std::env::current_exe()?).arg(address.to_string()).die_with_parent().spawn()?;
    let (connection, from) = tcp::accept(&listener, false)?;
    let mut question = [0; 100];
    let len = read_full(&connection, &mut question)?;
    let question = String::from_utf8_lossy(&question[..len]);
    println!("server: from {from}: {question:?}, and the end of the client's half");
    write_all(&connection, question.to_uppercase().as_bytes())?;
    drop(connection);
    ended(child)?;
    drop(listener);
    match tcp::connect(address) {
        Err(error) => println!("server: nobody listens any more: {error}"),
        Ok(_) => return Err("somebody took the port over".into()),
    }
    Ok(())
}

fn client(address: SocketAddr) -> Outcome {
    let connection = tcp::connect(address)?;
    tcp::set_nodelay(&connection, true)?;
    write_all(&connection, b"are you there?")?;
    tcp::shutdown_write(&connection)?;
    let mut answer = [0; 100];
    let len = read_full(&connection, &mut answer)?;
    println!("  client: {:?}", String::from_utf8_lossy(&answer[..len]));
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}

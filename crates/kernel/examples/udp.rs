//! Datagrams between two processes: each arrives whole, or is cut to what there was room for; and
//! what happens when nobody is there.
//!
//! Source: `udp(7)`.

#![allow(clippy::print_stdout)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use switchboard_kernel::io::{Deadline, Interest, wait_for};
use switchboard_kernel::process::{Child, Spawn};
use switchboard_kernel::udp;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const MESSAGES: [&str; 3] = ["one", "two", "a message longer than the receiver's buffer"];

fn main() -> Outcome {
    if let Some(address) = std::env::args().nth(1) {
        return sender(address.parse()?);
    }
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let socket = udp::bind(here, false)?;
    let address = udp::local_address(&socket)?;
    println!("receiver: at {address}");
    let child =
        Spawn::new(std::env::current_exe()?).arg(address.to_string()).die_with_parent().spawn()?;
    let mut buffer = [0; 16];
    for _ in MESSAGES {
        // Nothing promises that a datagram arrives, so waiting has an end.
        if !wait_for(&socket, Interest::Readable, Deadline::after(Duration::from_secs(10)))? {
            return Err("a datagram was lost".into());
        }
        let (received, from) = udp::recv_from(&socket, &mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..received.len.min(buffer.len())]);
        let cut = if received.truncated { ", cut" } else { "" };
        println!("receiver: from {from}, {} bytes{cut}: {text:?}", received.len);
    }
    ended(child)?;

    drop(socket);
    let nobody = udp::connect(address, false)?;
    udp::send(&nobody, b"anybody?")?;
    // The first one is sent, and its machine's answer comes with the next call.
    match udp::send(&nobody, b"anybody?") {
        Err(error) => println!("receiver gone: {error}"),
        Ok(_) => println!("receiver gone: and nobody says so"),
    }
    Ok(())
}

fn sender(to: SocketAddr) -> Outcome {
    let socket = udp::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), false)?;
    for message in MESSAGES {
        udp::send_to(&socket, message.as_bytes(), to)?;
        println!("  sender: {message:?}");
    }
    Ok(())
}

fn ended(mut child: Child) -> Outcome {
    match child.wait(Deadline::NEVER)? {
        Some(status) if status.success() => Ok(()),
        status => Err(format!("the child's end: {status:?}").into()),
    }
}

//! A picture passed to a viewer that does not trust the painter, nor the painter it.
//!
//! The painter paints into memory without a name, seals it and passes the descriptor over a Unix
//! socket. The viewer checks the seals before it looks, and cannot change anything.
//!
//! Source: `memfd_create(2)`.

#![allow(clippy::print_stdout)]

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;

use switchboard_kernel::Permissions;
use switchboard_kernel::memfd::{Memfd, Seals};
use switchboard_kernel::mmap::Mode;
use switchboard_kernel::unix_socket::{self as unix, Address, Kind};

const WIDTH: usize = 32;
const HEIGHT: usize = 8;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    match std::env::args().nth(1) {
        None => painter(),
        Some(path) => viewer(path.into()),
    }
}

fn painter() -> Outcome {
    let memory = Memfd::create("picture", (WIDTH * HEIGHT) as u64)?;
    paint(&memory)?;
    memory.add_seals(Seals::SHRINK | Seals::GROW | Seals::WRITE | Seals::SEAL)?;
    println!("painter  sealed the picture: {:?}", memory.seals()?);

    let path = std::env::temp_dir().join(format!("switchboard-example-{}", std::process::id()));
    let address = Address::Path(path.clone());
    let listener = unix::listen_at(Kind::Seqpacket, &address, Permissions::new(), 1, false)?;
    let mut viewer = Command::new(std::env::current_exe()?).arg(&path).spawn()?;
    let connection = unix::accept(&listener, false)?;
    std::fs::remove_file(&path)?;
    unix::send_with_fds(&connection, b"picture", &[memory.as_fd()])?;
    drop(memory);
    println!("painter  passed it on and forgot it");
    println!("painter  the viewer ended with {}", viewer.wait()?);
    Ok(())
}

fn paint(memory: &Memfd) -> Outcome {
    let mapping = memory.map(Mode::ReadWrite)?;
    for row in 0..HEIGHT {
        let line: Vec<u8> = (0..WIDTH)
            .map(|column| {
                let (x, y) = (column as i32 - 16, (row as i32 - 4) * 4);
                if x * x + y * y < 200 { b'#' } else { b'.' }
            })
            .collect();
        mapping.write_at(row * WIDTH, &line)?;
    }
    // Unmapped here: a writable mapping would stand in the way of the seal.
    Ok(())
}

fn viewer(path: PathBuf) -> Outcome {
    let connection = unix::connect_to(Kind::Seqpacket, &Address::Path(path), false)?;
    let (_, mut received) = unix::recv_with_fds(&connection, &mut [0; 16], 1)?;
    let descriptor = received.pop().ok_or("no picture came")?;
    let memory = Memfd::received(descriptor, Seals::SHRINK | Seals::WRITE)?;
    println!("  viewer got {} bytes that cannot change", memory.len_bytes()?);

    let mapping = memory.map(Mode::ReadOnly)?;
    let mut line = [0; WIDTH];
    for row in 0..HEIGHT {
        mapping.read_at(row * WIDTH, &mut line)?;
        println!("  {}", String::from_utf8_lossy(&line));
    }
    match memory.map(Mode::ReadWrite) {
        Ok(_) => return Err("the seal did not hold".into()),
        Err(error) => println!("  viewer may not paint: {error}"),
    }
    Ok(())
}

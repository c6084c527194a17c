//! `top`: what it prints for scripts, and, in tmux, what it draws and what keys and signals do.

pub(crate) mod cost;
mod scripts;
mod terminal;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

use switchboard_kernel::pipe;

use crate::run::eventually;

/// A pipe that nobody empties, with a writer that waits for room in it.
pub(crate) struct Full {
    writer: Child,
    _read: OwnedFd,
    /// What the inspector calls it.
    pub(crate) id: String,
}

impl Full {
    pub(crate) fn new() -> Self {
        let (read, write) = pipe::pipe().expect("a pipe");
        let link = std::os::fd::AsRawFd::as_raw_fd(&read.as_fd());
        let link = std::fs::read_link(format!("/proc/self/fd/{link}")).expect("a link");
        let inode = link.to_string_lossy().replace("pipe:[", "").replace(']', "");
        let mut yes = Command::new("yes");
        let writer = yes.stdin(Stdio::null()).stdout(write).stderr(Stdio::null()).spawn();
        let full = Self { writer: writer.expect("yes"), _read: read, id: format!("pipe:{inode}") };
        eventually("a full pipe", || sleeps_in_write(full.writer()));
        full
    }

    pub(crate) fn writer(&self) -> u32 {
        self.writer.id()
    }
}

fn sleeps_in_write(pid: u32) -> bool {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    let number = if cfg!(target_arch = "x86_64") { "1" } else { "64" };
    call.split(' ').next() == Some(number)
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = self.writer.kill();
        let _ = self.writer.wait();
    }
}

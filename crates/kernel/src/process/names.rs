//! Names of users, groups and programs.
//!
//! Source: `getpwnam_r(3)`, `getgrnam_r(3)`, `proc_pid_comm(5)`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::ptr;

use libc::{c_char, c_int};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// `getpwnam_r(name)`: a user's id. What is no user's name may be a number.
///
/// May ask a directory server, as `nsswitch.conf(5)` says, and then blocks for it.
///
/// # Errors
/// `ENOENT` when there is no such user; `EIO`, `EMFILE`, `ENOMEM` when it cannot be found out.
pub fn user_id_of_name(name: &str) -> Result<u32> {
    id_of(name, "getpwnam", |name, buffer| {
        // SAFETY: passwd is integers and pointers that may be null; all zeroes is valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: the name ends in NUL; entry, buffer and result are ours, with their true sizes.
        let code = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        (code, (!found.is_null()).then_some(entry.pw_uid))
    })
}

/// `getgrnam_r(name)`: a group's id. What is no group's name may be a number.
///
/// # Errors
/// As [`user_id_of_name`].
pub fn group_id_of_name(name: &str) -> Result<u32> {
    id_of(name, "getgrnam", |name, buffer| {
        // SAFETY: group is integers and pointers that may be null; all zeroes is valid.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: the name ends in NUL; entry, buffer and result are ours, with their true sizes.
        let code = unsafe {
            libc::getgrnam_r(
                name.as_ptr(),
                &raw mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &raw mut found,
            )
        };
        (code, (!found.is_null()).then_some(entry.gr_gid))
    })
}

/// `getpwuid_r(id)`: a user's name, if the id has one.
#[must_use]
pub fn user_name_of_id(id: u32) -> Option<String> {
    let found = with_buffer(|buffer| {
        // SAFETY: passwd is integers and pointers that may be null; all zeroes is valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: entry, buffer and result are ours, with their true sizes.
        let code = unsafe {
            libc::getpwuid_r(id, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        // SAFETY: a found entry's name is a string that ends in NUL, in `buffer`.
        (code, (!found.is_null()).then(|| unsafe { text(entry.pw_name) }))
    });
    found.ok().flatten()
}

/// `getgrgid_r(id)`: a group's name, if the id has one.
#[must_use]
pub fn group_name_of_id(id: u32) -> Option<String> {
    let found = with_buffer(|buffer| {
        // SAFETY: group is integers and pointers that may be null; all zeroes is valid.
        let mut entry: libc::group = unsafe { std::mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: entry, buffer and result are ours, with their true sizes.
        let code = unsafe {
            libc::getgrgid_r(id, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        // SAFETY: a found entry's name is a string that ends in NUL, in `buffer`.
        (code, (!found.is_null()).then(|| unsafe { text(entry.gr_name) }))
    });
    found.ok().flatten()
}

/// `/proc/PID/comm`: the name of a process's program, at most 15 bytes, as the process itself can
/// set it: for display, not for decisions. Characters that would act on a terminal become `?`.
/// `None` when there is no such process.
#[must_use]
pub fn command_name(pid: u32) -> Option<String> {
    let bytes = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let printable = |c: char| if acts_on_terminal(c) { '?' } else { c };
    Some(String::from_utf8_lossy(bytes).chars().map(printable).collect())
}

/// Control characters, and those that reorder or hide their neighbours.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || c == '\u{feff}'
}

/// Where a buffer for one entry ends to grow; a group of very many members needs much.
const LARGEST_ENTRY_BYTES: usize = 1 << 20;

fn id_of(
    name: &str,
    call: &'static str,
    look_up: impl Fn(&CStr, &mut [c_char]) -> (c_int, Option<u32>),
) -> Result<u32> {
    let c_name = CString::new(name).map_err(|_| Error::new(call, Errno::INVAL))?;
    let found = with_buffer(|buffer| look_up(&c_name, buffer));
    if let Ok(Some(id)) = found {
        return Ok(id);
    }
    // A number needs no directory, so it is taken even if asking for the name failed.
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    match name.parse() {
        // The highest id means "no change" to chown(2).
        Ok(id) if digits && id != u32::MAX => Ok(id),
        _ => Err(Error::new(call, found.err().unwrap_or(Errno::NOENT))),
    }
}

/// Repeats a look-up with a larger buffer for as long as it asks for one (`ERANGE`).
fn with_buffer<T>(
    look_up: impl Fn(&mut [c_char]) -> (c_int, Option<T>),
) -> core::result::Result<Option<T>, Errno> {
    let mut size_bytes = 1024;
    loop {
        let mut buffer: Vec<c_char> = vec![0; size_bytes];
        match look_up(&mut buffer) {
            (libc::ERANGE, _) if size_bytes < LARGEST_ENTRY_BYTES => size_bytes *= 4,
            (libc::EINTR, _) => {}
            // "Not found" has several codes: see getpwnam_r(3), NOTES.
            (0 | libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM, found) => {
                return Ok(found);
            }
            (code, _) => return Err(Errno::from_raw_os_error(code)),
        }
    }
}

/// # Safety
/// `start` points to a string that ends in NUL.
unsafe fn text(start: *const c_char) -> String {
    // SAFETY: as the caller promised.
    unsafe { CStr::from_ptr(start) }.to_string_lossy().into_owned()
}

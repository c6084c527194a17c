//! Random bytes that nobody can foretell and no two processes get alike, a forked child and its parent
//! neither.
//!
//! Source: `getrandom(2)`.

use rustix::rand::GetRandomFlags;

use crate::error::Result;
use crate::io::retry;

/// `getrandom(bytes, 0)`: fills all of them.
///
/// Blocks only early in the system's boot, until the kernel has gathered enough.
///
/// ```
/// use switchboard_kernel::random;
///
/// let mut id = [0; 16];
/// random::fill(&mut id)?;
/// assert_ne!(id, [0; 16]);
/// # Ok::<(), switchboard_kernel::Error>(())
/// ```
///
/// # Errors
/// `ENOSYS` where a filter of system calls hides it.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        filled += retry("getrandom", || {
            rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty())
        })?;
    }
    Ok(())
}

//! Signal numbers and their names.
//!
//! Source: `signal(7)` ("Signal numbering for standard signals", "Real-time signals"), `kill(1)`.

use core::fmt;
use core::str::FromStr;

/// A signal: one of the standard ones, or a real-time one.
///
/// The two numbers between them that the C library keeps for itself are none.
///
/// ```
/// use switchboard_kernel::signal::Signal;
///
/// assert_eq!("SIGTERM".parse(), Ok(Signal::TERM));
/// assert_eq!("term".parse(), Ok(Signal::TERM));
/// assert_eq!("15".parse(), Ok(Signal::TERM));
///
/// let second: Signal = "RTMIN+1".parse()?;
/// assert_eq!(Some(second), Signal::real_time(1));
/// assert_eq!(second.to_string(), "SIGRTMIN+1");
/// # Ok::<(), switchboard_kernel::signal::UnknownSignal>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(i32);

impl Signal {
    /// `SIGHUP`: the terminal is gone, or read the configuration again.
    pub const HUP: Self = Self(libc::SIGHUP);
    /// `SIGINT`: Ctrl-C.
    pub const INT: Self = Self(libc::SIGINT);
    /// `SIGQUIT`: Ctrl-\.
    pub const QUIT: Self = Self(libc::SIGQUIT);
    /// `SIGILL`: an instruction that is none.
    pub const ILL: Self = Self(libc::SIGILL);
    /// `SIGTRAP`: a breakpoint.
    pub const TRAP: Self = Self(libc::SIGTRAP);
    /// `SIGABRT`: `abort(3)`.
    pub const ABORT: Self = Self(libc::SIGABRT);
    /// `SIGBUS`: memory that cannot be had, such as a mapped file beyond its end.
    pub const BUS: Self = Self(libc::SIGBUS);
    /// `SIGFPE`: a division by zero.
    pub const FPE: Self = Self(libc::SIGFPE);
    /// `SIGKILL`: ends the process; cannot be blocked, handled or ignored.
    pub const KILL: Self = Self(libc::SIGKILL);
    /// `SIGUSR1`: as the program likes.
    pub const USR1: Self = Self(libc::SIGUSR1);
    /// `SIGSEGV`: memory that is not the process's.
    pub const SEGV: Self = Self(libc::SIGSEGV);
    /// `SIGUSR2`: as the program likes.
    pub const USR2: Self = Self(libc::SIGUSR2);
    /// `SIGPIPE`: a write to a pipe that nobody reads.
    pub const PIPE: Self = Self(libc::SIGPIPE);
    /// `SIGALRM`: `alarm(2)`.
    pub const ALARM: Self = Self(libc::SIGALRM);
    /// `SIGTERM`: end, please.
    pub const TERM: Self = Self(libc::SIGTERM);
    /// `SIGCHLD`: a child ended, stopped or went on.
    pub const CHILD: Self = Self(libc::SIGCHLD);
    /// `SIGCONT`: go on after a stop.
    pub const CONT: Self = Self(libc::SIGCONT);
    /// `SIGSTOP`: stops the process; cannot be blocked, handled or ignored.
    pub const STOP: Self = Self(libc::SIGSTOP);
    /// `SIGTSTP`: Ctrl-Z.
    pub const TSTP: Self = Self(libc::SIGTSTP);
    /// `SIGTTIN`: a background process reads from the terminal.
    pub const TTIN: Self = Self(libc::SIGTTIN);
    /// `SIGTTOU`: a background process writes to the terminal.
    pub const TTOU: Self = Self(libc::SIGTTOU);
    /// `SIGURG`: urgent data on a socket.
    pub const URG: Self = Self(libc::SIGURG);
    /// `SIGXCPU`: more processor time used than `RLIMIT_CPU` allows.
    pub const XCPU: Self = Self(libc::SIGXCPU);
    /// `SIGXFSZ`: a file larger than `RLIMIT_FSIZE` allows.
    pub const XFSZ: Self = Self(libc::SIGXFSZ);
    /// `SIGVTALRM`: `setitimer(2)`, by the process's own time.
    pub const VTALARM: Self = Self(libc::SIGVTALRM);
    /// `SIGPROF`: `setitimer(2)`, for profilers.
    pub const PROF: Self = Self(libc::SIGPROF);
    /// `SIGWINCH`: the terminal's size changed.
    pub const WINCH: Self = Self(libc::SIGWINCH);
    /// `SIGIO`: a descriptor is ready, `fcntl(2)` `F_SETSIG`.
    pub const IO: Self = Self(libc::SIGIO);
    /// `SIGPWR`: the power fails.
    pub const POWER: Self = Self(libc::SIGPWR);
    /// `SIGSYS`: a system call that is forbidden or is none.
    pub const SYS: Self = Self(libc::SIGSYS);

    /// The signal of this number; `None` where there is none that programs may use.
    #[inline]
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        let is_real_time = || {
            let (lowest, highest) = real_time_range();
            (lowest..=highest).contains(&number)
        };
        let known = (1..=LAST_STANDARD).contains(&number) || is_real_time();
        known.then_some(Self(number))
    }

    /// `SIGRTMIN + offset`: a real-time signal; `None` beyond `SIGRTMAX` (an offset of 30 with the
    /// GNU C library).
    #[must_use]
    pub fn real_time(offset: u32) -> Option<Self> {
        let (lowest, highest) = real_time_range();
        let number = lowest.checked_add(i32::try_from(offset).ok()?)?;
        (number <= highest).then_some(Self(number))
    }

    /// All there are, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=real_time_range().1).filter_map(Self::from_number)
    }

    /// Its number on this machine. Real-time signals are better spoken of by their offset.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether it is a real-time signal: each one sent is queued, with its value, and none is
    /// merged with another.
    #[must_use]
    pub fn is_real_time(self) -> bool {
        self.0 > LAST_STANDARD
    }
}

/// What was parsed is not the name or the number of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownSignal;

impl fmt::Display for UnknownSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (lowest, highest) = real_time_range();
        let last = highest - lowest;
        write!(f, "no such signal; say SIGTERM, TERM, 15 or SIGRTMIN+0 to SIGRTMIN+{last}")
    }
}

impl std::error::Error for UnknownSignal {}

/// `SIGTERM`, `SIGRTMIN+1`.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = NAMES.iter().find(|(_, number)| *number == self.0) {
            return write!(f, "SIG{name}");
        }
        let lowest = real_time_range().0;
        match self.0 - lowest {
            0 => f.write_str("SIGRTMIN"),
            offset if offset > 0 => write!(f, "SIGRTMIN+{offset}"),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// With or without `SIG`, in capitals or not; `RTMIN+n`, `RTMAX-n`; or a number.
impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, UnknownSignal> {
        if let Some(number) = digits(text) {
            return Self::from_number(number).ok_or(UnknownSignal);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, number)) = NAMES.iter().chain(ALIASES).find(|(known, _)| *known == name) {
            return Ok(Self(*number));
        }
        let (lowest, highest) = real_time_range();
        let number = if let Some(offset) = name.strip_prefix("RTMIN") {
            lowest.checked_add(signed_offset(offset, '+')?)
        } else if let Some(offset) = name.strip_prefix("RTMAX") {
            highest.checked_sub(signed_offset(offset, '-')?)
        } else {
            None
        };
        match number {
            Some(number) if (lowest..=highest).contains(&number) => Ok(Self(number)),
            _ => Err(UnknownSignal),
        }
    }
}

/// `""` is 0, `"+3"` is 3.
fn signed_offset(text: &str, sign: char) -> Result<i32, UnknownSignal> {
    if text.is_empty() {
        return Ok(0);
    }
    text.strip_prefix(sign).and_then(digits).ok_or(UnknownSignal)
}

/// A number of digits only: `parse` would also take a sign.
fn digits(text: &str) -> Option<i32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// The lowest and highest that the C library leaves to programs; it settles them when it starts.
fn real_time_range() -> (i32, i32) {
    (libc::SIGRTMIN(), libc::SIGRTMAX())
}

/// Standard signals have the numbers up to this one.
const LAST_STANDARD: i32 = 31;

/// Names as `kill -l` has them.
const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    #[cfg(not(any(target_arch = "mips", target_arch = "mips64", target_arch = "sparc64")))]
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// Other names that are understood.
const ALIASES: &[(&str, i32)] =
    &[("IOT", libc::SIGABRT), ("CLD", libc::SIGCHLD), ("POLL", libc::SIGIO)];

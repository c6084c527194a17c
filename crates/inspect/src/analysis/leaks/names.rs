//! Whether a name was chosen or generated. Who comes by a chosen name may come at any time; a generated one is known to those who were told it.
//!
//! Source: docs/design/leaks.md, "Names". A number alone may be anything, a port or a year, and makes no name a generated one.

use crate::kind::Kind;

/// How a name came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// Somebody thought of it.
    Chosen,
    /// A program made it; how that shows.
    Generated(String),
}

/// What libraries begin names with that they generate, and how many characters follow at least.
const PREFIXES: &[(&str, usize, &str)] = &[
    ("psm_", 4, "Python's shared_memory"),
    ("mp-", 6, "Python's multiprocessing"),
    ("loky-", 6, "joblib"),
    ("torch_", 6, "PyTorch"),
    (".org.chromium.", 6, "Chromium"),
    (".com.google.Chrome.", 4, "Chrome"),
    ("org.mozilla.ipc.", 3, "Firefox"),
    ("pulse-shm-", 4, "PulseAudio"),
    ("nccl-", 6, "NCCL"),
    ("vader_segment.", 6, "Open MPI"),
    ("sm_segment.", 6, "Open MPI"),
];

/// How the name of an object came about; of a path, what stands behind the folder of its kind.
pub(super) fn given(kind: Kind, path: &str) -> Given {
    let name = own_part(kind, path);
    for (prefix, least, whose) in PREFIXES {
        if name.strip_prefix(prefix).is_some_and(|rest| rest.len() >= *least) {
            return Given::Generated(format!("as {whose} does"));
        }
    }
    match tokens(name).find(|token| is_random(token)) {
        Some(token) => Given::Generated(format!("{token} looks random")),
        None => Given::Chosen,
    }
}

/// What of a generated name stands wherever somebody was told it: its last part, if that is generated, or all of it.
pub(super) fn telling(kind: Kind, path: &str) -> &str {
    let own = own_part(kind, path);
    let last = own.rsplit('/').next().unwrap_or(own);
    match given(kind, last) {
        Given::Generated(_) => last,
        Given::Chosen => own,
    }
}

fn own_part(kind: Kind, path: &str) -> &str {
    let own = match kind {
        Kind::PosixSem => path.strip_prefix("/dev/shm/sem."),
        Kind::PosixShm => path.strip_prefix("/dev/shm/"),
        Kind::Mq => path.strip_prefix('/'),
        _ => None,
    };
    own.unwrap_or(path)
}

fn tokens(name: &str) -> impl Iterator<Item = &str> {
    name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|token| !token.is_empty())
}

/// Numbers in a name that may be process ids.
pub(super) fn numbers(name: &str) -> impl Iterator<Item = u32> {
    const MOST: u32 = 1 << 22;
    let two = |token: &&str| token.len() > 1 && !token.starts_with('0');
    tokens(name).filter(two).filter_map(|token| token.parse().ok()).filter(|&pid| pid <= MOST)
}

/// Whether a word of a name says which program made it: `PostgreSQL.1804289383` and `postgres`.
pub(super) fn is_program_of(name: &str, program: &str) -> bool {
    const SAME: usize = 5;
    let program = program.to_ascii_lowercase();
    let alike = |word: &str| {
        let word = word.to_ascii_lowercase();
        let same = word.bytes().zip(program.bytes()).take_while(|(a, b)| a == b).count();
        same >= SAME || (same >= 3 && same == program.len() && same == word.len())
    };
    let words = tokens(name).filter(|token| !is_random(token));
    words.filter(|word| !["dev", "shm", "sem"].contains(word)).any(alike)
}

/// Whether nobody would think of it: digits and letters that change often, many hexadecimal digits, a very long number.
fn is_random(token: &str) -> bool {
    const LONG_NUMBER: usize = 9;
    let bytes = token.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == bytes.len() {
        return digits >= LONG_NUMBER;
    }
    let lower_hex = bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let upper_hex = bytes.iter().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if bytes.len() >= 8 && digits >= 2 && (lower_hex || upper_hex) {
        return true;
    }
    let class = |byte: &u8| match byte {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        _ => 2,
    };
    let changes = |of: &dyn Fn(u8, u8) -> bool| {
        bytes.windows(2).filter(|pair| of(class(&pair[0]), class(&pair[1]))).count()
    };
    let with_digits = changes(&|a, b| (a == 0) != (b == 0));
    let of_case = changes(&|a, b| a != b && a != 0 && b != 0);
    bytes.len() >= 6 && (with_digits >= 3 || (bytes.len() == 6 && of_case >= 3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_or_generated() {
        for chosen in [
            "jobs",
            "camera_frames",
            "app-2024",
            "port-8080",
            "videoFrames",
            "myAppData",
            "engine1",
            "state-20240131",
            "x",
            "",
            "frames-640x480",
            "worker-12",
            "sha256",
            "myapp.lock",
            "deadbeef",
        ] {
            let path = format!("/dev/shm/{chosen}");
            assert_eq!(given(Kind::PosixShm, &path), Given::Chosen, "{chosen}");
        }
        for generated in [
            "psm_1f03cc2a",
            "torch_4711_1804289383_0",
            ".org.chromium.Chromium.mNkT6d",
            "PostgreSQL.1804289383",
            "tmp.a1b2c3d",
            "9f86d081884c7d65",
            "app-xY7kQ2",
            "aBcDeF",
            ".jobs.00f3a1b2c3d4e5f6",
            "550e8400-e29b-41d4-a716-446655440000",
        ] {
            let path = format!("/dev/shm/{generated}");
            assert!(matches!(given(Kind::PosixShm, &path), Given::Generated(_)), "{generated}");
        }
        assert!(matches!(given(Kind::PosixSem, "/dev/shm/sem.mp-a_b_c_d_"), Given::Generated(_)));
        assert_eq!(given(Kind::Mq, "/jobs"), Given::Chosen);
    }

    #[test]
    fn what_somebody_was_told() {
        for (kind, path, told) in [
            (Kind::PosixShm, "/dev/shm/psm_1f03cc2a", "psm_1f03cc2a"),
            (Kind::PosixSem, "/dev/shm/sem.mp-a1b2c3d4", "mp-a1b2c3d4"),
            (Kind::Mq, "/reply-9f86d081884c7d65", "reply-9f86d081884c7d65"),
            (Kind::Fifo, "/tmp/x/reply-9f86d081884c7d65", "reply-9f86d081884c7d65"),
            (Kind::Fifo, "/tmp/tmp.a1b2c3d/out", "/tmp/tmp.a1b2c3d/out"),
        ] {
            assert_eq!(telling(kind, path), told);
        }
    }

    #[test]
    fn ids_and_programs() {
        assert_eq!(numbers("/dev/shm/a-812-7.04_99999999").collect::<Vec<_>>(), [812]);
        assert!(is_program_of("/dev/shm/PostgreSQL.1804289383", "postgres"));
        assert!(!is_program_of("/dev/shm/psm_1f03cc2a", "python3"));
        assert!(!is_program_of("/dev/shm/sem.x", "semd"));
        assert!(is_program_of("/nginx-a1b2c3d4", "nginx"));
    }
}

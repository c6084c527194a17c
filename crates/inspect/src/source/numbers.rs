//! Numbers in the text of /proc, which may be anything.
//!
//! Source: `proc(5)`.

/// A decimal number that is the whole text.
#[must_use]
pub fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// A decimal number of 32 bits.
#[must_use]
pub fn small(text: &[u8]) -> Option<u32> {
    decimal(text).and_then(|number| u32::try_from(number).ok())
}

/// A decimal number that may be negative.
#[must_use]
pub fn signed(text: &[u8]) -> Option<i64> {
    match text.strip_prefix(b"-") {
        Some(rest) => decimal(rest).and_then(|number| i64::try_from(number).ok()).map(|n| -n),
        None => decimal(text).and_then(|number| i64::try_from(number).ok()),
    }
}

/// A hexadecimal number, with `0x` or without.
#[must_use]
pub fn hexadecimal(text: &[u8]) -> Option<u64> {
    let text = text.strip_prefix(b"0x").unwrap_or(text);
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        Some(number << 4 | u64::from(char::from(byte).to_digit(16)?))
    })
}

/// An octal number.
#[must_use]
pub fn octal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 21 {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        let digit = (b'0'..=b'7').contains(&byte).then(|| u64::from(byte - b'0'))?;
        number.checked_mul(8)?.checked_add(digit)
    })
}

/// The words between white space.
pub fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> + Clone {
    line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

/// What follows `name:` at the start of a line, trimmed; the first such line.
#[must_use]
pub fn field<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let rest = line.strip_prefix(name.as_bytes())?.strip_prefix(b":")?;
        Some(rest.trim_ascii())
    })
}

/// A device's numbers, as `stat(2)` gives them in one.
#[must_use]
pub fn device(dev: u64) -> (u32, u32) {
    (rustix::fs::major(dev), rustix::fs::minor(dev))
}

/// A device that is written in hexadecimal with a colon: `fe:01`.
#[must_use]
pub fn device_in_text(text: &[u8]) -> Option<u64> {
    let at = text.iter().position(|&byte| byte == b':')?;
    let major = u32::try_from(hexadecimal(&text[..at])?).ok()?;
    let minor = u32::try_from(hexadecimal(&text[at + 1..])?).ok()?;
    Some(rustix::fs::makedev(major, minor))
}

/// A device that is written in decimal with a colon: `254:1`.
#[must_use]
pub fn device_in_decimal(text: &[u8]) -> Option<u64> {
    let at = text.iter().position(|&byte| byte == b':')?;
    Some(rustix::fs::makedev(small(&text[..at])?, small(&text[at + 1..])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers() {
        assert_eq!(decimal(b"18446744073709551615"), Some(u64::MAX));
        for wrong in [&b""[..], b"18446744073709551616", b"-1", b"1 ", b"0x1", b"\xff"] {
            assert_eq!(decimal(wrong), None);
        }
        assert_eq!(signed(b"-12"), Some(-12));
        assert_eq!(signed(b"--12"), None);
        assert_eq!(hexadecimal(b"0xfF"), Some(255));
        assert_eq!(hexadecimal(b"11112222333344445"), None);
        assert_eq!(octal(b"02000001"), Some(0o2_000_001));
        assert_eq!(octal(b"8"), None);
        assert_eq!(field(b"a: 1\nab:\t 2 \n", "ab"), Some(&b"2"[..]));
        assert_eq!(device_in_text(b"fe:01"), Some(rustix::fs::makedev(0xfe, 1)));
        assert_eq!(device_in_text(b"fe01"), None);
        assert_eq!(device_in_decimal(b"254:1"), Some(rustix::fs::makedev(254, 1)));
        assert_eq!(device_in_decimal(b"254:1a"), None);
    }
}

//! Medians, ratios, and how numbers are shown.

/// The median; of an even number of values, the mean of the middle two. `None` of none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// The value below which `per_mille` of the sorted values lie.
pub(crate) fn percentile(sorted: &[u32], per_mille: usize) -> u32 {
    let at = sorted.len().saturating_sub(1) * per_mille / 1000;
    sorted.get(at).copied().unwrap_or(0)
}

/// A median with the lowest and the highest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let median = median(values.iter().copied())?;
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Some(Self { median, low, high })
    }
}

/// Three digits that count, with thousands set apart: `4.21`, `84.0`, `1,230`.
pub(crate) fn show(value: f64) -> String {
    if value >= 99.95 {
        let digits = format!("{value:.0}");
        let mut shown = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                shown.push(',');
            }
            shown.push(digit);
        }
        return shown;
    }
    let decimals = if value >= 9.995 { 1 } else { 2 };
    format!("{value:.decimals$}")
}

/// `8 B`, `4 KiB`, `1 MiB`.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{} MiB", n >> 20),
        n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => format!("{} KiB", n >> 10),
        n => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median([]), None);
        assert_eq!(median([9.0, 1.0]), Some(5.0));
        assert_eq!(median([4.0, 1.0, 2.0]), Some(2.0));
        let spread = Spread { median: 3.0, low: 2.0, high: 4.0 };
        assert_eq!(Spread::of(&[2.0, 3.0, 4.0]), Some(spread));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn percentiles() {
        let sorted: Vec<u32> = (0..1001).collect();
        for (per_mille, expected) in [(0, 0), (500, 500), (999, 999), (1000, 1000)] {
            assert_eq!(percentile(&sorted, per_mille), expected);
        }
        assert_eq!(percentile(&[], 500), 0);
    }

    #[test]
    fn numbers_are_readable() {
        for (value, shown) in [
            (4.213, "4.21"),
            (9.996, "10.0"),
            (84.04, "84.0"),
            (99.96, "100"),
            (1234.4, "1,234"),
            (50_000_000.0, "50,000,000"),
        ] {
            assert_eq!(show(value), shown);
        }
        for (bytes, shown) in [(8, "8 B"), (1024, "1 KiB"), (65536, "64 KiB"), (1 << 20, "1 MiB")] {
            assert_eq!(size(bytes), shown);
        }
    }
}

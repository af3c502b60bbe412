//! Sizes and times as people write them.

use std::time::Duration;

/// Parses a size in bytes: `4096`, `64K`, `1.5M`, `2G`; the units are powers of 1,024.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: write bytes, or 64K, 1.5M, 2G");
    let trimmed = text
        .trim()
        .trim_end_matches(['b', 'B'])
        .trim_end_matches('i');
    let (number, shift) = match trimmed.char_indices().last() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let shift = match unit.to_ascii_uppercase() {
                'K' => 10,
                'M' => 20,
                'G' => 30,
                'T' => 40,
                _ => return Err(wrong()),
            };
            (&trimmed[..at], shift)
        }
        _ => (trimmed, 0),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let fraction: f64 = number.parse().map_err(|_| wrong())?;
    let scaled =
        fraction * f64::from(1_u32 << shift.min(30)) * if shift == 40 { 1024.0 } else { 1.0 };
    if !scaled.is_finite() || !(0.0..9e15).contains(&scaled) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked to lie within the integers that f64 holds exactly"
    )]
    Ok(scaled as u64)
}

/// Parses a time: `10` or `10s`, `500ms`, `5m`, `1h 30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.trim().parse::<f64>() {
        return Duration::try_from_secs_f64(seconds)
            .map_err(|_| format!("{text:?} is no time: write seconds, or 500ms, 10s, 5m, 1h"));
    }
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is no time: write seconds, or 500ms, 10s, 5m, 1h"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that sizes are read in powers of 1,024, with and without a unit's tail.
    #[test]
    fn sizes() {
        assert_eq!(bytes("0"), Ok(0));
        assert_eq!(bytes("4096"), Ok(4096));
        assert_eq!(bytes("64K"), Ok(65_536));
        assert_eq!(bytes("64kB"), Ok(65_536));
        assert_eq!(bytes("1MiB"), Ok(1 << 20));
        assert_eq!(bytes("1.5M"), Ok(3 << 19));
        assert_eq!(bytes("2T"), Ok(2 << 40));
    }

    /// Make sure that what is no size is refused, not read as something else.
    #[test]
    fn no_sizes() {
        for text in ["", "K", "-1", "1X", "1e400", "nan", "99999999999T"] {
            assert!(bytes(text).is_err(), "{text:?}");
        }
    }

    /// Make sure that a bare number is seconds.
    #[test]
    fn times() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_mins(90)));
        for text in ["", "-1", "nan", "10 parsecs"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }
}

//! Numbers as people read them.

use std::{fmt, time::Duration};

/// A number of bytes in units of 1024, with one decimal.
#[derive(Clone, Copy)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        if self.0 < 1024 {
            return f.pad(&format!("{} B", self.0));
        }
        // In tenths of a unit, rounded; 1023.95 KiB becomes 1.0 MiB.
        let mut scale: u128 = 1024;
        let mut unit = 0;
        let tenths = loop {
            let tenths = (u128::from(self.0) * 10 + scale / 2) / scale;
            if tenths < 10_240 || unit + 1 == UNITS.len() {
                break tenths;
            }
            scale *= 1024;
            unit += 1;
        };
        let (whole, tenth) = (tenths / 10, tenths % 10);
        f.pad(&format!("{whole}.{tenth} {}", UNITS[unit]))
    }
}

/// A whole number with commas between groups of three digits.
#[derive(Clone, Copy)]
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 4 / 3);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// A number of things, with the right ending: `1 block`, `2 blocks`.
#[must_use]
pub fn plural(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", Count(count))
}

/// A time span in its two largest units.
#[derive(Clone, Copy)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let text = match seconds {
            0..60 => {
                // Cut, not rounded: 59.96 s is not a minute.
                let tenths = self.0.as_millis() / 100;
                format!("{}.{} s", tenths / 10, tenths % 10)
            }
            60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
            3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
            _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
        };
        f.pad(&text)
    }
}

/// `part` of `whole` in percent; 0 of nothing is 0.
#[must_use]
pub fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        part / whole * 100.0
    } else {
        0.0
    }
}

/// A count as a float, for shares and rates.
#[expect(
    clippy::cast_precision_loss,
    reason = "shares and rates are printed with few digits"
)]
#[must_use]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// A rate as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "`as` saturates, and rates are not negative"
)]
#[must_use]
pub fn per(count: u64, unit: f64) -> u64 {
    if unit > 0.0 {
        (float(count) / unit).round() as u64
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Make sure that bytes are rounded to a tenth and never print as 1024.0 of a unit.
    #[test]
    fn bytes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (12_897_485, "12.3 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>9}", Bytes(1_024)), "  1.0 KiB");
    }

    /// Make sure that commas stand between groups of three.
    #[test]
    fn counts() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ] {
            assert_eq!(Count(count).to_string(), text);
        }
        assert_eq!(plural(1, "block"), "1 block");
        assert_eq!(plural(1_000, "block"), "1,000 blocks");
    }

    /// Make sure that spans change their units where they should.
    #[test]
    fn spans() {
        for (millis, text) in [
            (0, "0.0 s"),
            (59_960, "59.9 s"),
            (60_000, "1m00s"),
            (3_599_999, "59m59s"),
            (3_660_000, "1h01m"),
            (90_000_000, "1d01h"),
        ] {
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
    }
}

//! Numbers for people: three digits that matter, and a unit.

use std::time::Duration;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Bytes in binary units: `0 B`, `1023 B`, `1.50 KiB`, `12.0 GiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    if bytes < 1024 { format!("{bytes} B") } else { scaled(bytes as f64) }
}

/// Bytes per second in binary units: `118 MiB/s`. Anything that is no rate is `0 B/s`.
#[must_use]
pub fn rate(bytes_per_second: f64) -> String {
    let rate = if bytes_per_second.is_finite() { bytes_per_second.max(0.0) } else { 0.0 };
    if rate < 1024.0 { format!("{rate:.0} B/s") } else { format!("{}/s", scaled(rate)) }
}

/// A count with its thousands apart: `1,234,567`.
#[must_use]
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of things by their name: `1 entry`, `2 entries`.
#[must_use]
pub fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A time span by its two largest units: `320ms`, `8.1s`, `42s`, `4m 05s`, `1h 02m`, `3d 04h`.
#[must_use]
pub fn duration(span: Duration) -> String {
    // Below ten seconds tenths matter; the bound is where rounding would show `10.0s`.
    let millis = span.as_millis();
    if millis < 1000 {
        return format!("{millis}ms");
    }
    if millis < 9950 {
        return format!("{:.1}s", span.as_secs_f64());
    }
    let seconds = span.as_secs() + u64::from(span.subsec_millis() >= 500);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s:02}s"),
        (0, h, m, _) => format!("{h}h {m:02}m"),
        (d, h, _, _) => format!("{d}d {h:02}h"),
    }
}

fn scaled(bytes: f64) -> String {
    let mut value = bytes;
    let mut unit = 0;
    // 1023.5 would be shown as `1024`, which is 1 of the next unit.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_thing_is_not_many() {
        assert_eq!(counted(0, "entry", "entries"), "0 entries");
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
        assert_eq!(counted(2, "entry", "entries"), "2 entries");
    }

    #[test]
    fn bytes_at_the_edges() {
        let shown = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10_234, "9.99 KiB"),
            (10_235, "10.0 KiB"),
            (1024 * 1023, "1023 KiB"),
            (1024 * 1024 - 1, "1.00 MiB"),
            (1024 * 1024 * 1024 * 3 / 2, "1.50 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (number, text) in shown {
            assert_eq!(bytes(number), text);
        }
    }

    #[test]
    fn rates_that_are_none() {
        assert_eq!(rate(f64::NAN), "0 B/s");
        assert_eq!(rate(-3.0), "0 B/s");
        assert_eq!(rate(f64::INFINITY), "0 B/s");
        assert_eq!(rate(123_456_789.0), "118 MiB/s");
    }

    #[test]
    fn durations_at_the_edges() {
        let shown = [
            (0, "0ms"),
            (999, "999ms"),
            (1000, "1.0s"),
            (8149, "8.1s"),
            (9949, "9.9s"),
            (9950, "10s"),
            (59_499, "59s"),
            (59_500, "1m 00s"),
            (3_599_400, "59m 59s"),
            (3_720_000, "1h 02m"),
            (86_399_400, "23h 59m"),
            (273_600_000, "3d 04h"),
        ];
        for (millis, text) in shown {
            assert_eq!(duration(Duration::from_millis(millis)), text, "{millis}");
        }
    }

    proptest! {
        #[test]
        fn bytes_read_back_within_half_a_percent(exponent in 0..64_u32, fraction: u64) {
            let number = fraction >> exponent;
            let text = bytes(number);
            let (value, unit) = text.split_once(' ').unwrap();
            let factor = 1024_f64.powi(UNITS.iter().position(|u| *u == unit).unwrap() as i32);
            let read = value.parse::<f64>().unwrap() * factor;
            prop_assert!((read - number as f64).abs() <= number as f64 * 0.005 + 0.5, "{}", text);
            prop_assert!(value.len() <= 4, "{}", text);
        }

        #[test]
        fn counts_keep_their_digits(number: u64) {
            let text = count(number);
            prop_assert_eq!(text.replace(',', ""), number.to_string());
            prop_assert!(text.rsplit(',').skip(1).all(|group| group.len() <= 3));
            prop_assert!(text.split(',').skip(1).all(|group| group.len() == 3));
        }
    }
}

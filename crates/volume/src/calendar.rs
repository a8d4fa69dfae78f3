//! Points in time as people read them: date and time of day in UTC.

use std::fmt;

use wire::Timestamp;

const DAY: i64 = 86_400;

/// `2026-11-26 14:14:42.781Z`, with as many digits of the second as are needed to tell it from another one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shown {
    time: Timestamp,
    nanoseconds: bool,
}

impl Shown {
    /// To the nanosecond.
    pub(crate) fn exact(time: Timestamp) -> Self {
        Self { time, nanoseconds: true }
    }

    /// Two times that differ: in milliseconds where that shows the difference.
    pub(crate) fn pair(a: Timestamp, b: Timestamp) -> [Self; 2] {
        let to_millis = |time: Timestamp| (time.secs, time.nanos / 1_000_000);
        let nanoseconds = to_millis(a) == to_millis(b);
        [a, b].map(|time| Self { time, nanoseconds })
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Timestamp { secs, nanos } = self.time;
        let (year, month, day) = date(secs.div_euclid(DAY));
        let second = secs.rem_euclid(DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")?;
        if self.nanoseconds {
            write!(f, ".{nanos:09}Z")
        } else {
            write!(f, ".{:03}Z", nanos / 1_000_000)
        }
    }
}

/// Year, month and day of the Gregorian calendar, `days` after 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    // The calendar repeats every 400 years. In years that begin in March the leap day comes last.
    const PERIOD: i64 = 400 * 365 + 97;
    const MARCH_OF_YEAR_0: i64 = 719_468;
    let days = days + MARCH_OF_YEAR_0;
    let day = days.rem_euclid(PERIOD);
    let year = (day - day / 1460 + day / 36_524 - day / (PERIOD - 1)) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + days.div_euclid(PERIOD) * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64, nanos: u32) -> Timestamp {
        Timestamp { secs, nanos }
    }

    #[test]
    fn seconds_since_1970_become_date_and_time() {
        for (secs, shown) in [
            (0, "1970-01-01 00:00:00.000000000Z"),
            (-1, "1969-12-31 23:59:59.000000000Z"),
            (951_782_400, "2000-02-29 00:00:00.000000000Z"),
            (1_795_702_482, "2026-11-26 14:14:42.000000000Z"),
            (4_107_542_400, "2100-03-01 00:00:00.000000000Z"),
            (-62_135_596_800, "0001-01-01 00:00:00.000000000Z"),
        ] {
            assert_eq!(Shown::exact(at(secs, 0)).to_string(), shown);
        }
        for extreme in [i64::MIN, i64::MAX] {
            assert!(Shown::exact(at(extreme, 0)).to_string().len() > 20);
        }
    }

    #[test]
    fn times_that_differ_look_different() {
        let shown = |a, b| Shown::pair(a, b).map(|time| time.to_string());
        let [a, b] = shown(at(1, 1_999_999), at(1, 2_000_000));
        assert_eq!((&*a, &*b), ("1970-01-01 00:00:01.001Z", "1970-01-01 00:00:01.002Z"));
        let [a, b] = shown(at(1, 1_000_001), at(1, 1_000_002));
        let ends = |text: &str, end| text.ends_with(end);
        assert!(ends(&a, ".001000001Z") && ends(&b, ".001000002Z"), "{a} {b}");
    }
}

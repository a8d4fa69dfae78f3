//! Which snapshots of a group a policy keeps. The rules are those of `restic forget`.
//!
//! Snapshots are looked at from the newest to the oldest. A rule keeps the newest snapshot of each period (hour, day, ISO week,
//! month, year) until it has kept as many as it may. A rule that has not kept as many when it comes to the oldest snapshot keeps
//! that one, too. Periods are those of the time zone that the snapshot was made in.

use std::{convert::Infallible, str::FromStr};

/// How many snapshots a rule keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// At most so many.
    Newest(u64),
    /// One of each period.
    All,
}

impl Default for Keep {
    fn default() -> Self {
        Self::Newest(0)
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" => Ok(Self::All),
            number => number
                .parse()
                .map(Self::Newest)
                .map_err(|_| "expected a number or unlimited".to_owned()),
        }
    }
}

/// Tags that a snapshot must have all of. Commas separate them; one empty tag stands for a snapshot without tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList(Vec<String>);

impl FromStr for TagList {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.split(',').map(|tag| tag.trim().to_owned()).collect()))
    }
}

impl TagList {
    pub(crate) fn matches(&self, tags: &[String]) -> bool {
        if tags.is_empty() { self.0[0].is_empty() } else { self.0.iter().all(|t| tags.contains(t)) }
    }
}

/// What is kept: every snapshot that one of the rules keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// The last snapshots.
    pub last: Keep,
    /// Snapshots of different hours.
    pub hourly: Keep,
    /// Snapshots of different days.
    pub daily: Keep,
    /// Snapshots of different weeks.
    pub weekly: Keep,
    /// Snapshots of different months.
    pub monthly: Keep,
    /// Snapshots of different years.
    pub yearly: Keep,
    /// Snapshots with the tags of one of the lists.
    pub tags: Vec<TagList>,
}

/// When a snapshot was made, in its own time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) year: i16,
    pub(crate) month: i8,
    pub(crate) day: i8,
    pub(crate) hour: i8,
    /// The year that the ISO week belongs to, and its number.
    pub(crate) week: (i16, i8),
}

/// A period: equal for two snapshots of the same one.
type Period = (i16, [i8; 3]);

/// One rule while it is applied.
struct Rule {
    left: Keep,
    /// `None` where each snapshot is a period of its own.
    period: fn(&Moment) -> Option<Period>,
    last: Option<Period>,
}

impl Rule {
    /// True where the rule keeps the next snapshot.
    fn keeps(&mut self, made: &Moment, oldest: bool) -> bool {
        let period = (self.period)(made);
        let same = period.is_some() && period == self.last;
        if self.left == Keep::Newest(0) || (same && !oldest) {
            return false;
        }
        self.last = period;
        if let Keep::Newest(left) = &mut self.left {
            *left -= 1;
        }
        true
    }
}

impl Policy {
    /// True for a policy without rules. It would keep nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.rules().iter().all(|rule| rule.left == Keep::Newest(0))
    }

    fn rules(&self) -> [Rule; 6] {
        let rule = |left, period| Rule { left, period, last: None };
        [
            rule(self.last, |_| None),
            rule(self.hourly, |m| Some((m.year, [m.month, m.day, m.hour]))),
            rule(self.daily, |m| Some((m.year, [m.month, m.day, 0]))),
            rule(self.weekly, |m| Some((m.week.0, [m.week.1, 0, 0]))),
            rule(self.monthly, |m| Some((m.year, [m.month, 0, 0]))),
            rule(self.yearly, |m| Some((m.year, [0, 0, 0]))),
        ]
    }

    /// Which snapshots of a group are kept. The newest comes first.
    pub(crate) fn select(&self, group: &[(Moment, Vec<String>)]) -> Vec<bool> {
        let mut rules = self.rules();
        let select = |(number, (made, tags)): (usize, &(Moment, Vec<String>))| {
            let oldest = number + 1 == group.len();
            let tagged = self.tags.iter().any(|list| list.matches(tags));
            // All rules count the snapshot, also where another one keeps it.
            rules.iter_mut().fold(tagged, |kept, rule| rule.keeps(made, oldest) || kept)
        };
        group.iter().enumerate().map(select).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(year: i16, month: i8, day: i8, hour: i8, week: (i16, i8)) -> (Moment, Vec<String>) {
        (Moment { year, month, day, hour, week }, Vec::new())
    }

    #[test]
    fn newest_of_each_day_is_kept_and_the_oldest_where_the_count_is_not_reached() {
        let group = [
            made(2026, 3, 2, 9, (2026, 10)),
            made(2026, 3, 2, 8, (2026, 10)),
            made(2026, 3, 1, 9, (2026, 9)),
            made(2026, 3, 1, 8, (2026, 9)),
        ];
        let daily = |count| Policy { daily: Keep::Newest(count), ..Policy::default() };
        assert_eq!(daily(2).select(&group), [true, false, true, false]);
        assert_eq!(daily(3).select(&group), [true, false, true, true]);
    }

    #[test]
    fn weeks_are_those_of_the_iso_calendar_across_a_year() {
        let group = [
            made(2027, 1, 1, 0, (2026, 53)),
            made(2026, 12, 31, 0, (2026, 53)),
            made(2026, 12, 20, 0, (2026, 51)),
            made(2026, 12, 13, 0, (2026, 50)),
        ];
        let policy = Policy { weekly: Keep::Newest(2), ..Policy::default() };
        assert_eq!(policy.select(&group), [true, false, true, false]);
        let policy = Policy { yearly: Keep::Newest(2), ..Policy::default() };
        assert_eq!(policy.select(&group), [true, true, false, false]);
    }

    #[test]
    fn tag_lists_need_all_of_their_tags() {
        let list = |text: &str| text.parse::<TagList>().unwrap();
        let tags = ["a".to_owned(), "b".to_owned()];
        assert!(list("a").matches(&tags) && list("b, a").matches(&tags));
        assert!(!list("a,c").matches(&tags) && !list("").matches(&tags));
        assert!(list("").matches(&[]) && !list("a").matches(&[]));
    }

    #[test]
    fn policy_without_rules_is_empty() {
        assert!(Policy::default().is_empty());
        assert!(!Policy { tags: vec!["".parse().unwrap()], ..Policy::default() }.is_empty());
        assert!(!Policy { yearly: Keep::All, ..Policy::default() }.is_empty());
        assert_eq!("unlimited".parse(), Ok(Keep::All));
        assert!("-1".parse::<Keep>().is_err());
    }
}

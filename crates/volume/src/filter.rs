//! Which entries take part, by ordered include and exclude rules with rsync's meaning.
//!
//! The first rule that matches decides; where none does, the entry is included. A rule is an
//! [`Action`] and a pattern:
//!
//! * A leading `/` ties the pattern to the root of the transfer; a trailing `/` limits it to
//!   directories.
//! * A pattern without another `/` and without `**` is compared with the last component alone, at
//!   any level. Any other is compared with the end of the path below the root, from the beginning of
//!   a component on; a tied one with the whole path.
//! * `*`, `?`, `[...]` do not cross a `/`, `**` does. A backslash escapes only in a pattern that holds
//!   one of them.
//! * `dir/***` is `dir` itself and everything in it.
//!
//! Everything is bytes: names need not be text. Below a directory that is excluded nothing is
//! visited, so no rule can bring back what lies there; that is up to the walk.

use wire::{Name, limits};

use crate::{
    Error, Result,
    glob::{Glob, Start},
};
use rustix::io::Errno;

/// What a rule does with the entries that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Action {
    /// Lets them take part.
    Include = 1,
    /// Leaves them, and all that is below, alone.
    Exclude = 2,
}

/// What the rules say of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It takes part.
    Included,
    /// It does not, nor does what is below.
    Excluded,
}

/// Ordered rules; the default is none.
#[derive(Debug, Clone, Default)]
pub struct FilterRules {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    action: Action,
    source: Box<[u8]>,
    directories_only: bool,
    matcher: Matcher,
}

/// What a rule compares, and with what.
#[derive(Debug, Clone)]
enum Matcher {
    /// The last component is these bytes.
    Name(Box<[u8]>),
    /// The last component looks like this.
    NameGlob(Glob),
    /// The path is these bytes.
    Path(Box<[u8]>),
    /// The path ends in these bytes, which begin a component.
    PathEnd(Box<[u8]>),
    /// The path, or a part of it, looks like this.
    PathGlob { glob: Glob, scope: Scope, slash_before: bool, slash_behind_directories: bool },
}

/// The part of the path that a glob has to describe.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Whole,
    /// So many components at the end.
    Last(usize),
    /// From any component on to the end.
    AnyEnd,
}

impl FilterRules {
    /// Compiles rules, in their order.
    ///
    /// # Errors
    /// `EINVAL` for an empty pattern or one with NUL, `E2BIG` for what is over the limits of the protocol: a pattern that is
    /// too long, or the first rule that is too much. The error names the pattern.
    pub fn parse<P: AsRef<[u8]>>(rules: impl IntoIterator<Item = (Action, P)>) -> Result<Self> {
        let mut parsed = Vec::new();
        let mut total = 0;
        for (action, pattern) in rules {
            let pattern = pattern.as_ref();
            let fail = |errno| Err(Error::new("parse filter", wire::name::escape(pattern), errno));
            if pattern.is_empty() || pattern.contains(&0) {
                return fail(Errno::INVAL);
            }
            total += pattern.len() + limits::RULE;
            let many = parsed.len() == limits::MAX_FILTERS || total > limits::MAX_RULES;
            if pattern.len() > limits::MAX_PATTERN || many {
                return fail(Errno::TOOBIG);
            }
            parsed.push(Rule::new(action, pattern));
        }
        Ok(Self { rules: parsed })
    }

    /// True where everything is included. Saves the caller the work to know the path.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules as they were given: what the other side needs to parse the same.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Action, &[u8])> {
        self.rules.iter().map(|rule| (rule.action, &*rule.source))
    }

    /// What becomes of the entry `name` in the directory that `parent` leads to from the root.
    #[must_use]
    pub fn matches(&self, parent: &[Name], name: &Name, is_dir: bool) -> Verdict {
        let mut path = None;
        for rule in &self.rules {
            if rule.directories_only && !is_dir {
                continue;
            }
            let hit = match &rule.matcher {
                Matcher::Name(bytes) => **bytes == **name,
                Matcher::NameGlob(glob) => glob.matches(name.iter().copied(), Start::Text),
                by_path => by_path.matches(path.get_or_insert_with(|| join(parent, name)), is_dir),
            };
            if hit {
                return match rule.action {
                    Action::Include => Verdict::Included,
                    Action::Exclude => Verdict::Excluded,
                };
            }
        }
        Verdict::Included
    }
}

impl Rule {
    fn new(action: Action, source: &[u8]) -> Self {
        let stripped = source.strip_suffix(b"/").filter(|rest| !rest.is_empty());
        let pattern = stripped.unwrap_or(source);
        Self {
            action,
            source: source.into(),
            directories_only: stripped.is_some(),
            matcher: Matcher::new(pattern),
        }
    }
}

impl Matcher {
    /// Decides once how a pattern is compared, so that the frequent ones are compared cheaply.
    fn new(pattern: &[u8]) -> Self {
        let is_glob = pattern.iter().any(|b| matches!(b, b'*' | b'?' | b'['));
        let crosses = pattern.windows(2).any(|pair| pair == b"**");
        let slashes = pattern.iter().filter(|&&b| b == b'/').count();
        let tied = pattern.strip_prefix(b"/");
        let body = tied.unwrap_or(pattern);
        match (is_glob, slashes > 0 || crosses) {
            (false, false) => Self::Name(pattern.into()),
            (true, false) => Self::NameGlob(Glob::new(pattern)),
            (false, true) if tied.is_some() => Self::Path(body.into()),
            (false, true) => Self::PathEnd(body.into()),
            (true, true) => {
                // Such a pattern is compared with the path behind a `/`, so that `**/` may stand
                // for no directory at all.
                let slash_before = pattern.starts_with(b"**");
                let scope = match tied {
                    None if !crosses => Scope::Last(slashes + 1),
                    None if !slash_before => Scope::AnyEnd,
                    _ => Scope::Whole,
                };
                let slash_behind_directories = pattern.ends_with(b"***");
                Self::PathGlob {
                    glob: Glob::new(body),
                    scope,
                    slash_before,
                    slash_behind_directories,
                }
            }
        }
    }

    fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        match self {
            Self::Name(bytes) | Self::Path(bytes) => **bytes == *path,
            Self::PathEnd(bytes) => path
                .strip_suffix(&**bytes)
                .is_some_and(|before| before.is_empty() || before.ends_with(b"/")),
            Self::NameGlob(glob) => glob.matches(path.iter().copied(), Start::Text),
            Self::PathGlob { glob, scope, slash_before, slash_behind_directories } => {
                let (part, start) = match scope {
                    Scope::Whole => (Some(path), Start::Text),
                    Scope::AnyEnd => (Some(path), Start::Component),
                    Scope::Last(count) => (last_components(path, *count), Start::Text),
                };
                let before = slash_before.then_some(b'/');
                let behind = (*slash_behind_directories && is_dir).then_some(b'/');
                part.is_some_and(|part| {
                    glob.matches(
                        before.into_iter().chain(part.iter().copied()).chain(behind),
                        start,
                    )
                })
            }
        }
    }
}

/// The last `count` components of `path`; `None` where it has fewer.
fn last_components(path: &[u8], count: usize) -> Option<&[u8]> {
    let mut starts =
        path.iter().enumerate().rev().filter(|&(_, &b)| b == b'/').map(|(at, _)| at + 1);
    // Behind the components sits no slash before the first one: the path itself starts there.
    match starts.nth(count.checked_sub(1)?) {
        Some(start) => Some(&path[start..]),
        None => (path.iter().filter(|&&b| b == b'/').count() + 1 == count).then_some(path),
    }
}

fn join(parent: &[Name], name: &Name) -> Vec<u8> {
    let mut path =
        Vec::with_capacity(parent.iter().map(|n| n.len() + 1).sum::<usize>() + name.len());
    for component in parent {
        path.extend_from_slice(component);
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(pattern: &[u8], path: &str, is_dir: bool) -> bool {
        let rules = FilterRules::parse([(Action::Exclude, pattern)]).unwrap();
        let mut names: Vec<Name> =
            path.split('/').map(|n| Name::new(n.as_bytes()).unwrap()).collect();
        let name = names.pop().unwrap();
        rules.matches(&names, &name, is_dir) == Verdict::Excluded
    }

    #[test]
    fn patterns_mean_what_the_module_says() {
        for (pattern, path, is_dir, expected) in [
            ("*.o", "x/y.o", false, true),
            ("/foo", "foo", false, true),
            ("/foo", "x/foo", false, false),
            ("foo/", "foo", false, false),
            ("foo/", "x/foo", true, true),
            ("foo/bar", "x/foo/bar", false, true),
            ("foo/bar", "xfoo/bar", false, false),
            ("foo/*/bar", "x/foo/y/bar", false, true),
            ("foo/*/bar", "foo/bar", false, false),
            ("/foo/**/bar", "foo/bar", false, false),
            ("/foo/**/bar", "foo/a/b/bar", false, true),
            ("**/foo", "foo", false, true),
            ("dir/***", "x/dir", true, true),
            ("dir/***", "x/dir", false, false),
            ("dir/***", "x/dir/deep/er", false, true),
            ("a\\b", "a\\b", false, true),
            ("a\\b*", "ab", false, true),
        ] {
            assert_eq!(excluded(pattern.as_bytes(), path, is_dir), expected, "{pattern}: {path}");
        }
    }

    #[test]
    fn the_first_match_decides_and_the_default_is_included() {
        let rules =
            FilterRules::parse([(Action::Include, "keep.o"), (Action::Exclude, "*.o")]).unwrap();
        let verdict = |name: &str| rules.matches(&[], &Name::new(name.as_bytes()).unwrap(), false);
        assert_eq!(verdict("keep.o"), Verdict::Included);
        assert_eq!(verdict("other.o"), Verdict::Excluded);
        assert_eq!(verdict("other.c"), Verdict::Included);
        assert!(FilterRules::default().is_empty());
    }

    #[test]
    fn rules_survive_being_sent() {
        let rules =
            FilterRules::parse([(Action::Exclude, &b"\xff*/"[..]), (Action::Include, b"/a")])
                .unwrap();
        let again = FilterRules::parse(rules.iter()).unwrap();
        assert_eq!(again.iter().collect::<Vec<_>>(), rules.iter().collect::<Vec<_>>());
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let errno = |pattern: &[u8]| {
            FilterRules::parse([(Action::Exclude, pattern)]).map(|_| ()).map_err(|e| e.errno)
        };
        assert_eq!(errno(b""), Err(Errno::INVAL));
        assert_eq!(errno(b"a\0b"), Err(Errno::INVAL));
        assert_eq!(errno(&[b'*'; limits::MAX_PATTERN + 1]), Err(Errno::TOOBIG));
        assert_eq!(errno(&[b'*'; limits::MAX_PATTERN]), Ok(()));
    }

    /// Whether these rules are taken by this end, and whether they travel to the other.
    fn taken_and_sent(rules: &[Vec<u8>]) -> (bool, bool) {
        let parsed = FilterRules::parse(rules.iter().map(|rule| (Action::Exclude, rule)));
        let rule = |pattern: &Vec<u8>| wire::FilterRule {
            action: wire::FilterAction::Exclude,
            pattern: pattern.clone(),
        };
        let filters = rules.iter().map(rule).collect();
        let hello = wire::Hello {
            versions: (u32::MAX, u32::MAX),
            nonce: [0; 32],
            volume: "v".repeat(253),
            root: wire::RootKind::Device(u64::MAX),
            probe: false,
            window: 1 << 30,
            streams: u32::MAX,
            io_timeout: u32::MAX,
            options: wire::Options { max_delete: Some(u64::MAX), filters, ..Default::default() },
        };
        let frame = wire::Opening::Hello(Box::new(hello)).encode();
        let body = frame.head.slice(wire::frame::HEADER_LEN..);
        let fits = body.len() <= limits::MAX_HELLO;
        let frame = wire::Frame { kind: 1, compressed: false, body };
        (parsed.is_ok(), fits && wire::Opening::decode(frame).is_ok())
    }

    #[test]
    fn both_ends_take_the_same_rules() {
        let of = |len: usize, count: usize| vec![vec![b'x'; len]; count];
        for (rules, ok) in [
            (of(1, limits::MAX_FILTERS), true),
            (of(1, limits::MAX_FILTERS + 1), false),
            (of(limits::MAX_PATTERN, 1), true),
            (of(limits::MAX_PATTERN + 1, 1), false),
            (
                of(limits::MAX_PATTERN, limits::MAX_RULES / (limits::MAX_PATTERN + limits::RULE)),
                true,
            ),
            (of(100, limits::MAX_RULES / (100 + limits::RULE)), true),
        ] {
            assert_eq!(taken_and_sent(&rules), (ok, ok), "{} of {}", rules.len(), rules[0].len());
        }
        let too_much = of(limits::MAX_PATTERN, limits::MAX_HELLO / limits::MAX_PATTERN + 1);
        assert_eq!(taken_and_sent(&too_much), (false, false));
    }
}

//! Random options, and what they mean for a path.

use std::{ffi::OsStr, path::Path};

use testkit::Rng;

/// A rule of a simple form: `name`, `*end`, `/name`, and each with `/` behind it for directories only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) include: bool,
    pub(crate) pattern: &'static str,
}

/// The options of one run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    pub(crate) delete: bool,
    pub(crate) max_delete: Option<u64>,
    pub(crate) checksum: bool,
    pub(crate) verify: bool,
    pub(crate) no_owner: bool,
    pub(crate) rules: Vec<Rule>,
    /// What changes how a run works and not what it leaves.
    pub(crate) ways: Vec<&'static str>,
}

const PATTERNS: [&str; 9] =
    ["*.keep", "keep", "keep/", "/a", "d/", "b", "*a/", "/.pvferry-1f-0123456789abcdef", "..data"];

const WAYS: [&[&str]; 6] = [
    &["--atomic"],
    &["--streams", "2"],
    &["--compress", "zstd"],
    &["--compress", "never"],
    &["--streams", "3", "--atomic"],
    &["--timeout", "30"],
];

impl Options {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        let mut one_in = |n| rng.below(n) == 0;
        let mut options = Self {
            delete: !one_in(4),
            max_delete: None,
            checksum: one_in(4),
            verify: one_in(4),
            no_owner: false,
            rules: Vec::new(),
            ways: Vec::new(),
        };
        let (limited, filtered, way, no_owner) = (one_in(10), one_in(3), one_in(2), one_in(10));
        // The two exclude each other.
        options.no_owner = no_owner && !options.verify;
        if limited && options.delete {
            options.max_delete = Some(rng.below(6));
        }
        if filtered {
            for _ in 0..=rng.below(3) {
                let rule =
                    Rule { include: rng.below(4) == 0, pattern: rng.pick::<&str>(&PATTERNS) };
                options.rules.push(rule);
            }
        }
        if way {
            options.ways = rng.pick(&WAYS).to_vec();
        }
        options
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let switches = [
            (self.delete, "--delete"),
            (self.checksum, "--checksum"),
            (self.verify, "--verify"),
            (self.no_owner, "--no-owner"),
        ];
        arguments.extend(switches.iter().filter(|(on, _)| *on).map(|(_, name)| (*name).to_owned()));
        if let Some(most) = self.max_delete {
            arguments.push("--max-delete".to_owned());
            arguments.push(most.to_string());
        }
        for rule in &self.rules {
            let kind = if rule.include { "include" } else { "exclude" };
            arguments.push(format!("--{kind}={}", rule.pattern));
        }
        arguments.extend(self.ways.iter().map(|way| (*way).to_owned()));
        arguments
    }

    /// Whether the rules leave `path` out: it, or a directory above it.
    pub(crate) fn leave_out(&self, path: &Path, is_dir: bool) -> bool {
        let mut ancestors = path.ancestors();
        let _itself = ancestors.next();
        self.excluded(path, is_dir)
            || ancestors.any(|above| !above.as_os_str().is_empty() && self.excluded(above, true))
    }

    /// Whether the rules leave out this very path.
    pub(crate) fn excluded(&self, path: &Path, is_dir: bool) -> bool {
        let first = self.rules.iter().find(|rule| rule.matches(path, is_dir));
        first.is_some_and(|rule| !rule.include)
    }
}

impl Rule {
    fn matches(self, path: &Path, is_dir: bool) -> bool {
        let Some(name) = path.file_name() else { return false };
        let (pattern, for_directories) = match self.pattern.strip_suffix('/') {
            Some(pattern) => (pattern, true),
            None => (self.pattern, false),
        };
        if for_directories && !is_dir {
            return false;
        }
        if let Some(anchored) = pattern.strip_prefix('/') {
            return path.as_os_str() == OsStr::new(anchored);
        }
        match pattern.strip_prefix('*') {
            Some(end) => name.as_encoded_bytes().ends_with(end.as_bytes()),
            None => name == OsStr::new(pattern),
        }
    }
}

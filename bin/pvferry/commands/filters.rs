//! Filter rules from the options of the command line: patterns, files with patterns, rules in the form of rsync.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
};

use pod::ExitCode;
use volume::filter::{Action, FilterRules};
use wire::{FilterAction, FilterRule, name::escape};

use crate::{
    cli::{FilterKind, FilterOption},
    outcome::Failure,
};

/// The largest file of patterns that is read. More rules than fit into it are refused anyway.
const MAX_FILE: u64 = 4 << 20;

/// Reads the rules that `options` give, and checks them as both ends will read them.
pub(super) fn read(options: &[FilterOption]) -> Result<Vec<FilterRule>, Failure> {
    let mut rules = Rules::default();
    for FilterOption { kind, value } in options {
        let bytes = value.as_bytes();
        match kind {
            FilterKind::Exclude => rules.pattern(*kind, FilterAction::Exclude, bytes)?,
            FilterKind::Include => rules.pattern(*kind, FilterAction::Include, bytes)?,
            FilterKind::ExcludeFrom => rules.file(*kind, FilterAction::Exclude, value)?,
            FilterKind::IncludeFrom => rules.file(*kind, FilterAction::Include, value)?,
            FilterKind::Filter => rules.rule(bytes)?,
        }
    }
    rules.finish()
}

fn usage(what: String) -> Failure {
    Failure::new(ExitCode::Usage, what)
}

#[derive(Default)]
struct Rules(Vec<FilterRule>);

impl Rules {
    /// A pattern of --exclude or --include. As in rsync a prefix `+ ` or `- ` outweighs the option, and `!` alone clears
    /// the rules before it.
    fn pattern(
        &mut self,
        kind: FilterKind,
        action: FilterAction,
        text: &[u8],
    ) -> Result<(), Failure> {
        match text {
            b"!" => self.0.clear(),
            [b'+', b' ', pattern @ ..] => self.add(kind, FilterAction::Include, pattern)?,
            [b'-', b' ', pattern @ ..] => self.add(kind, FilterAction::Exclude, pattern)?,
            pattern => self.add(kind, action, pattern)?,
        }
        Ok(())
    }

    /// A file with one pattern a line; `-` is standard input. Empty lines and comments are skipped.
    fn file(
        &mut self,
        kind: FilterKind,
        action: FilterAction,
        path: &OsStr,
    ) -> Result<(), Failure> {
        let (option, shown) = (kind.option(), path.display());
        let cannot = |error: io::Error| usage(format!("{option}: cannot read {shown}: {error}"));
        let mut text = Vec::new();
        let read = match path.as_bytes() {
            b"-" => io::stdin().take(MAX_FILE + 1).read_to_end(&mut text),
            _ => File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text)),
        };
        if read.map_err(cannot)? as u64 > MAX_FILE {
            return Err(usage(format!("{option}: {shown} is larger than {} MiB", MAX_FILE >> 20)));
        }
        for line in text.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() && !matches!(line[0], b'#' | b';') {
                self.pattern(kind, action, line)?;
            }
        }
        Ok(())
    }

    /// A rule of --filter: `+ PATTERN`, `- PATTERN`, their long forms, and `!`. All else of rsync's language is refused.
    fn rule(&mut self, text: &[u8]) -> Result<(), Failure> {
        let kind = FilterKind::Filter;
        if matches!(text, b"!" | b"clear") {
            self.0.clear();
            return Ok(());
        }
        let forms: [(&[u8], FilterAction); 4] = [
            (b"+", FilterAction::Include),
            (b"include", FilterAction::Include),
            (b"-", FilterAction::Exclude),
            (b"exclude", FilterAction::Exclude),
        ];
        for (form, action) in forms {
            if let Some([b' ' | b'_', pattern @ ..]) = text.strip_prefix(form) {
                return self.add(kind, action, pattern);
            }
        }
        Err(usage(format!(
            "--filter: '{}' is not supported: use '+ PATTERN', '- PATTERN' or '!' (or --exclude-from FILE)",
            escape(text)
        )))
    }

    fn add(
        &mut self,
        kind: FilterKind,
        action: FilterAction,
        pattern: &[u8],
    ) -> Result<(), Failure> {
        let option = kind.option();
        if pattern.is_empty() {
            return Err(usage(format!("{option}: empty pattern")));
        }
        FilterRules::parse([(Action::Exclude, pattern)]).map_err(|error| {
            let reason = if pattern.len() > wire::limits::MAX_PATTERN {
                format!("longer than {} bytes", wire::limits::MAX_PATTERN)
            } else {
                volume::reason(error.errno)
            };
            usage(format!("{option}: invalid pattern {}: {reason}", escape(pattern)))
        })?;
        self.0.push(FilterRule { action, pattern: pattern.to_vec() });
        Ok(())
    }

    fn finish(self) -> Result<Vec<FilterRule>, Failure> {
        let Self(rules) = self;
        if rules.len() > wire::limits::MAX_FILTERS {
            return Err(usage(format!("more than {} filter rules", wire::limits::MAX_FILTERS)));
        }
        let bytes: usize = rules.iter().map(|rule| rule.pattern.len() + wire::limits::RULE).sum();
        if bytes > wire::limits::MAX_RULES {
            let limit = wire::limits::MAX_RULES >> 10;
            return Err(usage(format!("the filter rules take more than {limit} KiB")));
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(options: &[(FilterKind, &str)]) -> Result<String, String> {
        let options: Vec<_> = options
            .iter()
            .map(|(kind, value)| FilterOption { kind: *kind, value: value.into() })
            .collect();
        let rules = read(&options).map_err(|failure| failure.what)?;
        let shown = rules.iter().map(|rule| {
            let sign = if rule.action == FilterAction::Include { '+' } else { '-' };
            format!("{sign}{}", escape(&rule.pattern))
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn rules_in_the_form_of_rsync_become_includes_and_excludes() {
        use FilterKind::{Exclude, Filter, Include};
        let rules = [
            (Filter, "+ a"),
            (Filter, "- b"),
            (Filter, "include c"),
            (Filter, "exclude_d"),
            (Exclude, "+ e"),
            (Include, "- f"),
            (Exclude, "+g"),
        ];
        assert_eq!(shown(&rules), Ok("+a -b +c -d +e -f -+g".into()));
        assert_eq!(shown(&[(Exclude, "a"), (Filter, "!"), (Filter, "- b")]), Ok("-b".into()));
        assert_eq!(shown(&[(Exclude, "a"), (Exclude, "!")]), Ok(String::new()));
    }

    #[test]
    fn rules_that_are_not_supported_are_refused() {
        for rule in ["merge x", ". x", ": .rsync-filter", "P x", "-/ x", "-! x", "x", "", "+"] {
            let refused = shown(&[(FilterKind::Filter, rule)]).unwrap_err();
            assert!(refused.contains("is not supported"), "{rule}: {refused}");
        }
        assert_eq!(shown(&[(FilterKind::Filter, "- ")]), Err("--filter: empty pattern".into()));
    }

    #[test]
    fn file_of_patterns_has_one_a_line_and_comments() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# no\n; no\n\n*.o\r\n+ keep\nlast").unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(shown(&[(FilterKind::ExcludeFrom, path)]), Ok("-*.o +keep -last".into()));
        assert_eq!(shown(&[(FilterKind::IncludeFrom, path)]), Ok("+*.o +keep +last".into()));
        let missing = shown(&[(FilterKind::ExcludeFrom, "/no/such")]).unwrap_err();
        assert_eq!(missing, "--exclude-from: cannot read /no/such: No such file or directory");
    }
}

//! The filter options of the command line, in the order in which they stand there, which decides between them.

use std::ffi::OsString;

use clap::ArgMatches;

/// An option that adds filter rules, with its value as it was given: nothing is read or parsed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilterOption {
    pub(crate) kind: FilterKind,
    pub(crate) value: OsString,
}

/// Which option it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterKind {
    Exclude,
    Include,
    ExcludeFrom,
    IncludeFrom,
    Filter,
}

impl FilterKind {
    const ALL: [Self; 5] =
        [Self::Exclude, Self::Include, Self::ExcludeFrom, Self::IncludeFrom, Self::Filter];

    /// Its name in the definition of the command line.
    fn id(self) -> &'static str {
        match self {
            Self::Exclude => "exclude",
            Self::Include => "include",
            Self::ExcludeFrom => "exclude_from",
            Self::IncludeFrom => "include_from",
            Self::Filter => "filter",
        }
    }

    /// Its name on the command line.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Exclude => "--exclude",
            Self::Include => "--include",
            Self::ExcludeFrom => "--exclude-from",
            Self::IncludeFrom => "--include-from",
            Self::Filter => "--filter",
        }
    }
}

/// The filter options of a command.
pub(super) fn of(command: &ArgMatches) -> Vec<FilterOption> {
    let mut found = Vec::new();
    for kind in FilterKind::ALL {
        if !command.try_contains_id(kind.id()).unwrap_or(false) {
            continue;
        }
        let values = command.get_many::<OsString>(kind.id()).unwrap_or_default();
        let places = command.indices_of(kind.id()).unwrap_or_default();
        for (value, place) in values.zip(places) {
            found.push((place, FilterOption { kind, value: value.clone() }));
        }
    }
    found.sort_by_key(|(place, _)| *place);
    found.into_iter().map(|(_, option)| option).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    fn parse(words: &[OsString]) -> Vec<FilterOption> {
        let matches = Cli::command().try_get_matches_from(words).unwrap();
        of(matches.subcommand().unwrap().1)
    }

    #[test]
    fn filters_keep_their_order() {
        let words = "pvferry copy --include a --exclude=b s d -f x --include c --exclude-from e";
        let words: Vec<_> = words.split(' ').map(OsString::from).collect();
        let found = parse(&words);
        let values: Vec<_> = found.iter().map(|option| option.value.to_str().unwrap()).collect();
        assert_eq!(values, ["a", "b", "x", "c", "e"]);
        assert_eq!(found[1].kind, FilterKind::Exclude);
        assert_eq!(found[4].kind, FilterKind::ExcludeFrom);
    }

    #[test]
    fn filter_patterns_are_bytes() {
        let pattern = OsString::from_vec(b"*\xff".to_vec());
        let words = ["pvferry", "copy", "--exclude"].map(OsString::from).into_iter();
        let words: Vec<_> = words.chain([pattern.clone(), "s".into(), "d".into()]).collect();
        assert_eq!(parse(&words)[0].value, pattern);
    }
}

//! What users of rsync type: options that describe what is done anyway, and answers to those that do not exist here.

use std::ffi::OsString;

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::transfer::PROGRESS;

/// Options of rsync that describe what a transfer does in any case. They are accepted and change nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AlwaysOn;

const ALWAYS_ON: [(char, &str); 15] = [
    ('a', "archive"),
    ('r', "recursive"),
    ('l', "links"),
    ('p', "perms"),
    ('t', "times"),
    ('g', "group"),
    ('o', "owner"),
    ('D', "specials"),
    ('H', "hard-links"),
    ('A', "acls"),
    ('X', "xattrs"),
    ('S', "sparse"),
    ('x', "one-file-system"),
    ('#', "numeric-ids"),
    ('#', "partial"),
];

pub(super) const ACCEPTED: &str = "\
Accepted for users of rsync, because pvferry always does this:
  -a -r -l -p -t -g -o -D -H -A -X -S -x --numeric-ids --partial";

impl Args for AlwaysOn {
    fn augment_args(command: Command) -> Command {
        ALWAYS_ON.iter().fold(command, |command, &(short, long)| {
            let arg = Arg::new(long).long(long).action(ArgAction::Count).hide(true);
            command.arg(if short.is_ascii_alphabetic() { arg.short(short) } else { arg })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for AlwaysOn {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), clap::Error> {
        Ok(())
    }
}

/// Gives `--progress` the value `bar` where none follows it, as rsync's has none.
pub(super) fn with_progress_value(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut arguments = arguments.into_iter().peekable();
    let mut options = true;
    while let Some(argument) = arguments.next() {
        options &= argument != "--";
        let bare = options && argument == "--progress";
        let is_value = |next: &OsString| PROGRESS.iter().any(|value| next == value);
        if bare && !arguments.peek().is_some_and(is_value) {
            out.push("--progress=bar".into());
        } else {
            out.push(argument);
        }
    }
    out
}

/// What to say instead of what the parser does, which does not know rsync.
pub(crate) fn hint(error: &clap::Error, commands: &[&str], arguments: &[String]) -> Option<String> {
    // Of a command that was mistyped, the parser says which one it may be.
    let paths = arguments.iter().filter(|argument| !argument.starts_with('-')).count();
    if paths != 2 && error.get(ContextKind::SuggestedSubcommand).is_some() {
        return None;
    }
    let has_command = arguments.iter().any(|argument| commands.contains(&argument.as_str()));
    let unknown = matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument);
    if unknown && !has_command {
        let all = arguments.join(" ");
        return Some(format!("a command is missing; to copy a directory: pvferry copy {all}"));
    }
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let option = argument.split(['=', ' ']).next().unwrap_or_default();
    let (_, sentence) = INSTEAD.iter().find(|(options, _)| options.contains(&option))?;
    Some(format!("{option}: {sentence}"))
}

/// Options of rsync that do not exist here, and what takes their place.
const INSTEAD: [(&[&str], &str); 7] = [
    (
        &["-e", "--rsh", "--rsync-path", "--password-file", "--port"],
        "remote shells and daemons are not used: run `pvferry serve` on the remote host and `pvferry sync --connect` here",
    ),
    (
        &["-W", "--whole-file", "--no-whole-file", "--inplace", "--append", "--append-verify"],
        "not needed: pvferry chooses how to write each file (see --atomic)",
    ),
    (
        &[
            "-u",
            "--update",
            "--existing",
            "--ignore-existing",
            "--size-only",
            "-I",
            "--ignore-times",
        ],
        "not supported: the destination becomes identical to the source (see --checksum)",
    ),
    (
        &[
            "--delete-before",
            "--delete-during",
            "--delete-after",
            "--delete-delay",
            "--delete-excluded",
        ],
        "use --delete: files are deleted at the end, and excluded files are never deleted",
    ),
    (
        &["--partial-dir", "--temp-dir", "-T"],
        "not needed: an interrupted transfer always resumes when the same command runs again",
    ),
    (&["--files-from"], "use --include-from FILE --exclude '*'"),
    (
        &["--stats", "--human-readable", "-q", "--quiet"],
        "use --json for numbers, --progress none for silence",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_without_a_value_is_a_bar_and_the_source_is_no_value() {
        let given = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (words, expected) in [
            ("copy --progress a b", "copy --progress=bar a b"),
            ("copy a b --progress", "copy a b --progress=bar"),
            ("copy --progress json a b", "copy --progress json a b"),
            ("copy --progress=none a b", "copy --progress=none a b"),
            ("copy a -- --progress", "copy a -- --progress"),
        ] {
            assert_eq!(with_progress_value(given(words)), given(expected));
        }
    }
}

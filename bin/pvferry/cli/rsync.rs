//! What users of rsync type: options that describe what is done anyway, and answers to those that do not exist here.

use std::{
    ffi::OsString,
    num::{IntErrorKind, ParseIntError},
};

use clap::{
    Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::transfer::PROGRESS;

/// Options of rsync that describe what a transfer does in any case. They are accepted and change nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AlwaysOn;

const ALWAYS_ON: [(char, &str); 16] = [
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
    ('h', "human-readable"),
];

pub(super) const ACCEPTED: &str = "\
Accepted for users of rsync, because pvferry always does this:
  -a -r -l -p -t -g -o -D -H -A -X -S -x -h --numeric-ids --partial";

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

/// Gives `copy -h` and `sync -h` their help. Beside anything else, `-h` is what rsync's users mean by it: sizes that people
/// can read. With the help instead, nothing would be copied, and the exit code would be 0.
pub(super) fn with_help(mut arguments: Vec<OsString>) -> Vec<OsString> {
    // The first of these words is the command; a later one is a path.
    let command = arguments.iter().position(|argument| argument == "copy" || argument == "sync");
    if let (Some(command), Some(last)) = (command, arguments.len().checked_sub(1))
        && command + 1 == last
        && arguments[last] == "-h"
    {
        arguments[last] = "--help".into();
    }
    arguments
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
    if let Some(value) = not_a_number(error) {
        return Some(format!("{option}: '{value}' is not a whole number"));
    }
    // The answers name options of a transfer, which other commands do not have.
    let transfers = arguments.iter().any(|word| word == "copy" || word == "sync");
    let instead = INSTEAD.iter().find(|(options, _)| options.contains(&option));
    if let (true, Some((_, sentence))) = (transfers, instead) {
        return Some(format!("{option}: {sentence}"));
    }
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    if !option.starts_with('-') {
        if let Some(option) = option_before(arguments, argument) {
            return Some(format!("{option} {argument}: write {option}={argument}"));
        }
        let sync = arguments.iter().any(|argument| argument == "sync");
        return sync.then(|| {
            format!("{argument}: sync takes one path, SRC; --connect or --via says where to send")
        });
    }
    Some(unknown_option(error, commands, arguments, option))
}

/// The value that an option refused because it has no digits where a number belongs.
fn not_a_number(error: &clap::Error) -> Option<&str> {
    let reason = std::error::Error::source(error)?.downcast_ref::<ParseIntError>()?;
    let digits = matches!(reason.kind(), IntErrorKind::InvalidDigit | IntErrorKind::Empty);
    match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) if digits => Some(value),
        _ => None,
    }
}

/// The option before the word `value`, if its value has to follow an equals sign.
fn option_before<'a>(arguments: &'a [String], value: &str) -> Option<&'a str> {
    const WITH_EQUALS: [&str; 3] = ["--allow-delete", "--allow-empty-source", "--no-delta"];
    let pair = arguments
        .windows(2)
        .find(|pair| pair[1] == value && WITH_EQUALS.contains(&pair[0].as_str()))?;
    Some(&pair[0])
}

/// What to say of an option that nobody knows. The parser suggests what is hardly similar.
fn unknown_option(
    error: &clap::Error,
    commands: &[&str],
    arguments: &[String],
    option: &str,
) -> String {
    if let Some(ContextValue::String(similar)) = error.get(ContextKind::SuggestedArg)
        && is_typing_error(option, similar)
    {
        return format!("unknown option {option}; did you mean {similar}?");
    }
    let command = arguments.iter().find(|argument| commands.contains(&argument.as_str()));
    let command = command.map(|command| format!(" {command}")).unwrap_or_default();
    format!("unknown option {option}; to list the options: pvferry{command} --help")
}

/// True for words that differ in one letter, or in two that changed places.
fn is_typing_error(typed: &str, meant: &str) -> bool {
    let (typed, meant): (Vec<_>, Vec<_>) = (typed.chars().collect(), meant.chars().collect());
    let same = |(a, b): &(&char, &char)| a == b;
    let head = typed.iter().zip(&meant).take_while(same).count();
    let room = typed.len().min(meant.len()) - head;
    let tail = typed.iter().rev().zip(meant.iter().rev()).take(room).take_while(same).count();
    let (typed, meant) = (&typed[head..typed.len() - tail], &meant[head..meant.len() - tail]);
    let swapped = matches!((typed, meant), ([a, b], [c, d]) if a == d && b == c);
    swapped || typed.len().max(meant.len()) <= 1
}

/// Options of rsync that do not exist here, and what takes their place.
const INSTEAD: [(&[&str], &str); 18] = [
    (
        &["-e", "--rsh", "--rsync-path", "--password-file", "--port"],
        "remote shells and daemons are not used: run `pvferry serve` on the remote host and `pvferry sync --connect` here",
    ),
    (
        &["-W", "--whole-file", "--no-whole-file", "--inplace", "--append", "--append-verify"],
        "leave it out: pvferry chooses how to write each file (see --atomic)",
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
        "not supported: entries that differ are always updated (see --checksum)",
    ),
    (
        &["--delete-before", "--delete-during", "--delete-after", "--delete-delay"],
        "use --delete: files are deleted at the end",
    ),
    (&["--delete-excluded"], "not supported: excluded files are never deleted"),
    (
        &["--partial-dir", "--temp-dir", "-T"],
        "not needed: an interrupted transfer always resumes when the same command runs again",
    ),
    (
        &["--files-from"],
        "not supported: use --include-from with the files and every directory above them, then --exclude '*'",
    ),
    (&["-C", "--cvs-exclude"], "use --exclude or --exclude-from"),
    (&["--stats"], "leave it out: a summary is always printed, and --json prints all numbers"),
    (&["-q", "--quiet"], "use --progress none"),
    (&["--info"], "use -P for a progress bar, or -i to list every change"),
    (&["--debug", "--log-file"], "use -v or -vv; logs are written to standard error"),
    (
        &[
            "--link-dest",
            "--copy-dest",
            "--compare-dest",
            "-b",
            "--backup",
            "--backup-dir",
            "--suffix",
        ],
        "not supported: the destination holds one copy of the source",
    ),
    (
        &[
            "-L",
            "--copy-links",
            "-k",
            "--copy-dirlinks",
            "--copy-unsafe-links",
            "--safe-links",
            "-K",
            "--keep-dirlinks",
        ],
        "not supported: symbolic links are copied as links and never followed",
    ),
    (
        &["--chown", "--chmod", "--usermap", "--groupmap", "--fake-super"],
        "not supported: owner and mode are copied as they are (see --no-owner)",
    ),
    (
        &[
            "--no-perms",
            "--no-times",
            "--no-links",
            "--no-group",
            "--no-specials",
            "--no-devices",
            "--no-acls",
            "--no-xattrs",
            "-O",
            "--omit-dir-times",
        ],
        "not supported: all metadata are copied; --no-owner leaves out owner and group",
    ),
    (&["--max-size", "--min-size"], "not supported: filters select by name, and not by size"),
    (&["-R", "--relative", "-d", "--dirs"], "not supported: the content of SRC is copied to DST"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h_alone_is_help() {
        let given = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for (words, expected) in [
            ("pvferry copy -h", "pvferry copy --help"),
            ("pvferry --log-format json sync -h", "pvferry --log-format json sync --help"),
            ("pvferry copy a -h", "pvferry copy a -h"),
            ("pvferry copy a copy -h", "pvferry copy a copy -h"),
            ("pvferry -h", "pvferry -h"),
            ("pvferry verify -h", "pvferry verify -h"),
        ] {
            assert_eq!(with_help(given(words)), given(expected));
        }
    }

    #[test]
    fn one_wrong_letter_is_a_typing_error_and_another_word_is_none() {
        for typed in ["--exlude", "--excludee", "--exculde", "--excludf"] {
            assert!(is_typing_error(typed, "--exclude"), "{typed}");
        }
        for (typed, similar) in [("--max-size", "--max-delete"), ("--no-perms", "--perms")] {
            assert!(!is_typing_error(typed, similar), "{typed}");
        }
    }

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

//! Text from outside, made safe to show on a terminal, in a log line, in a status and in an event.
//!
//! Names of files, messages of a peer and reports of a container can hold anything: commands to a terminal, line ends that
//! forge a second line, characters that change the direction of what follows.
//!
//! * [`escape`] takes bytes, such as a name. Different bytes give different text.
//! * [`Text`] takes a sentence, in which names are escaped already. So it keeps a backslash, and a `Text` of a `Text` is the same.
//!   Its length is bounded.
//! * [`visible`] and [`visible_json`] take a whole line, such as a record of the log, that parts from outside may be in.
//!
//! [`is_shown`] decides for all of them. Every other character becomes `\xNN`, once for each byte of its UTF-8 form.
//!
//! This crate decides what is shown, not what is true: a sentence of a peer can hold the characters `\x0a`, and any lie.
#![forbid(unsafe_code)]

mod shown;

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    ops::Deref,
};

pub use shown::is_shown;

/// The longest [`Text`], in bytes.
pub const MAX_TEXT: usize = 8 << 10;

const ELLIPSIS: char = '…';

/// `bytes` as text that is safe to show. A backslash and bytes that are not UTF-8 are escaped, too.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' { push_hex(&mut out, b"\\") } else { push(&mut out, c) }
        }
        push_hex(&mut out, chunk.invalid());
    }
    out
}

/// A sentence from outside that is safe to show: only characters that [are shown](is_shown), in at most [`MAX_TEXT`] bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Text(Box<str>);

impl Text {
    /// `text` in at most `limit` bytes. Where something is cut, it ends in `…` if there is room for that.
    #[must_use]
    pub fn within(text: &str, limit: usize) -> Self {
        let limit = limit.min(MAX_TEXT);
        let mut out = String::with_capacity(text.len().min(limit));
        let mut end = 0;
        for c in text.chars() {
            if out.len() + ELLIPSIS.len_utf8() <= limit {
                end = out.len();
            }
            push(&mut out, c);
            if out.len() > limit {
                out.truncate(end);
                if end + ELLIPSIS.len_utf8() <= limit {
                    out.push(ELLIPSIS);
                }
                break;
            }
        }
        Self(out.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        if fits(text) { Self(text.into()) } else { Self::within(text, MAX_TEXT) }
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        if fits(&text) { Self(text.into()) } else { Self::within(&text, MAX_TEXT) }
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.0.into()
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == **other
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Text {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

/// Whether a text is safe to show and short enough as it is.
fn fits(text: &str) -> bool {
    text.len() <= MAX_TEXT && text.chars().all(is_shown)
}

/// One line of text of any length, without its line end, as it is safe to show.
#[must_use]
pub fn visible(line: &str) -> Cow<'_, str> {
    replace_hidden(line, |out, c| push_hex(out, c.encode_utf8(&mut [0; 4]).as_bytes()))
}

/// The same for a line that is a JSON document: escaped as JSON does it, so that it says the same.
#[must_use]
pub fn visible_json(line: &str) -> Cow<'_, str> {
    replace_hidden(line, |out, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // A string takes everything.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

fn replace_hidden(line: &str, escape: impl Fn(&mut String, char)) -> Cow<'_, str> {
    if line.chars().all(is_shown) {
        return line.into();
    }
    let mut out = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        if is_shown(c) { out.push(c) } else { escape(&mut out, c) }
    }
    out.into()
}

fn push(out: &mut String, c: char) {
    if is_shown(c) {
        out.push(c);
    } else {
        push_hex(out, c.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // A string takes everything.
        let _ = write!(out, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex_syntax::hir::{Class, HirKind};

    use super::*;

    /// Every character of a class, by tables that have nothing to do with the ones of the standard library.
    fn class(expression: &str) -> impl Iterator<Item = char> {
        let parsed = regex_syntax::parse(expression).unwrap();
        let ranges: Vec<_> = match parsed.into_kind() {
            HirKind::Class(Class::Unicode(class)) => {
                class.ranges().iter().map(|range| (range.start(), range.end())).collect()
            }
            // A class of one character.
            HirKind::Literal(one) => {
                std::str::from_utf8(&one.0).unwrap().chars().map(|c| (c, c)).collect()
            }
            other => panic!("no class: {other:?}"),
        };
        ranges.into_iter().flat_map(|(first, last)| first..=last)
    }

    #[test]
    fn no_character_of_these_classes_is_shown() {
        for name in ["Cc", "Cf", "Co", "Zl", "Zp", "Bidi_Control", "Noncharacter_Code_Point"] {
            let mut seen = 0;
            for c in class(&format!("\\p{{{name}}}")) {
                assert!(!is_shown(c), "{name}: {:x}", u32::from(c));
                seen += 1;
            }
            assert!(seen > 0, "{name}");
        }
        // The tables of both know different versions of Unicode, and so what is assigned in the later one.
        let unassigned: Vec<char> = class(r"\p{Cn}").collect();
        let shown = unassigned.iter().filter(|&&c| is_shown(c)).count();
        assert!(shown < unassigned.len() / 50, "{shown} of {}", unassigned.len());
    }

    #[test]
    fn what_draws_nothing_is_not_shown() {
        for c in class(r"[\p{Default_Ignorable_Code_Point}\u{2800}]") {
            assert!(!is_shown(c), "{:x}", u32::from(c));
        }
    }

    #[test]
    fn letters_marks_digits_and_signs_of_all_scripts_are_shown() {
        for c in class(r"[\p{L}\p{M}\p{N}\p{P}\p{S}--[\p{Default_Ignorable_Code_Point}\u{2800}]]") {
            assert!(is_shown(c), "{:x}", u32::from(c));
        }
        for name in ["ملف عربي", "中文文件.txt", "かな", "naïve e\u{301}", "हिन्दी", "😀❤🏽", "a b~"]
        {
            assert_eq!(escape(name.as_bytes()), name);
            assert_eq!(Text::from(name), name);
        }
        assert_eq!(Text::from("👩\u{200d}🔬❤\u{fe0f}"), r"👩\xe2\x80\x8d🔬❤\xef\xb8\x8f");
    }

    #[test]
    fn a_sentence_that_changes_direction_and_begins_a_line_stays_one_plain_line() {
        let text = Text::from("a\u{202e}b\u{2028}c\n\x1b[31md\\x0a");
        assert_eq!(text, r"a\xe2\x80\xaeb\xe2\x80\xa8c\x0a\x1b[31md\x0a");
        assert_eq!(escape(b"\xff\\\xe2\x80\xae"), r"\xff\x5c\xe2\x80\xae");
        assert_eq!(visible("a\u{85}b\nc"), r"a\xc2\x85b\x0ac");
        assert_eq!(visible_json("\"a\u{202e}\u{e0001}\""), r#""a\u202e\udb40\udc01""#);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_says_so() {
        let text = Text::from("é".repeat(MAX_TEXT));
        assert!(text.len() <= MAX_TEXT && text.ends_with("é…"), "{}", text.len());
        assert_eq!(Text::within("abcdef", 5), "ab…");
        assert_eq!(Text::within("ab\ncd", 8), r"ab\x0acd");
        assert_eq!(Text::within("ab\ncde", 8), "ab…");
        assert_eq!(Text::within("abc", 2), "");
    }

    fn any_text() -> impl Strategy<Value = String> {
        let hidden = "[\\p{C}\\p{Z}\\p{M}a\\\\]";
        let c = prop_oneof![any::<char>().prop_map(String::from), hidden.prop_map(String::from)];
        proptest::collection::vec(c, 0..64).prop_map(|texts| texts.concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_is_shown_bounded_and_the_same_when_it_comes_again(
            text in any_text(), limit in 0_usize..200, times in 1_usize..200,
        ) {
            let short = Text::within(&text, limit);
            prop_assert!(short.len() <= limit);
            let long = text.repeat(times);
            for safe in [short, Text::from(&*long), Text::from(long)] {
                prop_assert!(safe.chars().all(is_shown), "{safe}");
                prop_assert!(safe.len() <= MAX_TEXT);
                prop_assert_eq!(&Text::from(&*safe), &safe);
                prop_assert_eq!(&Text::from(String::from(safe.clone())), &safe);
            }
            prop_assert!(visible(&text).chars().all(is_shown));
        }

        #[test]
        fn different_bytes_never_look_alike(a in any_text(), b in any::<Vec<u8>>(), c in any::<Vec<u8>>()) {
            for (a, b) in [(a.as_bytes(), &*b), (&*b, &*c)] {
                prop_assert!(escape(a).chars().all(is_shown));
                prop_assert_eq!(a == b, escape(a) == escape(b));
            }
            // What was escaped can be read back.
            let shown = escape(a.as_bytes());
            let mut bytes = Vec::new();
            let mut rest = &*shown;
            while let Some((before, after)) = rest.split_once("\\x") {
                bytes.extend_from_slice(before.as_bytes());
                bytes.push(u8::from_str_radix(&after[..2], 16).unwrap());
                rest = &after[2..];
            }
            bytes.extend_from_slice(rest.as_bytes());
            prop_assert_eq!(bytes, a.as_bytes());
        }

        #[test]
        fn a_json_document_says_the_same_when_it_is_made_visible(text in any_text()) {
            let json = serde_json::to_string(&text).unwrap();
            let line = visible_json(&json);
            prop_assert!(line.chars().all(is_shown));
            prop_assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
    }
}

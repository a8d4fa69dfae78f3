//! Wildcard patterns over bytes, in the dialect of rsync's filters.
//!
//! `?` is one byte, `*` any number of bytes, neither a `/`; `**` is any number of bytes with `/`;
//! `[...]` is one byte of a class and never a `/`; a backslash takes the meaning from the next byte.
//! A pattern that is no pattern, such as one with an open class, matches nothing.
//!
//! A [`Glob`] is run as a set of states that moves over the text once: the cost is at most the
//! length of the pattern times the length of the text, whatever either of them holds.

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(crate) struct Glob {
    /// `None` for what is no pattern.
    tokens: Option<Box<[Token]>>,
}

#[derive(Debug, Clone)]
enum Token {
    Byte(u8),
    /// `?`
    Any,
    /// Boxed: 32 bytes are too many for a token that is nearly always one byte.
    Class(Box<ByteSet>),
    /// `*`
    Star,
    /// `**`
    StarStar,
}

/// Where a match may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the first byte of the text.
    Text,
    /// At the first byte, and behind every `/`.
    Component,
}

/// States up to this many need no heap.
const SHORT: usize = 128;

impl Glob {
    pub(crate) fn new(pattern: &[u8]) -> Self {
        Self { tokens: parse(pattern) }
    }

    /// True where the pattern describes all of `text` from a start on.
    pub(crate) fn matches(&self, text: impl Iterator<Item = u8>, start: Start) -> bool {
        let Some(tokens) = &self.tokens else { return false };
        let (mut now, mut next) = ([0; SHORT / 64], [0; SHORT / 64]);
        if tokens.len() < SHORT {
            return run(tokens, text, start, States(&mut now), States(&mut next));
        }
        let words = tokens.len() / 64 + 1;
        let (mut now, mut next) = (vec![0; words], vec![0; words]);
        run(tokens, text, start, States(&mut now), States(&mut next))
    }
}

/// The states that a run is in: `i` means that the first `i` tokens have matched.
struct States<'a>(&'a mut [u64]);

impl States<'_> {
    /// Enters state `at`, and those behind it that need no byte.
    fn enter(&mut self, tokens: &[Token], mut at: usize) {
        loop {
            let (word, bit) = (at / 64, 1 << (at % 64));
            if self.0[word] & bit != 0 {
                return;
            }
            self.0[word] |= bit;
            match tokens.get(at) {
                Some(Token::Star | Token::StarStar) => at += 1,
                _ => return,
            }
        }
    }

    fn contains(&self, at: usize) -> bool {
        self.0[at / 64] & (1 << (at % 64)) != 0
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|&word| word == 0)
    }
}

fn run<'a>(
    tokens: &[Token],
    text: impl Iterator<Item = u8>,
    start: Start,
    mut now: States<'a>,
    mut next: States<'a>,
) -> bool {
    now.enter(tokens, 0);
    for byte in text {
        next.0.fill(0);
        for (index, &word) in now.0.iter().enumerate() {
            let mut left = word;
            while left != 0 {
                let at = index * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                match tokens.get(at) {
                    Some(Token::Star) if byte != b'/' => next.enter(tokens, at),
                    Some(Token::StarStar) => next.enter(tokens, at),
                    Some(token) if token.takes(byte) => next.enter(tokens, at + 1),
                    _ => {}
                }
            }
        }
        std::mem::swap(&mut now, &mut next);
        if start == Start::Component && byte == b'/' {
            now.enter(tokens, 0);
        }
        if start == Start::Text && now.is_empty() {
            return false;
        }
    }
    now.contains(tokens.len())
}

impl Token {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(b) => *b == byte,
            Self::Any => byte != b'/',
            Self::Class(set) => byte != b'/' && set.contains(byte),
            Self::Star | Self::StarStar => false,
        }
    }
}

fn parse(pattern: &[u8]) -> Option<Box<[Token]>> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        tokens.push(match byte {
            b'?' => Token::Any,
            b'\\' => {
                let (&escaped, after) = rest.split_first()?;
                rest = after;
                Token::Byte(escaped)
            }
            b'[' => {
                let (set, after) = parse_class(rest)?;
                rest = after;
                Token::Class(Box::new(set))
            }
            b'*' => {
                let stars = rest.iter().take_while(|&&b| b == b'*').count();
                rest = &rest[stars..];
                if stars == 0 { Token::Star } else { Token::StarStar }
            }
            _ => Token::Byte(byte),
        });
    }
    Some(tokens.into())
}

/// Parses a class from behind its `[`; returns it and what follows its `]`.
fn parse_class(mut rest: &[u8]) -> Option<(ByteSet, &[u8])> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    rest = &rest[usize::from(negated)..];
    let mut set = ByteSet::default();
    let mut is_first = true;
    // Where a range may begin: the byte before the `-`.
    let mut previous = None;
    loop {
        let whole = rest;
        let (&byte, after) = whole.split_first()?;
        rest = after;
        match byte {
            // A `]` that comes first stands for itself.
            b']' if !is_first => break,
            b'-' if previous.is_some() && rest.first().is_some_and(|&b| b != b']') => {
                let (end, after) = literal(rest)?;
                rest = after;
                if let Some(begin) = previous.take() {
                    set.add_range(begin, end);
                }
            }
            b'[' if rest.first() == Some(&b':') => match named_class(&rest[1..])? {
                (Some(name), after) => {
                    set.add_named(name)?;
                    rest = after;
                    previous = None;
                }
                // No name: the `[` stands for itself.
                (None, _) => {
                    set.add_range(b'[', b'[');
                    previous = Some(b'[');
                }
            },
            _ => {
                let (value, after) = literal(whole)?;
                rest = after;
                set.add_range(value, value);
                previous = Some(value);
            }
        }
        is_first = false;
    }
    if negated {
        set.invert();
    }
    Some((set, rest))
}

/// One byte of a class, which a backslash may precede.
fn literal(rest: &[u8]) -> Option<(u8, &[u8])> {
    let (&byte, after) = rest.strip_prefix(b"\\").unwrap_or(rest).split_first()?;
    Some((byte, after))
}

/// Splits what follows `[:` at the next `]`: the name, which is `None` where no `:]` ends it, and
/// the rest. All is `None` where the class never ends.
fn named_class(rest: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let end = rest.iter().position(|&b| b == b']')?;
    Some((rest[..end].strip_suffix(b":"), &rest[end + 1..]))
}

/// A set of bytes.
#[derive(Debug, Clone, Default)]
struct ByteSet([u64; 4]);

impl ByteSet {
    fn contains(&self, byte: u8) -> bool {
        self.0[usize::from(byte) / 64] & (1 << (byte % 64)) != 0
    }

    fn add_range(&mut self, begin: u8, end: u8) {
        for byte in begin..=end {
            self.0[usize::from(byte) / 64] |= 1 << (byte % 64);
        }
    }

    fn invert(&mut self) {
        for word in &mut self.0 {
            *word = !*word;
        }
    }

    /// Adds the ASCII bytes of a POSIX class; `None` where there is none of that name.
    fn add_named(&mut self, name: &[u8]) -> Option<()> {
        let belongs: fn(&u8) -> bool = match name {
            b"alnum" => u8::is_ascii_alphanumeric,
            b"alpha" => u8::is_ascii_alphabetic,
            b"blank" => |b| matches!(b, b' ' | b'\t'),
            b"cntrl" => u8::is_ascii_control,
            b"digit" => u8::is_ascii_digit,
            b"graph" => u8::is_ascii_graphic,
            b"lower" => u8::is_ascii_lowercase,
            b"print" => |b| matches!(b, b' '..=b'~'),
            b"punct" => u8::is_ascii_punctuation,
            b"space" => |b| matches!(b, b' ' | b'\t'..=b'\r'),
            b"upper" => u8::is_ascii_uppercase,
            b"xdigit" => u8::is_ascii_hexdigit,
            _ => return None,
        };
        for byte in (0..=0x7f).filter(belongs) {
            self.add_range(byte, byte);
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_match(pattern: &str, text: &str) -> bool {
        Glob::new(pattern.as_bytes()).matches(text.bytes(), Start::Text)
    }

    #[test]
    fn the_dialect() {
        for (pattern, text, expected) in [
            ("*.o", "a.o", true),
            ("*.o", "a/b.o", false),
            ("a**b", "a/x/b", true),
            ("a?b", "a/b", false),
            ("[]x]", "]", true),
            ("[!a-c]", "b", false),
            ("[^a-c]", "d", true),
            ("[!a]", "/", false),
            ("[a-]", "-", true),
            ("[[:digit:][:upper:]]", "7", true),
            ("[[:digit:][:upper:]]", "x", false),
            ("[[:nonsense:]]", "x", false),
            ("[[:]", ":", true),
            ("[\\]]", "]", true),
            ("[a", "[a", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a\\", "a\\", false),
            ("***", "a/b", true),
            ("", "", true),
        ] {
            assert_eq!(is_match(pattern, text), expected, "{pattern} against {text}");
        }
    }

    #[test]
    fn hostile_patterns_cost_no_more_than_length_times_length() {
        let pattern = "*a".repeat(500) + "b";
        assert!(!is_match(&pattern, &"a".repeat(4000)));
        assert!(is_match(&"**a*".repeat(200), &("a/".repeat(1000) + "a")));
    }

    proptest! {
        /// Against the plain definition, by recursion.
        #[test]
        fn states_agree_with_the_definition(pattern in "[ab/*?]{0,9}", text in "[ab/]{0,9}") {
            prop_assert_eq!(is_match(&pattern, &text), defined(pattern.as_bytes(), text.as_bytes()));
        }

        /// Longer than what fits on the stack.
        #[test]
        fn long_patterns_agree_too(pattern in "[ab/*?]{0,5}", text in "[ab/]{0,6}") {
            let head = "c".repeat(200);
            let expected = defined(pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(is_match(&format!("{head}{pattern}"), &format!("{head}{text}")), expected);
        }

        #[test]
        fn no_pattern_panics(pattern: Vec<u8>, text: Vec<u8>) {
            let glob = Glob::new(&pattern);
            let _ = glob.matches(text.iter().copied(), Start::Text);
            let _ = glob.matches(text.iter().copied(), Start::Component);
        }
    }

    fn defined(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => (0..=text.len()).any(|n| defined(rest, &text[n..])),
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|&n| !text[..n].contains(&b'/'))
                .any(|n| defined(rest, &text[n..])),
            [b'?', rest @ ..] => {
                text.first().is_some_and(|&b| b != b'/') && defined(rest, &text[1..])
            }
            [byte, rest @ ..] => text.first() == Some(byte) && defined(rest, &text[1..]),
        }
    }
}

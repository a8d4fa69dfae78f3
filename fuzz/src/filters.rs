//! Patterns: the verdict is that of the plain definition, whatever pattern and path are.

use volume::filter::{Action, FilterRules, Verdict};
use wire::Name;
use wire::limits::MAX_PATTERN;

/// Lines: whether it is a directory and what the first rule does, the path, then a pattern each.
pub fn filter(bytes: &[u8]) {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    let (Some(kind), Some(path)) = (lines.next(), lines.next()) else { return };
    let is_dir = kind.first().is_some_and(|byte| byte & 1 == 1);
    let mut names: Vec<Name> = path.split(|&b| b == b'/').flat_map(Name::new).collect();
    let Some(name) = names.pop() else { return };
    let actions = [Action::Include, Action::Exclude].into_iter().cycle();
    let include_first = kind.first().is_some_and(|byte| byte & 2 == 2);
    let rules: Vec<_> = actions.skip(usize::from(!include_first)).zip(lines).take(16).collect();
    let parsed = FilterRules::parse(rules.iter().copied());
    let fits = |pattern: &[u8]| {
        !pattern.is_empty() && pattern.len() <= MAX_PATTERN && !pattern.contains(&0)
    };
    assert_eq!(parsed.is_ok(), rules.iter().all(|(_, pattern)| fits(pattern)));
    let Ok(parsed) = parsed else { return };
    assert!(parsed.iter().eq(rules.iter().copied()), "rules travel as they are");
    let verdict = parsed.matches(&names, &name, is_dir);
    if path.len() > 200 || rules.iter().any(|(_, pattern)| pattern.len() > 60) {
        return; // the definition takes too long
    }
    names.push(name);
    let defined = rules.iter().find(|(_, pattern)| describes(pattern, &names, is_dir));
    let defined = match defined {
        Some((Action::Exclude, _)) => Verdict::Excluded,
        _ => Verdict::Included,
    };
    // The definition here knows no classes.
    if !rules.iter().any(|(_, pattern)| pattern.contains(&b'[')) {
        assert_eq!(verdict, defined);
    }
}

/// What docs and module say of a rule, with nothing done for speed.
fn describes(pattern: &[u8], names: &[Name], is_dir: bool) -> bool {
    let stripped = pattern.strip_suffix(b"/").filter(|rest| !rest.is_empty());
    if stripped.is_some() && !is_dir {
        return false;
    }
    let pattern = stripped.unwrap_or(pattern);
    let wild = pattern.iter().any(|byte| b"*?[".contains(byte));
    let matches = |pattern: &[u8], text: &[u8]| {
        if wild { describes_text(pattern, text) } else { pattern == text }
    };
    let crosses = pattern.windows(2).any(|pair| pair == b"**");
    if !pattern.contains(&b'/') && !crosses {
        return names.last().is_some_and(|name| matches(pattern, name));
    }
    let mut path = names.iter().map(|name| name.as_bytes()).collect::<Vec<_>>().join(&b'/');
    if pattern.ends_with(b"***") && is_dir {
        path.push(b'/');
    }
    if let Some(tied) = pattern.strip_prefix(b"/") {
        return matches(tied, &path);
    }
    if pattern.starts_with(b"**") {
        path.insert(0, b'/');
        return matches(pattern, &path);
    }
    let starts = (0..path.len()).filter(|&at| at == 0 || path[at - 1] == b'/');
    let mut ends = starts.map(|at| &path[at..]);
    ends.any(|end| matches(pattern, end))
}

fn describes_text(pattern: &[u8], text: &[u8]) -> bool {
    // `known[p][t]`: the pattern from `p` on describes the text from `t` on.
    let (rows, columns) = (pattern.len() + 1, text.len() + 1);
    let mut known = vec![vec![false; columns]; rows];
    let valid = is_pattern(pattern);
    for p in (0..rows).rev() {
        for t in (0..columns).rev() {
            let next = text.get(t);
            known[p][t] = match &pattern[p..] {
                [] => t == text.len(),
                [b'*', b'*', rest @ ..] => {
                    let stars = rest.iter().take_while(|&&byte| byte == b'*').count();
                    known[p + 2 + stars][t] || (next.is_some() && known[p][t + 1])
                }
                [b'*', ..] => {
                    known[p + 1][t] || (next.is_some_and(|&b| b != b'/') && known[p][t + 1])
                }
                [b'?', ..] => next.is_some_and(|&b| b != b'/') && known[p + 1][t + 1],
                [b'\\', escaped, ..] => next == Some(escaped) && known[p + 2][t + 1],
                [byte, ..] => next == Some(byte) && known[p + 1][t + 1],
            };
        }
    }
    valid && known[0][0]
}

/// False where a backslash has nothing to escape.
fn is_pattern(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'\\' && bytes.next().is_none() {
            return false;
        }
    }
    true
}

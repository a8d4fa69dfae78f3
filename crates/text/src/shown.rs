//! Which characters show themselves.

/// True where a character shows itself and nothing else, or combines with the character before it.
///
/// False for control characters (Cc), format characters (Cf: among them those that change the direction of text, and the
/// joiners), separators of lines and paragraphs (Zl, Zp), spaces but the common one (Zs), private use (Co), what is not
/// assigned (Cn), and letters and marks that are drawn as nothing.
///
/// So text of all scripts stays as it is. A word or an emoji with a joiner (U+200C, U+200D) or a variation selector (U+FE0F)
/// is shown in parts with that character escaped: two names that differ in it alone look alike otherwise.
#[must_use]
pub fn is_shown(c: char) -> bool {
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    !draws_nothing(c) && is_printable(c)
}

/// By the standard library's table of the categories of Unicode, which each release of Rust brings up to date.
fn is_printable(c: char) -> bool {
    // It also escapes marks that combine, unless another character comes first.
    let mut text = [b'x', 0, 0, 0, 0];
    let len = 1 + c.encode_utf8(&mut text[1..]).len();
    std::str::from_utf8(&text[..len]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

/// `Default_Ignorable_Code_Point` of the Unicode Character Database (DerivedCoreProperties.txt, version 17) without the
/// characters of other categories than letters and marks, and the Braille pattern without a dot.
fn draws_nothing(c: char) -> bool {
    matches!(
        c,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180d}'
            | '\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

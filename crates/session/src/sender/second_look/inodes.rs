//! A set of inode numbers.

use std::collections::HashMap;

/// Bytes that a word takes with its key, at most.
const WORD: usize = 40;
/// Words that are kept: 20 MiB, which is 33,554,432 numbers where they follow each other, as file systems give them.
const MAX_WORDS: usize = 1 << 19;

/// A bitmap without the words that are zero. Numbers beyond its limit are not kept.
#[derive(Default)]
pub(super) struct Inodes {
    words: HashMap<u64, u64>,
    /// The word that was changed last, which may not be in `words` yet.
    last: (u64, u64),
}

impl Inodes {
    pub(super) fn insert(&mut self, inode: u64) {
        let (word, bit) = place(inode);
        if self.last.0 != word {
            self.keep_last();
            self.last = (word, self.words.get(&word).copied().unwrap_or(0));
        }
        self.last.1 |= bit;
    }

    pub(super) fn contains(&self, inode: u64) -> bool {
        let (word, bit) = place(inode);
        let bits = if self.last.0 == word { Some(&self.last.1) } else { self.words.get(&word) };
        bits.is_some_and(|bits| bits & bit != 0)
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> u64 {
        (self.words.len() * WORD) as u64
    }

    fn keep_last(&mut self) {
        let (word, bits) = self.last;
        if bits != 0 && (self.words.len() < MAX_WORDS || self.words.contains_key(&word)) {
            self.words.insert(word, bits);
        }
    }
}

fn place(inode: u64) -> (u64, u64) {
    (inode / 64, 1 << (inode % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_inserted_in_any_order_and_nothing_else() {
        let mut inodes = Inodes::default();
        assert!(!inodes.contains(0));
        let numbers = [0, 63, 64, 5, u64::MAX, 130, 1, 64];
        for number in numbers {
            inodes.insert(number);
        }
        for number in (0..300).chain([u64::MAX - 1, u64::MAX]) {
            assert_eq!(inodes.contains(number), numbers.contains(&number), "{number}");
        }
    }

    #[test]
    fn numbers_that_follow_each_other_take_less_than_a_byte() {
        let mut inodes = Inodes::default();
        (1000..101_000).for_each(|number| inodes.insert(number));
        assert!(inodes.memory() < 100_000, "{}", inodes.memory());
    }
}

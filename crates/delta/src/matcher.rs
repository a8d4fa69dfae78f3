//! The sender's search: turns the new file, as it streams by, into copies and literals.
//!
//! At each position the matcher knows one of three things:
//!
//! * after a match, which block of the basis should come **next**: its strong hash is compared
//!   first, so that moved content runs at hash speed without rolling;
//! * the rolling checksum of the **window** there, which the index is asked about;
//! * that it is **not searching** here: when [`QUIET`] bytes went by without a match, only the first
//!   [`SAMPLE`] bytes of each [`SAMPLE_EVERY`] are searched until something matches again, so that
//!   content which shares nothing costs next to nothing.
//!
//! Each of these depends on the position in the file alone, never on how the input was cut: any
//! fragmentation gives the same copies and the same literal bytes. A strong hash that fails is paid
//! from a budget of [`WASTE_BLOCKS`] blocks plus [`WASTE_PER_BYTE`] bytes for each byte of input; past
//! that, candidates are passed over, so that a prepared signature cannot make a search quadratic.
//!
//! Input is searched where it lies; no more than three blocks are ever held between pushes.

use crate::hash::HashKey;
use crate::index::SearchIndex;
use crate::patch::Op;
use crate::rolling::Rolling;

/// The longest literal that is given at once.
pub const MAX_LITERAL: usize = 256 << 10;
/// The longest copy that is given at once, so that a long match is under way before it ends.
pub const MAX_COPY: u64 = 16 << 20;

const QUIET: u64 = 4 << 20;
const SAMPLE: u64 = 1 << 20;
const SAMPLE_EVERY: u64 = 8 << 20;
const WASTE_BLOCKS: u64 = 16;
/// About what rolling costs anyway. Content of two symbols was seen to need four.
const WASTE_PER_BYTE: u64 = 8;

/// Searches one file, or one part of a file, front to end.
#[derive(Debug)]
pub struct Matcher<'a> {
    index: &'a SearchIndex,
    key: &'a HashKey,
    block_len: usize,
    /// From `carry_from` on, the bytes that could not be decided without more input: at most one
    /// block. What lies before is spent, and dropped in one go when it is a block long.
    carry: Vec<u8>,
    carry_from: usize,
    /// Bytes of the input before the position that is looked at.
    pos: u64,
    state: State,
    /// Where the last match ended.
    matched_until: u64,
    /// The byte of the basis that would come at `matched_until` if the content went on.
    basis_next: u64,
    /// The copy that following matches may still extend.
    run: Run,
    /// Bytes hashed for candidates that were none.
    wasted: u64,
    /// Whether the short last block was found before the end of the input.
    short_found: bool,
}

/// What is known of the current position.
#[derive(Debug, Clone, Copy)]
enum State {
    /// Nothing.
    Fresh,
    /// This block of the basis should start here.
    Expect(usize),
    /// The checksum of the window that starts here, and that no block is like it.
    Rolling(Rolling),
}

#[derive(Debug, Clone, Copy, Default)]
struct Run {
    offset: u64,
    len: u64,
}

/// A block of the basis that the new file has at the current position.
#[derive(Debug, Clone, Copy)]
struct Match {
    block: usize,
    len: usize,
}

/// What one step decided: so many bytes are literal, then comes a match, if any.
struct Decided {
    literal: usize,
    found: Option<Match>,
}

impl<'a> Matcher<'a> {
    /// A search that starts where the covered part of the basis starts.
    pub fn new(index: &'a SearchIndex, key: &'a HashKey) -> Self {
        Self {
            index,
            key,
            block_len: index.block_len() as usize,
            carry: Vec::new(),
            carry_from: 0,
            pos: 0,
            state: State::Fresh,
            matched_until: 0,
            basis_next: index.basis_start(),
            run: Run::default(),
            wasted: 0,
            short_found: false,
        }
    }

    /// Takes the next bytes of the new file and gives what is decided by them. Literals may come in
    /// any number of pieces, none longer than [`MAX_LITERAL`].
    pub fn push(&mut self, mut bytes: &[u8], sink: &mut impl FnMut(Op<'_>)) {
        let old = self.carry.len() - self.carry_from;
        if old > 0 {
            // One block of new input decides every position of the old.
            let mut carry = std::mem::take(&mut self.carry);
            carry.extend_from_slice(&bytes[..bytes.len().min(self.block_len)]);
            let decided = self.scan(&carry[self.carry_from..], sink);
            if decided < old {
                self.carry_from += decided;
                if self.carry_from >= self.block_len {
                    carry.drain(..self.carry_from);
                    self.carry_from = 0;
                }
                self.carry = carry;
                return;
            }
            carry.clear();
            self.carry = carry;
            self.carry_from = 0;
            bytes = &bytes[decided - old..];
        }
        let decided = self.scan(bytes, sink);
        self.carry.extend_from_slice(&bytes[decided..]);
    }

    /// Ends the input: gives the rest of it, which may end with the short last block of the basis.
    pub fn finish(mut self, sink: &mut impl FnMut(Op<'_>)) {
        let carry = std::mem::take(&mut self.carry);
        let rest = &carry[self.carry_from..];
        let tail = self.index.short_block().and_then(|block| {
            let (strong, len) = self.index.block(block)?;
            let start = rest.len().checked_sub(len)?;
            (self.key.hash(&rest[start..]) == strong).then_some((start, Match { block, len }))
        });
        let start = tail.map_or(rest.len(), |(start, _)| start);
        self.literal(&rest[..start], sink);
        if let Some((_, found)) = tail {
            self.matched(found, sink);
        }
        self.flush_run(sink);
    }

    /// Decides as many bytes of `input`, which starts at `self.pos`, as it can, and returns how
    /// many those are. What stays undecided is at most one block.
    fn scan(&mut self, input: &[u8], sink: &mut impl FnMut(Op<'_>)) -> usize {
        let (mut at, mut literal_from) = (0, 0);
        while let Some(decided) = self.step(&input[at..]) {
            at += decided.literal;
            self.pos += decided.literal as u64;
            if let Some(found) = decided.found {
                self.literal(&input[literal_from..at], sink);
                self.matched(found, sink);
                at += found.len;
                self.pos += found.len as u64;
                self.matched_until = self.pos;
                literal_from = at;
            }
        }
        self.literal(&input[literal_from..at], sink);
        at
    }

    /// One step from the current position, where `rest` starts; `None` when it needs more input.
    fn step(&mut self, rest: &[u8]) -> Option<Decided> {
        match self.state {
            State::Expect(block) => self.step_expected(block, rest),
            State::Fresh => self.step_fresh(rest),
            State::Rolling(rolling) => self.step_rolling(rolling, rest),
        }
    }

    /// The short last block is expected once: content that was appended to follows it. In content that repeats itself it
    /// would end one match after the other in the middle of a full block that the index knows.
    fn step_expected(&mut self, block: usize, rest: &[u8]) -> Option<Decided> {
        let mut found = None;
        let expected = self.index.block(block);
        if let Some((strong, len)) = expected.filter(|&(_, len)| self.may_find(len)) {
            let window = rest.get(..len)?;
            found = (self.key.hash(window) == strong).then_some(Match { block, len });
            self.short_found |= found.is_some() && len < self.block_len;
        }
        self.state = State::Fresh;
        Some(Decided { literal: 0, found })
    }

    fn may_find(&self, len: usize) -> bool {
        len == self.block_len || !self.short_found
    }

    fn step_fresh(&mut self, rest: &[u8]) -> Option<Decided> {
        let skipped = self.not_searched().min(rest.len() as u64) as usize;
        if skipped > 0 {
            return Some(Decided { literal: skipped, found: None });
        }
        let window = rest.get(..self.block_len)?;
        let rolling = Rolling::new(window);
        self.state = State::Rolling(rolling);
        let found = self.verify(rolling.value(), window, self.pos);
        Some(Decided { literal: 0, found })
    }

    fn step_rolling(&mut self, mut rolling: Rolling, rest: &[u8]) -> Option<Decided> {
        let allowed = self.search_ends().saturating_sub(self.pos);
        if allowed == 0 {
            self.state = State::Fresh;
            return Some(Decided { literal: 0, found: None });
        }
        let (out, into) = (rest, rest.get(self.block_len..)?);
        let steps = allowed.min(into.len() as u64) as usize;
        if steps == 0 {
            return None;
        }
        let (out, into) = (&out[..steps], &into[..steps]);
        let hit = self.index.roll(&mut rolling, out, into);
        self.state = State::Rolling(rolling);
        let literal = hit.unwrap_or(steps);
        let found = hit.and_then(|_| {
            let window = &rest[literal..literal + self.block_len];
            self.verify(rolling.value(), window, self.pos + literal as u64)
        });
        Some(Decided { literal, found })
    }

    /// The block that is `window`, which has the checksum `weak` and lies at `pos` of the input.
    fn verify(&mut self, weak: u32, window: &[u8], pos: u64) -> Option<Match> {
        self.index.candidates(weak).next()?;
        let cost = window.len() as u64;
        let allowed = pos.saturating_mul(WASTE_PER_BYTE).saturating_add(WASTE_BLOCKS * cost);
        if self.wasted + cost > allowed {
            return None;
        }
        let strong = self.key.hash(window);
        let Some((block, _)) = self.index.candidates(weak).find(|&(_, known)| known == strong)
        else {
            self.wasted += cost;
            return None;
        };
        // Of blocks with the same content the one that keeps the displacement is best: it joins
        // the copies around it, and a patch in place has nothing to move.
        let in_place = self.basis_next.saturating_add(pos - self.matched_until);
        let same = |&other: &usize| self.index.block(other) == Some((strong, window.len()));
        let block = self.index.block_at(in_place).filter(same).unwrap_or(block);
        Some(Match { block, len: window.len() })
    }

    /// How many bytes from here on are passed over without a search.
    fn not_searched(&self) -> u64 {
        let within = self.pos % SAMPLE_EVERY;
        if self.pos - self.matched_until < QUIET || within < SAMPLE {
            0
        } else {
            SAMPLE_EVERY - within
        }
    }

    /// Up to where the search goes on if nothing matches.
    fn search_ends(&self) -> u64 {
        let within = self.pos % SAMPLE_EVERY;
        if self.pos - self.matched_until < QUIET {
            self.matched_until + QUIET
        } else {
            self.pos - within + SAMPLE.max(within)
        }
    }

    fn matched(&mut self, found: Match, sink: &mut impl FnMut(Op<'_>)) {
        let (offset, len) = (self.index.block_offset(found.block), found.len as u64);
        if offset != self.run.offset + self.run.len || self.run.len + len > MAX_COPY {
            self.flush_run(sink);
            self.run.offset = offset;
        }
        self.run.len += len;
        self.basis_next = offset + len;
        self.state = State::Expect(found.block + 1);
    }

    fn literal(&mut self, bytes: &[u8], sink: &mut impl FnMut(Op<'_>)) {
        if !bytes.is_empty() {
            self.flush_run(sink);
        }
        for piece in bytes.chunks(MAX_LITERAL) {
            sink(Op::Literal(piece));
        }
    }

    fn flush_run(&mut self, sink: &mut impl FnMut(Op<'_>)) {
        let Run { offset, len } = std::mem::take(&mut self.run);
        if len > 0 {
            sink(Op::Copy { offset, len });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::StrongHash;
    use crate::signature::SignatureBlock;

    #[test]
    fn hashing_in_vain_keeps_to_its_budget() {
        const BLOCK: u64 = 4096;
        let (key, new) = (HashKey::new([1; 32]), vec![b'x'; 256 << 10]);
        let weak = Rolling::new(&new[..BLOCK as usize]).value();
        let block = SignatureBlock { weak, strong: StrongHash([0; 16]) };
        let index = SearchIndex::build(vec![block], BLOCK as u32, 0..BLOCK).unwrap();

        let mut matcher = Matcher::new(&index, &key);
        matcher.push(&new, &mut |_| ());
        let budget = WASTE_BLOCKS * BLOCK + WASTE_PER_BYTE * matcher.pos;
        assert!(matcher.wasted <= budget, "{} > {budget}", matcher.wasted);
        assert!(matcher.wasted + BLOCK > budget, "every offset was a candidate");
    }
}

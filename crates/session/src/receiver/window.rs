//! How far the sender may be ahead: what was granted, what of it waits here, and when it is more.
//!
//! Memory follows what waits, and where this end is the slower one everything that was granted waits.
//! So the window is small, and grows only where it is what holds the sender up: when a sender says that
//! it has nothing left while little waits here, the rest is on a long line.

use parking_lot::Mutex;

/// Credit is given back in steps of this part of the window.
const STEPS: u64 = 16;
/// How many times as large the window may become.
const GROWTH: u64 = 2;

/// The window of a session, in bytes.
pub(super) struct Window {
    /// What it is at first, and again where frames pile up.
    base: u64,
    state: Mutex<State>,
}

struct State {
    size: u64,
    /// Taken by frames and not given back.
    used: u64,
    /// Of these, by frames that were taken in.
    owed: u64,
}

impl Window {
    pub(super) fn new(base: u64) -> Self {
        Self { base, state: Mutex::new(State { size: base, used: 0, owed: 0 }) }
    }

    /// A frame came. False where it is more than was granted.
    pub(super) fn take(&self, cost: u64) -> bool {
        let mut state = self.state.lock();
        state.used += cost;
        state.used <= state.size
    }

    /// A frame was taken in: how much is to be granted now.
    pub(super) fn give_back(&self, cost: u64) -> u64 {
        let mut state = self.state.lock();
        state.owed += cost;
        if state.owed < state.size / STEPS {
            return 0;
        }
        if state.used - state.owed > self.base / 2 {
            // Frames pile up: what the window has grown by is kept back.
            let kept = state.owed.min(state.size - self.base);
            state.size -= kept;
            state.used -= kept;
            state.owed -= kept;
        }
        let granted = std::mem::take(&mut state.owed);
        state.used -= granted;
        granted
    }

    /// The sender has nothing left: how much more it is granted.
    pub(super) fn blocked(&self) -> u64 {
        let mut state = self.state.lock();
        if state.used - state.owed > state.size / 4 {
            return 0;
        }
        let more = state.size.min(self.base * GROWTH - state.size);
        state.size += more;
        more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 1 << 20;

    #[test]
    fn grows_where_the_line_is_long() {
        let window = Window::new(BASE);
        assert!(window.take(BASE));
        assert_eq!(window.give_back(BASE), BASE, "all of it was taken in");
        assert_eq!(window.blocked(), BASE);
        assert_eq!(window.blocked(), 0, "there is an end to it");
        assert!(window.take(2 * BASE) && !window.take(1));
    }

    #[test]
    fn stays_where_frames_pile_up() {
        let window = Window::new(BASE);
        assert!(window.take(BASE));
        assert_eq!(window.blocked(), 0);
        assert!(!window.take(1));
    }

    #[test]
    fn shrinks_back_where_frames_pile_up() {
        let window = Window::new(BASE);
        assert_eq!(window.blocked(), BASE);
        assert!(window.take(2 * BASE));
        let granted: u64 = (0..32).map(|_| window.give_back(BASE / 16)).sum();
        assert!((BASE..2 * BASE).contains(&granted), "{granted}");
        assert_eq!(window.state.lock().size, granted);
        assert!(window.take(granted) && !window.take(1));
    }

    #[test]
    fn gives_back_in_steps_and_never_more_than_was_taken() {
        let window = Window::new(BASE);
        assert!(window.take(BASE));
        assert_eq!(window.give_back(BASE / 16 - 1), 0);
        assert_eq!(window.give_back(1), BASE / 16);
        assert!(window.take(BASE / 16) && !window.take(1));
    }
}

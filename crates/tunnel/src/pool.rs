//! Buffers that are used again: a connection takes one while bytes move and holds none while it waits.

use parking_lot::Mutex;

/// Length of each buffer, in bytes.
pub(crate) const BUFFER: usize = 256 * 1024;

/// Buffers that are kept for the next burst; more are given back to the system.
const SPARE: usize = 16;

/// Spare buffers. What they hold is whatever was in them last.
#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Box<[u8]>>>);

impl Pool {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn take(&self) -> Box<[u8]> {
        self.0.lock().pop().unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice())
    }

    pub(crate) fn give_back(&self, buffer: Box<[u8]>) {
        let mut spare = self.0.lock();
        if spare.len() < SPARE {
            spare.push(buffer);
        }
    }

    #[cfg(test)]
    pub(crate) fn spare(&self) -> usize {
        self.0.lock().len()
    }
}

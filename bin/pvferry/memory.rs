//! The allocator, and how long it keeps what was freed.

use std::ffi::{c_int, c_long};

/// Buffers are filled by one thread and freed by another all the time. The system's allocator gives
/// them back to the kernel in between, and a static binary's is slower still.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of `mimalloc.h`, version 3: milliseconds until freed pages go back to the kernel.
const PURGE_DELAY: c_int = 15;
/// Its own 1000 ms let a server with 40 MiB in use grow to 80; after 10 ms pages are given back that are
/// needed again at once.
const MILLISECONDS: c_long = 100;

/// Has the allocator give freed memory back soon. What the environment says (`MIMALLOC_PURGE_DELAY`) stands.
/// To be called before there is a second thread.
#[allow(unsafe_code, reason = "the allocator's options are a C interface")]
pub(crate) fn give_back_soon() {
    // SAFETY: sets a number in a table of the allocator, after a check of the index; no other thread is there yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, MILLISECONDS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of the option is not part of the allocator's interface: its default shows that it is the right one.
    #[test]
    #[allow(unsafe_code, reason = "as above")]
    fn the_option_is_that_of_the_delay() {
        // SAFETY: reads a number of a table that nothing writes to.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        assert_eq!(read(), 1000);
        give_back_soon();
        assert_eq!(read(), MILLISECONDS);
    }
}

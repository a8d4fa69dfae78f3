//! The allocator: how long it keeps what was freed, and what happens where the kernel gives no more.

use std::{
    alloc::{GlobalAlloc, Layout},
    ffi::{c_int, c_long},
};

use mimalloc::MiMalloc;

use crate::out_of_memory;

/// Buffers are filled by one thread and freed by another all the time. The system's allocator gives
/// them back to the kernel in between, and a static binary's is slower still.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

/// `mimalloc`, but the process ends with a report where it has nothing left: whoever asks would abort it.
struct Allocator;

// SAFETY: every call is passed on as it is, with the caller's promises, and answered by what it answers. Where that is
// null the call does not return.
#[allow(unsafe_code, reason = "the interface of an allocator")]
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised to this function.
        given(unsafe { MiMalloc.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as promised to this function.
        given(unsafe { MiMalloc.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as promised to this function.
        given(unsafe { MiMalloc.realloc(memory, layout, size) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as promised to this function.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }
}

fn given(memory: *mut u8) -> *mut u8 {
    if memory.is_null() { out_of_memory::report_and_exit() } else { memory }
}

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

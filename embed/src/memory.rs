//! Rust's own memory is jemalloc's; Python's stays glibc's.
//!
//! A coordinator lives for months, and what a burst of registrations took should go back: with 100,000 ranks glibc keeps a fifth
//! more (docs/results/coordinator.md). The coordinator's benches take this file as it is.

use std::ffi::c_char;
use std::ptr::null_mut;

#[global_allocator]
static MEMORY: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Few arenas, whatever the machine has of cores: each keeps pages of its own. What is free goes back within a second.
// SAFETY: the symbol that jemalloc looks for, a pointer to a string that ends with a zero byte.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: Option<&'static c_char> =
    // SAFETY: the pointer is to a constant.
    Some(unsafe { &*c"background_thread:true,narenas:4,dirty_decay_ms:1000,muzzy_decay_ms:0".as_ptr() });

/// What is free goes back at once, from now on. For a coordinator: its pieces are small, and of 100,000 ranks a tenth of its memory
/// would be free pages. Not for a node, which takes and frees the same megabytes for chunk after chunk.
pub fn keep_nothing_free() {
    // Of arenas that are yet to come, and of the one that there is.
    for setting in [c"arenas.dirty_decay_ms", c"arena.0.dirty_decay_ms"] {
        let mut milliseconds = 0isize;
        // SAFETY: the names are jemalloc's and their values of this size; nothing is read back.
        let refused = unsafe {
            tikv_jemalloc_sys::mallctl(
                setting.as_ptr(),
                null_mut(),
                null_mut(),
                (&raw mut milliseconds).cast(),
                size_of::<isize>(),
            )
        };
        debug_assert_eq!(refused, 0, "{setting:?}");
    }
}

//! What every target has: an allocator that gives nothing huge, so that a forged length is found whether or not the memory
//! is touched.

use std::alloc::{GlobalAlloc, Layout, System};

/// Far above what any input of a target, 1 KiB at most, may be read into.
const BYTES_MAX: usize = 16 << 20;

struct Limited;

#[global_allocator]
static LIMITED: Limited = Limited;

// SAFETY: the system's allocator, which is asked for no more than the limit.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        check(new_size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

fn check(bytes: usize) {
    if bytes > BYTES_MAX {
        eprintln!("ERROR: {bytes} bytes are asked for at once");
        std::process::abort();
    }
}

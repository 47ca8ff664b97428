//! The allocator of programs that ask for it, with the feature `jemalloc`: for Rust and for both C libraries.
//!
//! librdkafka makes a record on one thread and frees it on another. With glibc's allocator the two wait for one lock,
//! thousands of times a second; and what RocksDB frees stays with the process.
#![allow(unsafe_code, reason = "jemalloc looks for its configuration under a name, which must be the only one")]

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// An arena for each processor, where the default has four; and memory goes back to the system a second after it was freed, when
/// something is allocated next. Where a process may not use all processors (`taskset`, a cpuset) jemalloc says on stderr that it
/// has the default's arenas instead. The variable `MALLOC_CONF` goes before.
// SAFETY: jemalloc reads the pointer to a text that ends with a zero, and no other object has this name.
#[unsafe(export_name = "malloc_conf")]
static CONFIGURATION: &[u8; 57] = b"percpu_arena:percpu,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

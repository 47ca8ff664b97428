//! How RocksDB is set up. What matters for correctness comes first in each function; the rest is for speed.
//!
//! The write-ahead log (WAL) is on and never synced on the commit path: after `kill -9` everything is there, after a
//! power loss an older consistent prefix is, and the changelog supplies the rest. What keeps it a *prefix*:
//! - recovery stops at the first damaged record (`PointInTime`). The other modes that rust-rocksdb offers will not do:
//!   `TolerateCorruptedTailRecords` and `AbsoluteConsistency` refuse to open, `SkipAnyCorruptedRecord` leaves holes;
//! - a log that lost its end in a power loss while its successor survived is noticed (`track_and_verify_wals`, which
//!   rust-rocksdb can only set as text) and then counts as damage, as does a missing log;
//! - a flush is of all families at once (`atomic_flush`), so that no family is ahead of the positions. This also frees
//!   old logs early: the small positions family would otherwise pin them.

use std::time::Duration;

use rocksdb::{
    BlockBasedOptions, DBCompressionType, DBRecoveryMode, DataBlockIndexType, FlushOptions, LogLevel, Options,
    WriteOptions,
};

use super::memory::Memory;
use super::positions;

/// The settings of a [`RocksDirectory`](super::RocksDirectory).
///
/// ```
/// use processor_runtime::state::StateSettings;
///
/// let small = StateSettings { memory_budget_bytes: 8 << 20, ..StateSettings::default() };
/// assert!(small.memory_budget_bytes < StateSettings::default().memory_budget_bytes);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateSettings {
    /// What all databases of the process may use for caches and write buffers together.
    pub memory_budget_bytes: usize,
    /// How long a commit may wait to be written to disk, to be written with others: what a `kill -9` loses is restored from the
    /// changelog. Zero writes each commit by itself.
    pub write_behind: Duration,
    /// How many parked task states are kept open at most.
    pub parked_max: usize,
    /// How long a parked task state is kept open at most.
    pub park_for: Duration,
    /// How many threads flush and compact, for all databases together.
    pub background_jobs: u16,
    /// How many files one task's database keeps open at most.
    pub open_files_per_task: u16,
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            memory_budget_bytes: 256 << 20,
            write_behind: Duration::from_secs(1),
            parked_max: 16,
            park_for: Duration::from_mins(5),
            background_jobs: std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 16) as u16),
            open_files_per_task: 256,
        }
    }
}

/// The options of a task's database.
pub(super) fn database(memory: &Memory, settings: &StateSettings) -> Options {
    // Taken first: options made from text forget the caches that were set before.
    let mut options = Options::default()
        .get_options_from_string("track_and_verify_wals=true")
        .expect("the RocksDB that is linked knows this option");
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_atomic_flush(true);
    options.set_paranoid_checks(true);
    options.create_if_missing(true);
    options.create_missing_column_families(true);

    options.set_write_buffer_manager(memory.write_buffers());
    options.set_max_background_jobs(i32::from(settings.background_jobs));
    options.set_max_open_files(i32::from(settings.open_files_per_task));
    options.set_max_file_opening_threads(2);
    options.set_skip_stats_update_on_db_open(true);
    options.set_avoid_unnecessary_blocking_io(true);
    options.set_max_total_wal_size(4 * write_buffer_bytes(memory) as u64);
    options.set_max_manifest_file_size(8 << 20);
    options.set_bytes_per_sync(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// The options of a column family.
pub(super) fn family(memory: &Memory, name: &str) -> Options {
    let mut options = Options::default();
    options.set_block_based_table_factory(&tables(memory));
    let positions_only = name == positions::FAMILY;
    let write_buffer = if positions_only { 4 << 20 } else { write_buffer_bytes(memory) };
    options.set_write_buffer_size(write_buffer);
    // A memtable takes its memory in blocks of this size; with many tasks the first one counts.
    options.set_arena_block_size((write_buffer / 64).max(16 << 10));
    // A look-up of what is not in the memtable need not search it; about ten bits for each entry of a hundred bytes.
    options.set_memtable_whole_key_filtering(true);
    options.set_memtable_prefix_bloom_ratio(0.01);
    options.set_max_write_buffer_number(4);
    // Writes are worth more than reads here: the overlay and the cache serve most of those.
    options.set_level_zero_file_num_compaction_trigger(8);
    options.set_level_zero_slowdown_writes_trigger(40);
    options.set_level_zero_stop_writes_trigger(64);
    options.set_level_compaction_dynamic_level_bytes(true);
    let none = DBCompressionType::None;
    let lz4 = DBCompressionType::Lz4;
    options.set_compression_per_level(&[none, none, lz4, lz4, lz4, lz4, lz4]);
    options
}

/// How an apply writes: into the WAL, never synced.
pub(super) fn write() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(false);
    options.disable_wal(false);
    options
}

/// A flush that nobody waits for.
pub(super) fn background_flush() -> FlushOptions {
    let mut options = FlushOptions::default();
    options.set_wait(false);
    options
}

fn tables(memory: &Memory) -> BlockBasedOptions {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(memory.cache());
    tables.set_cache_index_and_filter_blocks(true);
    tables.set_cache_index_and_filter_blocks_with_high_priority(true);
    tables.set_pin_l0_filter_and_index_blocks_in_cache(true);
    tables.set_bloom_filter(10.0, false);
    tables.set_optimize_filters_for_memory(true);
    tables.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    tables
}

/// How large a store's write buffer gets before it is flushed.
fn write_buffer_bytes(memory: &Memory) -> usize {
    (memory.budget_bytes() / 8).clamp(1 << 20, 64 << 20)
}

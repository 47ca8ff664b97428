//! What the databases say of their stores. Every figure is a look into memory; nothing is scanned.

use processor_core::ids::{StoreIndex, TaskId};
use rocksdb::properties as p;

use super::RocksDirectory;
use super::database::{Database, Place};

/// The figures of one store of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreFigures {
    /// The task.
    pub task: TaskId,
    /// The store, in the task's sub-topology.
    pub store: StoreIndex,
    /// About how many keys it holds.
    pub keys: u64,
    /// What RocksDB says; `None` for a store in memory.
    pub on_disk: Option<DiskFigures>,
}

/// What RocksDB says of one store of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFigures {
    /// About how many bytes of live data it has in table files.
    pub live_bytes: u64,
    /// Bytes of all table files.
    pub sst_bytes: u64,
    /// Bytes that are not flushed.
    pub memtable_bytes: u64,
    /// Bytes that wait for compaction.
    pub pending_compaction_bytes: u64,
    /// Whether nobody may write at the moment.
    pub write_stopped: bool,
    /// To how many bytes a second writers are slowed down; 0: they are not.
    pub delayed_write_rate: u64,
}

impl RocksDirectory {
    /// The figures of every store that is open, also of tasks that wait for their next owner.
    pub fn figures(&self) -> Vec<StoreFigures> {
        self.open_databases().iter().flat_map(|database| figures_of(database)).collect()
    }
}

fn figures_of(database: &Database) -> Vec<StoreFigures> {
    let stores = (0..database.stores()).map(|slot| StoreIndex::new(u16::try_from(slot).expect("stores are bounded")));
    stores.filter_map(|store| figures_of_store(database, store)).collect()
}

/// `None` while the store is being wiped.
fn figures_of_store(database: &Database, store: StoreIndex) -> Option<StoreFigures> {
    let task = database.task().clone();
    let family = match database.place(store) {
        Place::Memory(entries) => {
            return Some(StoreFigures { task, store, keys: entries.len() as u64, on_disk: None });
        }
        Place::Family(name) => database.db().cf_handle(name)?,
    };
    // A figure that RocksDB does not have counts as 0.
    let figure = |name| database.db().property_int_value_cf(&family, name).ok().flatten().unwrap_or(0);
    let on_disk = DiskFigures {
        live_bytes: figure(p::ESTIMATE_LIVE_DATA_SIZE),
        sst_bytes: figure(p::TOTAL_SST_FILES_SIZE),
        memtable_bytes: figure(p::CUR_SIZE_ALL_MEM_TABLES),
        pending_compaction_bytes: figure(p::ESTIMATE_PENDING_COMPACTION_BYTES),
        write_stopped: figure(p::IS_WRITE_STOPPED) != 0,
        delayed_write_rate: figure(p::ACTUAL_DELAYED_WRITE_RATE),
    };
    let keys = database.approximate_len(store).unwrap_or(0);
    Some(StoreFigures { task, store, keys, on_disk: Some(on_disk) })
}

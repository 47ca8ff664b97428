//! The committed state that an operator's writes are laid over.

use std::ops::{Bound, ControlFlow};

use crate::ids::StoreIndex;

/// Reads committed local state; the runtime implements it on RocksDB, a test on a map.
///
/// # Contract
/// All answers are of one committed state: nothing of an open transaction, nothing of a part of one (EO-10). Keys are
/// compared as bytes.
pub trait Base {
    /// Appends the value of `key` to `value` and says whether there is one.
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError>;

    /// Looks several keys up, and hands each one's place in `keys` and its value to `found`, in any order. An implementation
    /// that can read them together, sorted keys best, does better than one by one.
    fn get_many(
        &self,
        store: StoreIndex,
        keys: &[&[u8]],
        found: &mut dyn FnMut(usize, Option<&[u8]>),
    ) -> Result<(), BaseError> {
        let mut value = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            value.clear();
            let present = self.get(store, key, &mut value)?;
            found(place, present.then_some(value.as_slice()));
        }
        Ok(())
    }

    /// Visits the entries between the bounds in key order, or in reverse, until `visit` breaks.
    #[expect(clippy::type_complexity, reason = "an alias would hide what the callback is given and may answer")]
    fn range(
        &self,
        store: StoreIndex,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), BaseError>;

    /// About how many keys the store holds; exact answers would cost a scan.
    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError>;
}

/// Local state could not be read. The record that asked is not to blame; the task restores its state or stops.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BaseError {
    /// Whether the stored bytes are damaged, so that only wiping and restoring them helps.
    pub corrupt: bool,
    /// What happened, in which store, and what to do next.
    pub message: String,
}

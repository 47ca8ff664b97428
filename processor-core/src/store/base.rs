//! The committed state that an operator's writes are laid over.

use std::ops::{Bound, ControlFlow};

use crate::ids::StoreIndex;

/// What [`Base::get_many`] tells of a key: its place among those that were asked for, and its value. A break ends the look-up.
///
/// ```
/// use std::ops::ControlFlow;
/// use processor_core::store::Found;
///
/// let mut count = 0;
/// let found: &mut Found<'_> = &mut |_place, value| {
///     count += usize::from(value.is_some());
///     if count < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
/// };
/// assert!(found(0, Some(b"21")).is_continue());
/// assert!(found(1, Some(b"12")).is_break());
/// ```
pub type Found<'f> = dyn FnMut(usize, Option<&[u8]>) -> ControlFlow<()> + 'f;

/// Reads committed local state; the runtime implements it on RocksDB, a test on a map.
///
/// ```
/// use std::ops::{Bound, ControlFlow};
/// use processor_core::ids::StoreIndex;
/// use processor_core::store::{Base, BaseError};
///
/// /// What a task without stores is lent.
/// struct NoStores;
///
/// impl Base for NoStores {
///     fn get(&self, _: StoreIndex, _: &[u8], _: &mut Vec<u8>) -> Result<bool, BaseError> {
///         Ok(false)
///     }
///
///     fn range(
///         &self,
///         _: StoreIndex,
///         _: Bound<&[u8]>,
///         _: Bound<&[u8]>,
///         _: bool,
///         _: &mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>,
///     ) -> Result<(), BaseError> {
///         Ok(())
///     }
///
///     fn approximate_len(&self, _: StoreIndex) -> Result<u64, BaseError> {
///         Ok(0)
///     }
/// }
///
/// assert!(!NoStores.get(StoreIndex::new(0), b"kitchen", &mut Vec::new())?);
/// # Ok::<(), BaseError>(())
/// ```
///
/// # Contract
/// All answers are of one committed state: nothing of an open transaction, nothing of a part of one (EO-10). Keys are
/// compared as bytes.
pub trait Base {
    /// Appends the value of `key` to `value` and says whether there is one.
    ///
    /// ```
    #[doc = include_str!("example_base.txt")]
    /// let base = base_of([("cellar", "12"), ("kitchen", "21")]);
    /// let mut value = b"last: ".to_vec();
    /// assert!(base.get(STORE, b"kitchen", &mut value)?);
    /// assert_eq!(value, b"last: 21");
    /// assert!(!base.get(STORE, b"garden", &mut value)?);
    /// # Ok::<(), BaseError>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read.
    fn get(&self, store: StoreIndex, key: &[u8], value: &mut Vec<u8>) -> Result<bool, BaseError>;

    /// Looks several keys up, and hands each one's place in `keys` and its value to `found`, in any order, until that breaks. An
    /// implementation that can read them together, sorted keys best, does better than one by one.
    ///
    /// ```
    #[doc = include_str!("example_base.txt")]
    /// let base = base_of([("cellar", "12"), ("kitchen", "21")]);
    /// let mut values = [None, None];
    /// base.get_many(STORE, &[b"garden", b"kitchen"], &mut |place, value| {
    ///     values[place] = value.map(<[u8]>::to_vec);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(values, [None, Some(b"21".to_vec())]);
    /// # Ok::<(), BaseError>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read; `found` may have been called for some of the keys.
    fn get_many(&self, store: StoreIndex, keys: &[&[u8]], found: &mut Found<'_>) -> Result<(), BaseError> {
        let mut value = Vec::new();
        for (place, key) in keys.iter().enumerate() {
            value.clear();
            let present = self.get(store, key, &mut value)?;
            if found(place, present.then_some(value.as_slice())).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Visits the entries between the bounds in key order, or in reverse, until `visit` breaks.
    ///
    /// ```
    #[doc = include_str!("example_base.txt")]
    /// let base = base_of([("cellar", "12"), ("garden", "9"), ("kitchen", "21")]);
    /// let mut keys = Vec::new();
    /// let (from, to) = (Bound::Included(&b"d"[..]), Bound::Unbounded);
    /// base.range(STORE, from, to, true, &mut |key, _| {
    ///     keys.push(key.to_vec());
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert_eq!(keys, [&b"kitchen"[..], b"garden"]); // in reverse
    /// # Ok::<(), BaseError>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read; entries before that were visited.
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
    ///
    /// ```
    #[doc = include_str!("example_base.txt")]
    /// let base = base_of([("cellar", "12"), ("kitchen", "21")]);
    /// assert_eq!(base.approximate_len(STORE)?, 2);
    /// # Ok::<(), BaseError>(())
    /// ```
    ///
    /// # Errors
    /// State could not be read.
    fn approximate_len(&self, store: StoreIndex) -> Result<u64, BaseError>;
}

/// Local state could not be read. The record that asked is not to blame; the task restores its state or stops.
///
/// ```
/// use processor_core::store::BaseError;
///
/// let message = "store 'totals': too many open files: raise the limit (ulimit -n)";
/// let error = BaseError { corrupt: false, message: message.to_owned() }; // the bytes are sound
/// assert_eq!(error.to_string(), message);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct BaseError {
    /// Whether the stored bytes are damaged, so that only wiping and restoring them helps.
    pub corrupt: bool,
    /// What happened, in which store, and what to do next.
    pub message: String,
}

//! How a user names a store: a typed constant.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StoreKey;

/// A key-value store of a name and types, written as a constant and used wherever the store is:
///
/// ```
/// use processor_core::store::KeyValueStoreDef;
///
/// /// The last readings of each sensor, oldest first.
/// const WINDOW: KeyValueStoreDef<String, Vec<f64>> = KeyValueStoreDef::new("window");
/// assert_eq!(WINDOW.name(), "window");
/// ```
///
/// The name reaches disk and the changelog topic `<application.id>-<name>-changelog`: renaming a store loses its state.
pub struct KeyValueStoreDef<K, V> {
    name: &'static str,
    types: PhantomData<fn() -> (K, V)>,
}

impl<K: StoreKey, V: StoreValue> KeyValueStoreDef<K, V> {
    /// Names a store. The name may hold letters, digits, `.`, `_` and `-`; `build()` refuses others.
    pub const fn new(name: &'static str) -> Self {
        Self { name, types: PhantomData }
    }

    /// The store's name.
    pub const fn name(&self) -> &'static str {
        self.name
    }
}

impl<K, V> std::fmt::Debug for KeyValueStoreDef<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyValueStoreDef({:?})", self.name)
    }
}

/// What can be a store's value: any plain type with serde derives.
///
/// `Clone` keeps the value as it was before the record in process, in case that record fails (EO-9).
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a store's value",
    note = "derive `Clone`, `serde::Serialize` and `serde::Deserialize` for it; it must own its data"
)]
pub trait StoreValue: Clone + Serialize + DeserializeOwned + Send + 'static {}

impl<T: Clone + Serialize + DeserializeOwned + Send + 'static> StoreValue for T {}

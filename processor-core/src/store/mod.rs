//! Typed stores: how a user names them, what a batch writes over them, and how they are written down.
//!
//! [`Base`], [`Change`] and [`ChangeSet`] are between tasks and the runtime, and no stable API.

mod base;
mod change_set;
mod definition;
mod json;
mod key;
pub(crate) mod memory;
mod overlay;
mod scan;
mod value;

pub use base::{Base, BaseError, Found};
pub use change_set::{Change, ChangeSet};
pub use definition::{ChangelogSpec, KeyValueStoreDef, StoreSpec};
pub use json::StoreJson;
pub use key::{KeyPart, KeyPrefix, StoreKey, TotalF64};
pub(crate) use overlay::{AnyOverlay, Overlay, OverlayError};
pub(crate) use scan::{KeyRange, KeyScan};
pub use value::{StoreValue, ValueFormat};

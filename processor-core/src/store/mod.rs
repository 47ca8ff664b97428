//! Typed stores: how a user names them, what a batch writes over them, and how they are written down.

mod base;
mod change_set;
mod definition;
mod key;
mod overlay;
mod scan;
#[cfg(test)]
pub(crate) mod testing;
mod value;
mod view;

pub use base::{Base, BaseError};
pub use change_set::{Change, ChangeSet};
pub use definition::{ChangelogSpec, KeyValueStoreDef, StoreSpec};
pub use key::{KeyPart, KeyPrefix, StoreKey, TotalF64};
pub(crate) use overlay::{AnyOverlay, Overlay, OverlayError};
pub(crate) use scan::{KeyRange, KeyScan};
pub use value::{StoreValue, ValueFormat};
pub use view::StoreView;

//! Typed stores: how a user names them, what a batch writes over them, and how they are written down.

mod base;
mod change_set;
mod definition;
mod key;
mod overlay;
#[cfg(test)]
pub(crate) mod testing;
mod view;

pub use base::{Base, BaseError};
pub use change_set::{Change, ChangeSet};
pub use definition::{KeyValueStoreDef, StoreValue};
pub use key::StoreKey;
pub use overlay::VALUE_FORMAT;
pub(crate) use overlay::{AnyOverlay, Overlay, OverlayError};
pub use view::StoreView;

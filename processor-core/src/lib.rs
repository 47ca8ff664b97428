//! Placeholder while the layers are written.

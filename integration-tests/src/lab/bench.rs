//! `lab bench`.

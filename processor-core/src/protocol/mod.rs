//! The decisions of the exactly-once protocol, as pure functions: what happened in, what to do out. The runtime's own, and no
//! stable API, but for the policies in [`failure`] and what settings hold: [`StartRule`](restore::StartRule) and
//! [`HttpAddress`](client_id::HttpAddress).

pub mod assignment;
pub mod batch;
pub mod client_id;
pub mod failure;
pub mod idle;
pub mod metadata;
pub mod outcome;
pub mod restore;
pub mod slow;

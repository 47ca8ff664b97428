//! Late requests: each request that builds a transaction up or ends it, late by a time-out or by a lost connection,
//! released at a chosen point of the life of the producer that sent it, and what the oracles say to it.
//!
//! 1. A [`Stage`] is a cluster, of which there are three [kinds](SetUp), behind proxies.
//! 2. A [round](mod@round) is one application with one worker that reads a steady input. It goes through [cases](Case) one after
//!    another, each [forced](case) by the proxies alone: the request is held, the transaction goes on without it, and
//!    a second request of the worker is held at the release point while the first one is delivered.
//! 3. When its cases are over, the oracles judge all that the application has done (O1 to O4).
//!
//! A case whose fault did not happen, or whose release point was not reached, has not run: it proves nothing and is
//! counted as such.

pub mod case;
pub mod matrix;
pub mod round;
pub mod stage;

pub use self::case::Outcome;
pub use self::matrix::{Case, Failure, LateRequest, Point, VARIANTS_OF_A_GATE};
pub(crate) use self::round::panic_text;
pub use self::round::{Round, round};
pub use self::stage::{SetUp, Stage};

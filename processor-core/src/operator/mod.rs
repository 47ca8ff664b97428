//! Operators: the code a user writes, and what it may do while a record passes through it.

mod branch;
mod closure;
mod context;
mod env;
mod scan;
mod store;

pub(crate) use branch::{Branch, Predicate};
pub use closure::{Closure, Factory, IntoOperator, PerRecord};
pub use context::{Context, OpenContext};
pub use env::RunningNode;
pub(crate) use env::{Children, Failed, Origin, Receive, Recorded, Run, Shared, TaskEnv};
pub use scan::Scan;
pub use store::{Store, StoreError};

use crate::error::OperatorError;
use crate::record::Record;
use crate::time::Punctuation;

/// A step of a topology, with state if it likes. One value of it serves one task and is never shared between threads.
///
/// ```
/// use processor_core::prelude::*;
///
/// const COUNTS: KeyValueStoreDef<String, u64> = KeyValueStoreDef::new("counts");
///
/// /// How often each word was seen.
/// struct Count;
///
/// impl Operator for Count {
///     type KeyIn = String;
///     type ValueIn = String;
///     type KeyOut = String;
///     type ValueOut = u64;
///
///     fn process(&mut self, record: Record<String, String>, ctx: &mut Context<'_, String, u64>) -> Result<(), OperatorError> {
///         let count = ctx.store(&COUNTS).update(&record.key, |count| {
///             *count += 1;
///             *count
///         })?;
///         ctx.forward(record.with_value(count))
///     }
/// }
/// ```
///
/// # Contract
/// What an operator does is a function of its records, its stores and the supplied time (EO-7): a record may be
/// processed again after a crash, and must then have the same effect. Keep no state outside stores.
pub trait Operator: 'static {
    /// The key of records that come in.
    type KeyIn;
    /// Their value.
    type ValueIn;
    /// The key of records that go out.
    type KeyOut;
    /// Their value.
    type ValueOut;

    /// Called once before the first record; the place to make schedules.
    ///
    /// # Errors
    /// Stop the task before it has read anything.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Processes one record. What it forwards and writes takes effect together, or, if it fails, not at all.
    ///
    /// # Errors
    /// The record has failed; the topology's policy says what follows.
    fn process(
        &mut self,
        record: Record<Self::KeyIn, Self::ValueIn>,
        ctx: &mut Context<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), OperatorError>;

    /// Called when a schedule of this node is due. What it forwards and writes is committed with the batch.
    ///
    /// # Errors
    /// Stop the task: there is no record that could be skipped.
    fn punctuate(
        &mut self,
        _punctuation: Punctuation,
        _ctx: &mut Context<'_, Self::KeyOut, Self::ValueOut>,
    ) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Called once when the task leaves this thread; never after a crash. State is safe without it.
    fn close(&mut self) {}
}

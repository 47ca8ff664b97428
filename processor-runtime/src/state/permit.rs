//! The right to change the base (EO-2).

use std::marker::PhantomData;

use crate::kafka::Isolation;
use crate::transaction::CommitReceipt;

/// The right to change the base: from a commit's receipt or from changelog records read committed. It lives no longer
/// than its proof and cannot be made any other way.
///
/// ```compile_fail,E0423
/// let permit = processor_runtime::state::Permit(std::marker::PhantomData);
/// ```
#[derive(Debug)]
pub struct Permit<'proof>(PhantomData<&'proof ()>);

impl<'proof> Permit<'proof> {
    /// The transaction that produced the changes committed.
    pub fn committed(_receipt: &'proof CommitReceipt) -> Self {
        Self(PhantomData)
    }

    /// The changes were read from the changelog, read committed.
    pub fn restored(_batch: &'proof RestoredBatch) -> Self {
        Self(PhantomData)
    }
}

/// Proof that changes were read from a changelog by a `read_committed` reader.
#[derive(Debug)]
pub struct RestoredBatch(());

impl RestoredBatch {
    /// For `restore/`, which names the isolation its reader was made with.
    ///
    /// # Panics
    /// If that is not `ReadCommitted`: restoring records of open or aborted transactions breaks EO-2.
    pub(crate) fn read_with(isolation: Isolation) -> Self {
        assert!(isolation == Isolation::ReadCommitted, "EO-2: the base is restored from committed records only");
        Self(())
    }
}

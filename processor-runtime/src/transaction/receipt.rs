//! The proof that a transaction committed.

use crate::kafka::DeliveryTag;

/// Proof that a transaction committed, with what its commit carried. Only [`super::Prepared::commit`] makes one, and
/// nothing copies it: with it, and only with it, a batch's writes go into the base (EO-2).
///
/// ```compile_fail,E0451
/// // It cannot be forged: its fields are private.
/// let receipt = processor_runtime::transaction::CommitReceipt { delivered: Vec::new() };
/// ```
#[derive(Debug)]
#[must_use = "a committed batch must be applied to the base"]
pub struct CommitReceipt {
    delivered: Vec<Option<i64>>,
}

impl CommitReceipt {
    /// For [`super::Prepared::commit`] alone.
    pub(super) fn new(delivered: Vec<Option<i64>>) -> Self {
        Self { delivered }
    }

    /// The offset behind the last record that the transaction delivered under this tag, if it delivered any.
    pub fn delivered_end(&self, tag: DeliveryTag) -> Option<i64> {
        self.delivered.get(usize::from(tag.0)).copied().flatten()
    }
}

//! The outputs of a transaction on their way to the producer, and which record each comes from, so that the broker's
//! refusal of one has a name.

use processor_core::ids::{NodeIndex, Offset};
use processor_core::task::Task;

use crate::kafka::{DeliveryTag, ProducerRecord, RecordHeaders, RecordNumber, TransactionalProducer, TxnError};
use crate::transaction::Open;

/// The record that an output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// The task's place among the running tasks; it holds while the transaction is open.
    pub(super) task: usize,
    /// The input's place in the task.
    pub(super) input: usize,
    pub(super) offset: Offset,
    pub(super) sink: NodeIndex,
}

/// The outputs of the open transaction, in the order in which they were sent.
#[derive(Debug, Default)]
pub(super) struct Outputs {
    origins: Vec<Origin>,
}

impl Outputs {
    pub(super) fn clear(&mut self) {
        self.origins.clear();
    }

    /// Sends what a task has in its outbox. `from`: the record that it comes from, by task, input and offset; `None`
    /// for a punctuation.
    pub(super) fn send<P: TransactionalProducer>(
        &mut self,
        task: &mut Task,
        from: Option<(usize, usize, Offset)>,
        transaction: &mut Open<P>,
    ) -> Result<(), TxnError> {
        for output in task.outbox().records() {
            let number = match (output.sink, from) {
                (Some(sink), Some((task, input, offset))) => self.numbered(Origin { task, input, offset, sink }),
                (None, _) | (_, None) => RecordNumber::NONE,
            };
            transaction.send(&ProducerRecord {
                topic: output.topic,
                partition: output.partition,
                timestamp: output.timestamp,
                key: output.key,
                value: output.value,
                headers: RecordHeaders::Of(output.headers),
                tag: DeliveryTag::UNTRACKED,
                number,
            })?;
        }
        task.outbox().clear();
        Ok(())
    }

    fn numbered(&mut self, origin: Origin) -> RecordNumber {
        self.origins.push(origin);
        RecordNumber(u32::try_from(self.origins.len()).expect("a batch has a bounded number of outputs"))
    }

    /// The record that an output of the open transaction comes from.
    pub(super) fn origin(&self, number: RecordNumber) -> Option<Origin> {
        let place = usize::try_from(number.0).ok()?.checked_sub(1)?;
        self.origins.get(place).copied()
    }
}

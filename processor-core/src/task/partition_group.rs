//! The records of a task that wait to be processed, merged over its inputs.

use std::collections::VecDeque;

use crate::record::InputRecord;

/// One queue for each input; the record with the lowest timestamp comes first, and of equal ones the lowest input's.
#[derive(Debug)]
pub struct PartitionGroup<R> {
    queues: Vec<VecDeque<R>>,
    len: usize,
}

impl<R: InputRecord> PartitionGroup<R> {
    /// For a task with this many inputs.
    pub fn new(inputs: usize) -> Self {
        Self { queues: (0..inputs).map(|_| VecDeque::new()).collect(), len: 0 }
    }

    /// Appends a record of an input.
    pub fn push(&mut self, input: usize, record: R) {
        self.queues[input].push_back(record);
        self.len += 1;
    }

    /// Takes the record that is next in time, with its input.
    pub fn pop(&mut self) -> Option<(usize, R)> {
        let heads =
            self.queues.iter().enumerate().filter_map(|(input, queue)| Some((queue.front()?.timestamp(), input)));
        let (_, input) = heads.min()?;
        self.len -= 1;
        self.queues[input].pop_front().map(|record| (input, record))
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        self.queues.iter_mut().for_each(VecDeque::clear);
        self.len = 0;
    }
}

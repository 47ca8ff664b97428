//! The records of a task that wait to be processed, merged over its inputs.

use std::collections::VecDeque;

use crate::ids::Timestamp;
use crate::record::InputRecord;

/// One queue for each input; the record with the lowest timestamp comes first, and of equal ones the lowest input's.
#[derive(Debug)]
pub struct PartitionGroup<R> {
    queues: Vec<Queue<R>>,
    len: usize,
    /// Of keys and values; counted only where there are several inputs, whose records may have to wait for each other.
    bytes: usize,
}

#[derive(Debug)]
struct Queue<R> {
    records: VecDeque<R>,
    /// The timestamp of the first record, once it was asked for: finding it may mean to decode the record.
    head: Option<Timestamp>,
}

impl<R: InputRecord> PartitionGroup<R> {
    /// For a task with this many inputs.
    pub fn new(inputs: usize) -> Self {
        let queue = |_| Queue { records: VecDeque::new(), head: None };
        Self { queues: (0..inputs).map(queue).collect(), len: 0, bytes: 0 }
    }

    /// Appends a record of an input.
    pub fn push(&mut self, input: usize, record: R) {
        if self.queues.len() > 1 {
            self.bytes += size(&record);
        }
        self.queues[input].records.push_back(record);
        self.len += 1;
    }

    /// Takes the record that is next in time, with its input. `time_of` says what timestamp a record of an input has,
    /// which is [`Task::time_of`](super::Task::time_of); a task with one input is never asked.
    pub fn pop(&mut self, mut time_of: impl FnMut(usize, &R) -> Timestamp) -> Option<(usize, R)> {
        let next = match self.queues.len() {
            1 => 0,
            _ => self.earliest(&mut time_of)?,
        };
        let queue = &mut self.queues[next];
        let record = queue.records.pop_front()?;
        queue.head = None;
        self.len -= 1;
        if self.queues.len() > 1 {
            self.bytes -= size(&record);
        }
        Some((next, record))
    }

    fn earliest(&mut self, time_of: &mut impl FnMut(usize, &R) -> Timestamp) -> Option<usize> {
        let mut earliest: Option<(Timestamp, usize)> = None;
        for (input, queue) in self.queues.iter_mut().enumerate() {
            let Some(record) = queue.records.front() else { continue };
            let time = *queue.head.get_or_insert_with(|| time_of(input, record));
            if earliest.is_none_or(|(known, _)| time < known) {
                earliest = Some((time, input));
            }
        }
        earliest.map(|(_, input)| input)
    }

    /// For each input, whether no record of it waits.
    pub fn empty_inputs(&self) -> impl Iterator<Item = bool> {
        self.queues.iter().map(|queue| queue.records.is_empty())
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many bytes of keys and values wait; 0 for a task with one input, which holds nothing back.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops what waits.
    pub fn clear(&mut self) {
        for queue in &mut self.queues {
            queue.records.clear();
            queue.head = None;
        }
        (self.len, self.bytes) = (0, 0);
    }
}

fn size(record: &impl InputRecord) -> usize {
    record.key().map_or(0, <[u8]>::len) + record.value().map_or(0, <[u8]>::len)
}

//! The records of a task that wait to be processed, merged over its inputs.

use std::collections::VecDeque;

use crate::ids::Timestamp;
use crate::record::InputRecord;

/// One queue for each input; the record with the lowest timestamp comes first, and of equal ones the lowest input's.
///
/// ```
#[doc = include_str!("example.txt")]
/// let mut group = PartitionGroup::new(2);
/// group.push(0, polled(20, "ann", 5)); // its timestamp is 20 s
/// group.push(1, polled(7, "bob", 5)); // 7 s, in the other topic
/// group.push(1, polled(20, "bob", 5));
/// let times = |_, record: &Polled| record.timestamp;
/// let order: Vec<_> = std::iter::from_fn(|| group.pop(times))
///     .map(|(input, record)| (input, record.offset))
///     .collect();
/// assert_eq!(order, [(1, 7), (0, 20), (1, 20)]);
/// ```
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
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let task = started(FailurePolicy::fail());
    /// let group = PartitionGroup::<Polled>::new(task.inputs().count());
    /// assert!(group.is_empty());
    /// ```
    pub fn new(inputs: usize) -> Self {
        let queue = |_| Queue { records: VecDeque::new(), head: None };
        Self { queues: (0..inputs).map(queue).collect(), len: 0, bytes: 0 }
    }

    /// Appends a record of an input, behind those of the same input that wait already.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut group = PartitionGroup::new(2);
    /// group.push(1, polled(10, "ann", 5));
    /// assert_eq!(group.len(), 1);
    /// ```
    ///
    /// # Panics
    /// If there is no such input.
    pub fn push(&mut self, input: usize, record: R) {
        if self.queues.len() > 1 {
            self.bytes += size(&record);
        }
        self.queues[input].records.push_back(record);
        self.len += 1;
    }

    /// Takes the record that is next in time, with its input. `time_of` says what timestamp a record of an input has,
    /// which is [`Task::time_of`](super::Task::time_of); a task with one input is never asked.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// # let (mut task, base) = (started(FailurePolicy::fail()), State::default());
    /// # let mut group = PartitionGroup::new(1);
    /// group.push(0, polled(10, "ann", 5));
    /// group.push(0, polled(11, "ann", 7));
    /// let now = secs(60);
    /// while let Some((input, record)) = group.pop(|input, next| task.time_of(input, next, now)) {
    ///     assert!(task.process(input, &record, batch(0), &base).is_past());
    ///     task.outbox().clear(); // after they were sent
    /// }
    /// assert_eq!(task.offsets().next(), Some((InputIndex::new(0), Offset::new(12))));
    /// ```
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

    /// The records that wait, each with its input; of each input so many at most.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut group = PartitionGroup::new(2);
    /// for (input, offset) in [(0, 10), (0, 11), (1, 7)] {
    ///     group.push(input, polled(offset, "ann", 5));
    /// }
    /// let waiting: Vec<_> = group.waiting(1).map(|(input, record)| (input, record.offset)).collect();
    /// assert_eq!(waiting, [(0, 10), (1, 7)]);
    /// ```
    pub fn waiting(&self, of_each_max: usize) -> impl Iterator<Item = (usize, &R)> {
        let queues = self.queues.iter().enumerate();
        queues.flat_map(move |(input, queue)| queue.records.iter().take(of_each_max).map(move |record| (input, record)))
    }

    /// For each input, in their order, whether no record of it waits.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut group = PartitionGroup::new(2);
    /// group.push(1, polled(10, "ann", 5));
    /// assert_eq!(group.empty_inputs().collect::<Vec<_>>(), [true, false]);
    /// ```
    pub fn empty_inputs(&self) -> impl Iterator<Item = bool> {
        self.queues.iter().map(|queue| queue.records.is_empty())
    }

    /// How many records wait.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut group = PartitionGroup::new(2);
    /// group.push(0, polled(10, "ann", 5));
    /// group.push(1, polled(10, "bob", 5));
    /// assert_eq!(group.len(), 2); // of all inputs
    /// ```
    pub fn len(&self) -> usize {
        self.len
    }

    /// How many bytes of keys and values wait; 0 for a task with one input, which holds nothing back.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut group = PartitionGroup::new(2);
    /// group.push(0, polled(10, "ann", 5)); // a value is a number of 64 bits
    /// assert_eq!(group.bytes(), "ann".len() + 8);
    /// let mut group = PartitionGroup::new(1);
    /// group.push(0, polled(10, "ann", 5));
    /// assert_eq!(group.bytes(), 0);
    /// ```
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether none waits.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut group = PartitionGroup::new(1);
    /// group.push(0, polled(10, "ann", 5));
    /// assert!(!group.is_empty());
    /// let _ = group.pop(|_, record| record.timestamp);
    /// assert!(group.is_empty());
    /// ```
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops what waits.
    ///
    /// ```
    #[doc = include_str!("example.txt")]
    /// let mut group = PartitionGroup::new(2);
    /// group.push(0, polled(10, "ann", 5));
    /// group.clear(); // the batch is void, and will be polled again
    /// assert_eq!((group.len(), group.bytes()), (0, 0));
    /// ```
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

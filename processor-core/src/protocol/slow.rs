//! When slow operators are spoken of, and when a record that takes too long each time ends the worker.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::{Offset, TopicPartition};

/// How often a turn that could not be made smaller may outlast its transaction. What was slow outside may be
/// quick again the next time; what is slow by itself would be tried for ever.
const ATTEMPTS_MAX: u32 = 3;
/// A record that has kept the operators for one part in so many of the time that a transaction has is spoken of.
const SPOKEN_OF_AFTER: u32 = 4;

/// The times that operators have to be done in.
///
/// ```
/// # use std::time::Duration;
/// # use processor_core::protocol::slow::{Consequence, SlowLimits};
/// # let (secs, mins) = (Duration::from_secs, Duration::from_mins);
/// let limits = SlowLimits { transaction: secs(8), max_poll_interval: mins(5) };
/// assert_eq!(limits.spoken_of_after(), secs(2));
/// assert_eq!(limits.consequence(secs(2)), Consequence::CommitsWithin(secs(6)));
/// assert_eq!(limits.consequence(mins(5)), Consequence::Moved);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowLimits {
    /// How long a transaction may take before it is aborted: a part of `transaction.timeout.ms`.
    pub transaction: Duration,
    /// `max.poll.interval.ms`: without a poll for so long, the group gives the partitions to another worker.
    pub max_poll_interval: Duration,
}

/// What follows if the operators go on for as long as they have.
///
/// ```
/// # use std::time::Duration;
/// # use processor_core::protocol::slow::{Consequence, SlowLimits};
/// # let (secs, mins) = (Duration::from_secs, Duration::from_mins);
/// # let limits = SlowLimits { transaction: secs(8), max_poll_interval: mins(5) };
/// let text = |consequence| match consequence {
///     Consequence::CommitsWithin(left) => format!("commits, if done within {left:?}"),
///     Consequence::Aborts { moves_in } => format!("aborts; partitions move in {moves_in:?}"),
///     Consequence::Moved => "partitions have moved".to_owned(),
/// };
/// assert_eq!(text(limits.consequence(secs(2))), "commits, if done within 6s");
/// assert_eq!(text(limits.consequence(secs(8))), "aborts; partitions move in 292s");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// None, if they are done within this time.
    CommitsWithin(Duration),
    /// The transaction is aborted. In this time the group gives the partitions away, too.
    Aborts {
        /// What is left of `max.poll.interval.ms`.
        moves_in: Duration,
    },
    /// The group has given the partitions away.
    Moved,
}

impl SlowLimits {
    /// How long the operators may be at one record, or at one punctuation, before it is spoken of. Then again after twice
    /// as long, and so on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::slow::{Consequence, SlowLimits};
    /// # let (secs, mins) = (Duration::from_secs, Duration::from_mins);
    /// # let limits = SlowLimits { transaction: secs(8), max_poll_interval: mins(5) };
    /// assert_eq!(limits.spoken_of_after(), limits.transaction / 4); // 2 s, then 4 s, 8 s, …
    /// ```
    pub fn spoken_of_after(&self) -> Duration {
        self.transaction / SPOKEN_OF_AFTER
    }

    /// What follows for the operators that have been at one thing for so long.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::slow::{Consequence, SlowLimits};
    /// # let (secs, mins) = (Duration::from_secs, Duration::from_mins);
    /// # let limits = SlowLimits { transaction: secs(8), max_poll_interval: mins(5) };
    /// // The transaction has 8 s, and the group waits for 5 min.
    /// assert_eq!(limits.consequence(secs(7)), Consequence::CommitsWithin(secs(1)));
    /// assert_eq!(limits.consequence(mins(4)), Consequence::Aborts { moves_in: mins(1) });
    /// assert_eq!(limits.consequence(mins(6)), Consequence::Moved);
    /// ```
    pub fn consequence(&self, busy: Duration) -> Consequence {
        match (self.transaction.checked_sub(busy), self.max_poll_interval.checked_sub(busy)) {
            (Some(left), _) if !left.is_zero() => Consequence::CommitsWithin(left),
            (_, Some(moves_in)) if !moves_in.is_zero() => Consequence::Aborts { moves_in },
            (_, _) => Consequence::Moved,
        }
    }
}

/// Turns of a single record, or of punctuations alone, that took too long for their transaction. They need not follow each
/// other: between two attempts at a record, those of other partitions get their turns.
///
/// ```
/// use processor_core::ids::{Offset, Partition, TopicPartition};
/// use processor_core::protocol::slow::{AfterOutlasting, Outlasted};
///
/// let at = |number, offset| {
///     Some((TopicPartition::new("in", Partition::new(number)), Offset::new(offset)))
/// };
/// let mut outlasted = Outlasted::default();
/// assert_eq!(outlasted.once_more(at(0, 7)), AfterOutlasting::Again { attempt: 1, of: 3 });
/// assert_eq!(outlasted.once_more(at(1, 4)), AfterOutlasting::Again { attempt: 1, of: 3 });
/// outlasted.committed(); // a turn of other records: it changes nothing for these
/// assert_eq!(outlasted.once_more(at(0, 7)), AfterOutlasting::Again { attempt: 2, of: 3 });
/// assert_eq!(outlasted.once_more(at(0, 7)), AfterOutlasting::Stop { attempts: 3 });
/// ```
#[derive(Debug, Default)]
pub struct Outlasted {
    records: BTreeMap<TopicPartition, (Offset, u32)>,
    punctuations: u32,
}

/// What follows a turn that took too long for its transaction and cannot be made smaller.
///
/// ```
/// # use processor_core::ids::{Offset, Partition, TopicPartition};
/// # use processor_core::protocol::slow::{AfterOutlasting, Outlasted};
/// let text = |after| match after {
///     AfterOutlasting::Again { attempt, of } => format!("attempt {attempt} of {of} was slow"),
///     AfterOutlasting::Stop { attempts } => format!("it took too long {attempts} times"),
/// };
/// let mut outlasted = Outlasted::default();
/// let texts = [(); 3].map(|()| text(outlasted.once_more(None)));
/// assert_eq!(texts[1], "attempt 2 of 3 was slow");
/// assert_eq!(texts[2], "it took too long 3 times");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterOutlasting {
    /// It is tried again; this was the attempt with this number, of so many.
    Again {
        /// From 1.
        attempt: u32,
        /// The last one.
        of: u32,
    },
    /// It took too long each of so many times: the worker stops, and a person must act.
    Stop {
        /// How many times.
        attempts: u32,
    },
}

impl Outlasted {
    /// Another such turn: of the record at this place, or with `None` of punctuations.
    ///
    /// ```
    /// # use processor_core::ids::{Offset, Partition, TopicPartition};
    /// # use processor_core::protocol::slow::{AfterOutlasting, Outlasted};
    /// # let partition = TopicPartition::new("in", Partition::new(0));
    /// # let at = |offset| Some((partition.clone(), Offset::new(offset)));
    /// let mut outlasted = Outlasted::default();
    /// outlasted.once_more(at(7)); // offset 7 of in-0
    /// assert_eq!(outlasted.once_more(at(7)), AfterOutlasting::Again { attempt: 2, of: 3 });
    /// // The record got through in the end, and the one behind it is slow, too.
    /// assert_eq!(outlasted.once_more(at(8)), AfterOutlasting::Again { attempt: 1, of: 3 });
    /// ```
    pub fn once_more(&mut self, place: Option<(TopicPartition, Offset)>) -> AfterOutlasting {
        let times = match place {
            Some((partition, offset)) => {
                let (at, times) = self.records.entry(partition).or_insert((offset, 0));
                if *at != offset {
                    (*at, *times) = (offset, 0);
                }
                times
            }
            None => &mut self.punctuations,
        };
        *times += 1;
        if *times < ATTEMPTS_MAX {
            AfterOutlasting::Again { attempt: *times, of: ATTEMPTS_MAX }
        } else {
            AfterOutlasting::Stop { attempts: *times }
        }
    }

    /// A turn has committed, and with it the punctuations that were due: they are counted anew.
    /// Records are not: that one got through is known when a later one of its partition comes.
    ///
    /// ```
    /// # use processor_core::ids::{Offset, Partition, TopicPartition};
    /// # use processor_core::protocol::slow::{AfterOutlasting, Outlasted};
    /// let mut outlasted = Outlasted::default();
    /// outlasted.once_more(None);
    /// outlasted.committed();
    /// assert_eq!(outlasted.once_more(None), AfterOutlasting::Again { attempt: 1, of: 3 });
    /// ```
    pub fn committed(&mut self) {
        self.punctuations = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Partition;

    const LIMITS: SlowLimits =
        SlowLimits { transaction: Duration::from_secs(8), max_poll_interval: Duration::from_mins(5) };

    #[test]
    fn the_consequence_grows_with_the_time() {
        let after = |seconds| LIMITS.consequence(Duration::from_secs(seconds));
        assert_eq!(LIMITS.spoken_of_after(), Duration::from_secs(2));
        assert_eq!(after(2), Consequence::CommitsWithin(Duration::from_secs(6)));
        assert_eq!(after(8), Consequence::Aborts { moves_in: Duration::from_secs(292) });
        assert_eq!(after(300), Consequence::Moved);
    }

    #[test]
    fn a_record_that_is_slow_each_time_ends_the_worker_whatever_comes_between() {
        let at = |partition, offset| Some((TopicPartition::new("in", Partition::new(partition)), Offset::new(offset)));
        let mut outlasted = Outlasted::default();
        let again = |attempt| AfterOutlasting::Again { attempt, of: 3 };
        assert_eq!(outlasted.once_more(at(0, 7)), again(1));
        assert_eq!(outlasted.once_more(at(0, 7)), again(2));
        assert_eq!(outlasted.once_more(at(0, 8)), again(1), "the other one got through in the end");
        assert_eq!(outlasted.once_more(at(1, 8)), again(1), "another partition");
        outlasted.committed();
        assert_eq!(outlasted.once_more(at(0, 8)), again(2));
        assert_eq!(outlasted.once_more(at(1, 8)), again(2));
        assert_eq!(outlasted.once_more(at(0, 8)), AfterOutlasting::Stop { attempts: 3 });
    }

    #[test]
    fn punctuations_are_counted_until_a_turn_commits() {
        let mut outlasted = Outlasted::default();
        let again = |attempt| AfterOutlasting::Again { attempt, of: 3 };
        assert_eq!([1, 2].map(|_| outlasted.once_more(None)), [1, 2].map(again));
        outlasted.committed();
        assert_eq!([1, 2].map(|_| outlasted.once_more(None)), [1, 2].map(again));
        assert_eq!(outlasted.once_more(None), AfterOutlasting::Stop { attempts: 3 });
    }
}

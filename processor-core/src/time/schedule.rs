//! Schedules: which node is punctuated when.
//!
//! A schedule is due at the multiples of its interval, so that stream-time punctuations fall on the same times after a
//! restart (EO-7). One that is due several times over fires once. Schedules that are made, cancelled or fired by a record
//! that fails, or in a batch that is abandoned, are as they were before it (EO-9).

use std::time::Duration;

use crate::ids::{NodeIndex, Timestamp};

/// The clock that a schedule goes by.
///
/// ```
/// use std::time::Duration;
/// use processor_core::prelude::*;
/// use processor_core::testing::{TopologyTestDriver, secs};
///
/// /// Says which clock has passed a minute.
/// struct Minutes;
///
/// impl Operator for Minutes {
///     # type KeyIn = String;
///     # type ValueIn = i64;
///     # type KeyOut = String;
///     # type ValueOut = i64;
///     fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
///         ctx.schedule(Duration::from_secs(60), Clock::StreamTime);
///         ctx.schedule(Duration::from_secs(60), Clock::WallClock);
///         Ok(())
///     }
///     # fn process(&mut self, _: Record<String, i64>, _: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
///     #     Ok(())
///     # }
///     fn punctuate(&mut self, at: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
///         ctx.forward(Record::new(format!("{:?}", at.clock), at.due.get(), at.now))
///     }
/// }
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, JavaLong)).process("minutes", || Minutes).sink("out", "out", (Utf8, JavaLong));
/// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
/// let input = driver.input::<String, i64>("in");
/// input.pipe_at(secs(10), "a", 1);
/// input.pipe_at(secs(200), "a", 1); // three minutes have passed, and the last of them fires
/// driver.advance_wall_clock(Duration::from_secs(60))?;
/// let fired: Vec<_> = driver.output::<String, i64>("out").records();
/// assert_eq!(fired[0], Record::new("StreamTime".to_owned(), 180_000, secs(200)));
/// assert_eq!(fired[1], Record::new("WallClock".to_owned(), 60_000, secs(60)));
/// # assert_eq!(fired.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// The highest timestamp that the task has seen: the schedule fires right behind the record that moved it past the
    /// due time, and not at all while no record comes.
    StreamTime,
    /// The time of day, as the runtime supplies it: the schedule fires whether records come or not.
    WallClock,
}

/// Names a schedule within its task.
///
/// ```
/// use std::time::Duration;
/// use processor_core::prelude::*;
///
/// /// Tells its two schedules apart by their ids.
/// #[derive(Default)]
/// struct Reports {
///     daily: Option<ScheduleId>,
/// }
///
/// impl Operator for Reports {
///     # type KeyIn = String;
///     # type ValueIn = i64;
///     # type KeyOut = String;
///     # type ValueOut = i64;
///     fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
///         ctx.schedule(Duration::from_hours(1), Clock::StreamTime);
///         self.daily = Some(ctx.schedule(Duration::from_hours(24), Clock::StreamTime));
///         Ok(())
///     }
///     # fn process(&mut self, _: Record<String, i64>, _: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
///     #     Ok(())
///     # }
///     fn punctuate(&mut self, at: Punctuation, ctx: &mut Context<'_, String, i64>) -> Result<(), OperatorError> {
///         let what = if Some(at.schedule) == self.daily { "day" } else { "hour" };
///         ctx.forward(Record::new(what.to_owned(), 1, at.due))
///     }
/// }
/// # use processor_core::testing::{TopologyTestDriver, secs};
/// # let mut topology = Topology::builder();
/// # topology.source("in", "in", (Utf8, JavaLong)).process("r", Reports::default).sink("out", "out", (Utf8, JavaLong));
/// # let driver = TopologyTestDriver::new(topology.build()?)?;
/// # driver.input::<String, i64>("in").pipe_at(secs(1), "a", 1);
/// # driver.input::<String, i64>("in").pipe_at(secs(24 * 3_600), "a", 1);
/// # let keys: Vec<_> = driver.output::<String, i64>("out").records().into_iter().map(|record| record.key).collect();
/// # assert_eq!(keys, ["hour", "day"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScheduleId(u32);

/// A schedule has fired.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::testing::secs;
///
/// /// When a schedule of a minute was due, and how many milliseconds later it fired.
/// fn report(at: Punctuation) -> Record<String, i64> {
///     let late_ms = at.now.get() - at.due.get();
///     Record::new(format!("{:?}", at.clock), late_ms, at.due)
/// }
/// # struct Late;
/// # impl Operator for Late {
/// #     type KeyIn = String;
/// #     type ValueIn = i64;
/// #     type KeyOut = String;
/// #     type ValueOut = i64;
/// #     fn open(&mut self, ctx: &mut OpenContext<'_>) -> Result<(), OperatorError> {
/// #         ctx.schedule(std::time::Duration::from_secs(60), Clock::StreamTime);
/// #         Ok(())
/// #     }
/// #     fn process(
/// #         &mut self,
/// #         _: Record<String, i64>,
/// #         _: &mut Context<'_, String, i64>,
/// #     ) -> Result<(), OperatorError> {
/// #         Ok(())
/// #     }
/// #     fn punctuate(
/// #         &mut self,
/// #         at: Punctuation,
/// #         ctx: &mut Context<'_, String, i64>,
/// #     ) -> Result<(), OperatorError> {
/// #         ctx.forward(report(at))
/// #     }
/// # }
/// # let mut topology = Topology::builder();
/// # let readings = topology.source("in", "in", (Utf8, JavaLong));
/// # readings.process("late", || Late).sink("out", "out", (Utf8, JavaLong));
/// # let driver = processor_core::testing::TopologyTestDriver::new(topology.build()?)?;
/// let input = driver.input::<String, i64>("in");
/// input.pipe_at(secs(10), "kitchen", 21);
/// input.pipe_at(secs(65), "kitchen", 21);
/// let reports = driver.output::<String, i64>("out").records();
/// assert_eq!(reports, [Record::new("StreamTime".to_owned(), 5_000, secs(60))]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punctuation {
    /// Which one.
    pub schedule: ScheduleId,
    /// Its clock.
    pub clock: Clock,
    /// The due time: the last multiple of the interval that is not after `now`. Earlier ones that were missed are
    /// passed over.
    pub due: Timestamp,
    /// What the clock says.
    pub now: Timestamp,
}

/// A punctuation on its way to its node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Due {
    pub(crate) node: NodeIndex,
    pub(crate) punctuation: Punctuation,
}

#[derive(Clone, Copy, Debug)]
struct Schedule {
    id: ScheduleId,
    node: NodeIndex,
    clock: Clock,
    every_ms: i64,
    /// `None` until its clock has shown a first time.
    next: Option<Timestamp>,
}

#[derive(Debug, Default)]
struct Made {
    schedules: Vec<Schedule>,
    count: u32,
}

impl Made {
    fn copy_from(&mut self, other: &Self) {
        self.schedules.clone_from(&other.schedules);
        self.count = other.count;
    }
}

/// All schedules of a task.
#[derive(Debug, Default)]
pub(crate) struct Schedules {
    made: Made,
    /// As they were before the record in process, if it has changed them.
    before_record: Made,
    record_changed: bool,
    /// As they were at the last commit, if the batch has changed them.
    committed: Made,
    batch_changed: bool,
    /// As the operators' `open` made them.
    at_open: Made,
}

impl Schedules {
    pub(crate) fn add(&mut self, node: NodeIndex, every: Duration, clock: Clock, now: Option<Timestamp>) -> ScheduleId {
        self.keep();
        let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).max(1);
        let id = ScheduleId(self.made.count);
        self.made.count += 1;
        let next = now.map(|now| multiple_after(now, every_ms));
        self.made.schedules.push(Schedule { id, node, clock, every_ms, next });
        id
    }

    pub(crate) fn cancel(&mut self, node: NodeIndex, id: ScheduleId) {
        self.keep();
        self.made.schedules.retain(|schedule| schedule.id != id || schedule.node != node);
    }

    /// Takes the schedule that is next due by this clock, and sets it to its next due time.
    pub(crate) fn take_due(&mut self, clock: Clock, now: Timestamp) -> Option<Due> {
        if self.made.schedules.is_empty() {
            return None;
        }
        self.anchor(clock, now);
        let of_clock = self.made.schedules.iter().enumerate().filter(|(_, schedule)| schedule.clock == clock);
        let due = of_clock.filter(|(_, schedule)| schedule.next.is_some_and(|next| next <= now));
        let (position, _) = due.min_by_key(|(_, schedule)| (schedule.next, schedule.id.0))?;
        self.keep();
        let schedule = &mut self.made.schedules[position];
        let next = multiple_after(now, schedule.every_ms);
        schedule.next = Some(next);
        let due = Timestamp::new(next.get().saturating_sub(schedule.every_ms));
        Some(Due { node: schedule.node, punctuation: Punctuation { schedule: schedule.id, clock, due, now } })
    }

    /// Schedules that have waited for their clock's first time are due at the multiples after it.
    pub(crate) fn anchor(&mut self, clock: Clock, now: Timestamp) {
        let waits = |schedule: &Schedule| schedule.clock == clock && schedule.next.is_none();
        if !self.made.schedules.iter().any(waits) {
            return;
        }
        self.keep();
        for schedule in self.made.schedules.iter_mut().filter(|schedule| waits(schedule)) {
            schedule.next = Some(multiple_after(now, schedule.every_ms));
        }
    }

    /// When the next schedule of a clock is due.
    pub(crate) fn next_due(&self, clock: Clock) -> Option<Timestamp> {
        self.made.schedules.iter().filter(|schedule| schedule.clock == clock).filter_map(|schedule| schedule.next).min()
    }

    /// The operators have been opened: this is what a start begins with.
    pub(crate) fn opened(&mut self) {
        self.at_open.copy_from(&self.made);
    }

    /// The task starts at a position: schedules are as `open` made them.
    pub(crate) fn start(&mut self) {
        self.made.copy_from(&self.at_open);
        (self.record_changed, self.batch_changed) = (false, false);
    }

    pub(crate) fn begin_record(&mut self) {
        self.record_changed = false;
    }

    pub(crate) fn roll_back_record(&mut self) {
        if std::mem::take(&mut self.record_changed) {
            self.made.copy_from(&self.before_record);
        }
    }

    pub(crate) fn applied(&mut self) {
        (self.record_changed, self.batch_changed) = (false, false);
    }

    pub(crate) fn abandon(&mut self) {
        self.record_changed = false;
        if std::mem::take(&mut self.batch_changed) {
            self.made.copy_from(&self.committed);
        }
    }

    /// Keeps the schedules as they are, once a record and once a batch.
    fn keep(&mut self) {
        if !std::mem::replace(&mut self.batch_changed, true) {
            self.committed.copy_from(&self.made);
        }
        if !std::mem::replace(&mut self.record_changed, true) {
            self.before_record.copy_from(&self.made);
        }
    }
}

fn multiple_after(time: Timestamp, every_ms: i64) -> Timestamp {
    Timestamp::new(time.get().div_euclid(every_ms).saturating_add(1).saturating_mul(every_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeIndex = NodeIndex::new(1);

    fn at(ms: i64) -> Timestamp {
        Timestamp::new(ms)
    }

    fn fired(schedules: &mut Schedules, now: i64) -> Vec<i64> {
        let due = || schedules.take_due(Clock::StreamTime, at(now)).map(|due| due.punctuation.due.get());
        std::iter::from_fn(due).collect()
    }

    #[test]
    fn due_times_are_multiples_and_missed_ones_fire_once() {
        let mut schedules = Schedules::default();
        schedules.add(NODE, Duration::from_millis(100), Clock::StreamTime, None);
        assert_eq!(fired(&mut schedules, 1_234), [0_i64; 0], "the first time only anchors it");
        assert_eq!(fired(&mut schedules, 1_299), [0_i64; 0]);
        assert_eq!(fired(&mut schedules, 1_300), [1_300]);
        assert_eq!(fired(&mut schedules, 1_399), [0_i64; 0]);
        assert_eq!(fired(&mut schedules, 1_777), [1_700]);
        assert_eq!(schedules.next_due(Clock::StreamTime), Some(at(1_800)));
    }

    #[test]
    fn schedules_fire_in_the_order_of_their_due_times() {
        let mut schedules = Schedules::default();
        schedules.add(NODE, Duration::from_millis(100), Clock::StreamTime, Some(at(0)));
        schedules.add(NODE, Duration::from_millis(70), Clock::StreamTime, Some(at(0)));
        schedules.add(NODE, Duration::from_millis(100), Clock::StreamTime, Some(at(0)));
        assert_eq!(fired(&mut schedules, 110), [70, 100, 100]);
    }

    /// EO-9: what a failing record or an abandoned batch did to the schedules is undone.
    #[test]
    fn a_failed_record_and_an_abandoned_batch_leave_schedules_as_they_were() {
        let mut schedules = Schedules::default();
        let kept = schedules.add(NODE, Duration::from_millis(100), Clock::StreamTime, Some(at(0)));
        schedules.applied();
        schedules.begin_record();
        assert_eq!(fired(&mut schedules, 150), [100]);
        schedules.begin_record();
        schedules.cancel(NODE, kept);
        schedules.add(NODE, Duration::from_millis(10), Clock::StreamTime, Some(at(150)));
        schedules.roll_back_record();
        assert_eq!(fired(&mut schedules, 199), [0_i64; 0]);
        assert_eq!(schedules.next_due(Clock::StreamTime), Some(at(200)));
        schedules.abandon();
        assert_eq!(schedules.next_due(Clock::StreamTime), Some(at(100)));
        schedules.abandon();
        assert_eq!(schedules.next_due(Clock::StreamTime), Some(at(100)));
    }
}

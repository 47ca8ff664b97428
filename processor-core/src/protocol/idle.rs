//! When a task with several inputs may process: its inputs are merged by time, so one that is empty, but has records on
//! the way, is waited for.

use std::time::Duration;

/// What is known of one input of a task.
///
/// ```
/// # use std::time::Duration;
/// # use processor_core::protocol::idle::{InputState, Patience, Readiness};
/// # let secs = Duration::from_secs;
/// let full = InputState { empty: false, caught_up: false };
/// let behind = InputState { empty: true, caught_up: false }; // it has more, not polled yet
/// let at_end = InputState { empty: true, caught_up: true };
/// let look = |inputs: [InputState; 2]| {
///     Patience::default().look(inputs.into_iter(), secs(5), secs(100))
/// };
/// assert_eq!(look([full, at_end]), Readiness::InOrder);
/// assert_eq!(look([full, behind]), Readiness::WaitUntil(secs(105)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputState {
    /// Whether no record of it waits to be processed.
    pub empty: bool,
    /// Whether all records that its log had when it was last asked have been polled.
    pub caught_up: bool,
}

/// What a task with these inputs does.
///
/// ```
/// # use std::time::Duration;
/// # use processor_core::protocol::idle::{InputState, Patience, Readiness};
/// # let secs = Duration::from_secs;
/// # let full = InputState { empty: false, caught_up: false };
/// # let behind = InputState { empty: true, caught_up: false };
/// # let at_end = InputState { empty: true, caught_up: true };
/// let may_process = |readiness| match readiness {
///     Readiness::InOrder | Readiness::Anyway => true,
///     Readiness::Idle | Readiness::WaitUntil(_) => false,
/// };
/// let mut patience = Patience::default();
/// let mut look = |inputs: [InputState; 2], at| {
///     may_process(patience.look(inputs.into_iter(), secs(5), secs(at)))
/// };
/// assert!(!look([at_end, at_end], 100));
/// assert!(!look([full, behind], 101), "until 106");
/// assert!(look([full, full], 102), "the other one has come");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// There is nothing to process.
    Idle,
    /// Process, in the order of time, until an input runs empty that is not caught up.
    InOrder,
    /// Wait for the empty inputs, until this time at the most.
    WaitUntil(Duration),
    /// It has waited long enough: process what is there.
    Anyway,
}

/// For how long a task has waited for its inputs.
///
/// ```
/// # use std::time::Duration;
/// use processor_core::protocol::idle::{InputState, Patience, Readiness};
///
/// # let secs = Duration::from_secs;
/// # let full = InputState { empty: false, caught_up: false };
/// # let behind = InputState { empty: true, caught_up: false };
/// let mut patience = Patience::default(); // one for each task
/// let mut look = |inputs: [InputState; 2], at| {
///     patience.look(inputs.into_iter(), secs(5), secs(at))
/// };
/// assert_eq!(look([full, behind], 100), Readiness::WaitUntil(secs(105)));
/// assert_eq!(look([full, behind], 105), Readiness::Anyway);
/// assert_eq!(look([full, behind], 200), Readiness::Anyway); // it was waited for in vain
/// assert_eq!(look([full, full], 201), Readiness::InOrder); // it is back
/// assert_eq!(look([full, behind], 202), Readiness::WaitUntil(secs(207)));
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    since: Option<Duration>,
    /// What is missing was waited for in vain.
    in_vain: bool,
}

impl Patience {
    /// What the task does now. `idle_max` is `max.task.idle`, zero for not to wait. `now` is the
    /// time since some fixed moment, on a clock that never goes back.
    ///
    /// It waits only for inputs that are empty and not known to be at their end. Once that was in
    /// vain it does not wait again before nothing is missing: an input that cannot be read holds
    /// the others up once.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::protocol::idle::{InputState, Patience, Readiness};
    /// # let secs = Duration::from_secs;
    /// # let full = InputState { empty: false, caught_up: false };
    /// # let behind = InputState { empty: true, caught_up: false };
    /// # let at_end = InputState { empty: true, caught_up: true };
    /// let inputs = || [full, behind].into_iter();
    /// let look = |idle_max| Patience::default().look(inputs(), idle_max, secs(100));
    /// assert_eq!(look(secs(5)), Readiness::WaitUntil(secs(105)));
    /// assert_eq!(look(Duration::ZERO), Readiness::Anyway);
    /// ```
    pub fn look(&mut self, inputs: impl Iterator<Item = InputState>, idle_max: Duration, now: Duration) -> Readiness {
        let (mut some_wait, mut some_lack) = (false, false);
        for input in inputs {
            some_wait |= !input.empty;
            some_lack |= input.empty && !input.caught_up;
        }
        self.in_vain &= some_lack;
        if !some_wait || !some_lack {
            self.since = None;
            return if some_wait { Readiness::InOrder } else { Readiness::Idle };
        }
        let until = self.since.get_or_insert(now).saturating_add(idle_max);
        if !self.in_vain && now < until {
            return Readiness::WaitUntil(until);
        }
        self.in_vain = true;
        Readiness::Anyway
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: InputState = InputState { empty: false, caught_up: false };
    const EMPTY: InputState = InputState { empty: true, caught_up: false };
    const AT_END: InputState = InputState { empty: true, caught_up: true };
    const MAX: Duration = Duration::from_secs(5);

    fn look(patience: &mut Patience, at: u64, inputs: &[InputState]) -> Readiness {
        patience.look(inputs.iter().copied(), MAX, Duration::from_secs(at))
    }

    #[test]
    fn an_empty_input_is_waited_for_so_long_and_no_longer() {
        let mut patience = Patience::default();
        let until = Readiness::WaitUntil(Duration::from_secs(105));
        assert_eq!(look(&mut patience, 100, &[FULL, EMPTY]), until);
        assert_eq!(look(&mut patience, 104, &[FULL, EMPTY]), until);
        assert_eq!(look(&mut patience, 105, &[FULL, EMPTY]), Readiness::Anyway);
    }

    #[test]
    fn one_that_was_waited_for_in_vain_is_not_waited_for_again_before_it_is_back() {
        let mut patience = Patience::default();
        look(&mut patience, 100, &[FULL, EMPTY]);
        assert_eq!(look(&mut patience, 105, &[FULL, EMPTY]), Readiness::Anyway);
        assert_eq!(look(&mut patience, 200, &[FULL, EMPTY]), Readiness::Anyway);
        assert_eq!(look(&mut patience, 201, &[FULL, FULL]), Readiness::InOrder);
        let until = Readiness::WaitUntil(Duration::from_secs(207));
        assert_eq!(look(&mut patience, 202, &[FULL, EMPTY]), until);
    }

    #[test]
    fn a_trickle_beside_an_input_that_cannot_be_read_is_held_up_once() {
        let mut patience = Patience::default();
        look(&mut patience, 100, &[FULL, EMPTY]);
        assert_eq!(look(&mut patience, 105, &[FULL, EMPTY]), Readiness::Anyway);
        assert_eq!(look(&mut patience, 106, &[EMPTY, EMPTY]), Readiness::Idle);
        assert_eq!(look(&mut patience, 107, &[FULL, EMPTY]), Readiness::Anyway);
        assert_eq!(look(&mut patience, 108, &[AT_END, AT_END]), Readiness::Idle);
        assert_eq!(look(&mut patience, 109, &[FULL, EMPTY]), Readiness::WaitUntil(Duration::from_secs(114)));
    }

    #[test]
    fn the_wait_begins_with_a_record_that_is_held_back() {
        let mut patience = Patience::default();
        assert_eq!(look(&mut patience, 100, &[EMPTY, EMPTY]), Readiness::Idle);
        let until = Readiness::WaitUntil(Duration::from_secs(205));
        assert_eq!(look(&mut patience, 200, &[FULL, EMPTY]), until);
    }

    #[test]
    fn inputs_at_their_end_and_full_ones_are_not_waited_for() {
        let mut patience = Patience::default();
        assert_eq!(look(&mut patience, 0, &[FULL, AT_END]), Readiness::InOrder);
        assert_eq!(look(&mut patience, 0, &[FULL, FULL]), Readiness::InOrder);
        assert_eq!(look(&mut patience, 0, &[FULL]), Readiness::InOrder);
        assert_eq!(look(&mut patience, 0, &[EMPTY, AT_END]), Readiness::Idle);
    }

    #[test]
    fn zero_means_not_to_wait() {
        let looked = Patience::default().look([FULL, EMPTY].into_iter(), Duration::ZERO, Duration::ZERO);
        assert_eq!(looked, Readiness::Anyway);
    }
}

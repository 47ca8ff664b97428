//! When a task with several inputs may process: its inputs are merged by time, so one that is empty, but has records on
//! the way, is waited for.

use std::time::Duration;

/// What is known of one input of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputState {
    /// Whether no record of it waits to be processed.
    pub empty: bool,
    /// Whether all records that its log had when it was last asked have been polled.
    pub caught_up: bool,
}

/// What a task with these inputs does.
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
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    since: Option<Duration>,
    /// What is missing was waited for in vain.
    in_vain: bool,
}

impl Patience {
    /// What the task does now. `idle_max` is `max.task.idle`, zero for not to wait.
    ///
    /// It waits only for inputs that are empty and not known to be at their end. Once that was in vain it does not wait again
    /// before nothing is missing: an input that cannot be read holds the others up once.
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

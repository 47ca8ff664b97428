//! When a task with several inputs may process: records of its inputs are merged by time, so one that is empty, but may
//! have older records on the way, is waited for.

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
    /// Process.
    Ready,
    /// Wait for the empty inputs, until this time at the most.
    WaitUntil(Duration),
}

/// Whether a task may process. `idle_max` is `max.task.idle`, zero for not to wait; `since` is when it was first told to
/// wait, and `now` the same clock.
///
/// It waits only for inputs that are empty and not known to be at their end.
pub fn readiness(inputs: &[InputState], idle_max: Duration, since: Option<Duration>, now: Duration) -> Readiness {
    if inputs.iter().all(|input| input.empty) {
        return Readiness::Idle;
    }
    let waits = inputs.iter().any(|input| input.empty && !input.caught_up);
    let until = since.unwrap_or(now).saturating_add(idle_max);
    if waits && now < until { Readiness::WaitUntil(until) } else { Readiness::Ready }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: InputState = InputState { empty: false, caught_up: false };
    const EMPTY: InputState = InputState { empty: true, caught_up: false };
    const AT_END: InputState = InputState { empty: true, caught_up: true };
    const MAX: Duration = Duration::from_secs(5);

    fn after(waited: u64, inputs: &[InputState]) -> Readiness {
        readiness(inputs, MAX, Some(Duration::from_secs(100)), Duration::from_secs(100 + waited))
    }

    #[test]
    fn an_empty_input_is_waited_for_so_long_and_no_longer() {
        let until = Readiness::WaitUntil(Duration::from_secs(105));
        assert_eq!(readiness(&[FULL, EMPTY], MAX, None, Duration::from_secs(100)), until);
        assert_eq!(after(4, &[FULL, EMPTY]), until);
        assert_eq!(after(5, &[FULL, EMPTY]), Readiness::Ready);
    }

    #[test]
    fn inputs_at_their_end_and_full_ones_are_not_waited_for() {
        assert_eq!(after(0, &[FULL, AT_END]), Readiness::Ready);
        assert_eq!(after(0, &[FULL, FULL]), Readiness::Ready);
        assert_eq!(after(0, &[FULL]), Readiness::Ready);
        assert_eq!(after(0, &[EMPTY, AT_END]), Readiness::Idle);
    }

    #[test]
    fn zero_means_not_to_wait() {
        assert_eq!(readiness(&[FULL, EMPTY], Duration::ZERO, None, Duration::ZERO), Readiness::Ready);
    }
}

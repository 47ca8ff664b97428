//! Failure × policy → verdict: what becomes of a record that failed.

use std::time::Duration;

/// The longest wait between two attempts, unless [`Retry::delay_max`] says otherwise.
const DELAY_MAX: Duration = Duration::from_mins(1);

/// What becomes of a record that cannot be decoded, processed or written.
///
/// ```
/// use std::time::Duration;
/// use processor_core::prelude::*;
///
/// let mut topology = Topology::builder();
/// topology.on_failure(FailurePolicy::dead_letter("readings-failed"));
/// topology
///     .source("readings", "readings", (Utf8, JavaDouble))
///     .on_failure(FailurePolicy::skip())
///     .each("check", |record, ctx| {
///         if record.value.is_nan() {
///             return Err(OperatorError::message("not a number"));
///         }
///         ctx.forward(record)
///     })
///     .on_failure(FailurePolicy::retry(3, Duration::from_millis(100)).then(FailurePolicy::skip()))
///     .sink("checked", "checked", (Utf8, JavaDouble));
/// topology.build()?;
/// # Ok::<(), TopologyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailurePolicy(Last);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Last {
    Fail,
    Skip,
    DeadLetter(String),
}

impl FailurePolicy {
    /// The task stops at the record, and nothing of it is committed. The default.
    pub fn fail() -> Self {
        Self(Last::Fail)
    }

    /// The record is counted and passed over, and leaves nothing else (EO-9).
    pub fn skip() -> Self {
        Self(Last::Skip)
    }

    /// The record goes to a topic as it came, with headers that say where it failed and why, in the transaction that
    /// passes it over; it leaves nothing else (EO-9).
    pub fn dead_letter(topic: impl Into<String>) -> Self {
        Self(Last::DeadLetter(topic.into()))
    }

    /// The record is processed again up to so many times, the first time after `delay`, and then each time after twice
    /// as long, a minute at the most. Later records of its task wait.
    pub fn retry(times: u32, delay: Duration) -> Retry {
        Retry { times, delay, delay_max: DELAY_MAX }
    }
}

/// Attempts after a failure; [`then`](Self::then) says what follows the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "say with .then(policy) what becomes of a record that fails every time"]
pub struct Retry {
    times: u32,
    delay: Duration,
    delay_max: Duration,
}

impl Retry {
    /// Bounds the wait between two attempts; without it that is a minute.
    pub fn delay_max(self, delay_max: Duration) -> Self {
        Self { delay_max, ..self }
    }

    /// What becomes of the record if it fails every time.
    pub fn then(self, policy: FailurePolicy) -> RetryPolicy {
        RetryPolicy { retry: self, last: policy }
    }

    fn delay(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts).and_then(|factor| self.delay.checked_mul(factor));
        doubled.unwrap_or(self.delay_max).min(self.delay_max)
    }
}

/// A policy that tries again first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    retry: Retry,
    last: FailurePolicy,
}

/// Any policy, as a topology holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    retry: Option<Retry>,
    last: FailurePolicy,
}

impl From<FailurePolicy> for Policy {
    fn from(last: FailurePolicy) -> Self {
        Self { retry: None, last }
    }
}

impl From<RetryPolicy> for Policy {
    fn from(policy: RetryPolicy) -> Self {
        Self { retry: Some(policy.retry), last: policy.last }
    }
}

/// What a policy says of one failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// Stop at the record.
    Fail,
    /// Pass it over.
    Skip,
    /// Send it to this topic and pass it over.
    DeadLetter(&'a str),
    /// Process it again after this time.
    RetryAfter(Duration),
}

impl Policy {
    /// What becomes of a record that has failed once more, after it was tried again so many times.
    pub fn verdict(&self, retried: u32) -> Verdict<'_> {
        match (&self.retry, &self.last.0) {
            (Some(retry), _) if retried < retry.times => Verdict::RetryAfter(retry.delay(retried)),
            (_, Last::Fail) => Verdict::Fail,
            (_, Last::Skip) => Verdict::Skip,
            (_, Last::DeadLetter(topic)) => Verdict::DeadLetter(topic),
        }
    }

    /// The topic of its dead letters.
    pub fn dead_letter_topic(&self) -> Option<&str> {
        match &self.last.0 {
            Last::DeadLetter(topic) => Some(topic),
            Last::Fail | Last::Skip => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_tried_again_with_growing_waits_and_then_meets_the_last_policy() {
        let retry = FailurePolicy::retry(4, Duration::from_secs(10)).delay_max(Duration::from_secs(30));
        let policy = Policy::from(retry.then(FailurePolicy::dead_letter("failed")));
        let verdicts: Vec<_> = (0..5).map(|retried| policy.verdict(retried)).collect();
        let after = |secs| Verdict::RetryAfter(Duration::from_secs(secs));
        assert_eq!(verdicts, [after(10), after(20), after(30), after(30), Verdict::DeadLetter("failed")]);
    }

    #[test]
    fn waits_do_not_overflow() {
        let policy = Policy::from(FailurePolicy::retry(u32::MAX, Duration::MAX).then(FailurePolicy::fail()));
        assert_eq!(policy.verdict(0), Verdict::RetryAfter(DELAY_MAX));
        assert_eq!(policy.verdict(1_000), Verdict::RetryAfter(DELAY_MAX));
    }

    #[test]
    fn policies_without_retry_decide_at_once() {
        assert_eq!(Policy::from(FailurePolicy::fail()).verdict(0), Verdict::Fail);
        assert_eq!(Policy::from(FailurePolicy::skip()).verdict(7), Verdict::Skip);
    }
}

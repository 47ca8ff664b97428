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
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::fail());
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let numbers = driver.input::<String, i64>("in");
    /// let bad = || numbers.try_pipe_bytes(Some(secs(1)), Some(b"a"), Some(b"?")); // no number
    /// assert!(bad().is_err());
    /// let good = numbers.try_pipe_at(secs(2), "a", 7);
    /// assert!(good.is_err(), "the task stands at the record before");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fail() -> Self {
        Self(Last::Fail)
    }

    /// The record is counted and passed over, and leaves nothing else (EO-9).
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::skip());
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let numbers = driver.input::<String, i64>("in");
    /// let bad = || numbers.try_pipe_bytes(Some(secs(1)), Some(b"a"), Some(b"?")); // no number
    /// bad()?;
    /// assert_eq!(driver.skipped().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn skip() -> Self {
        Self(Last::Skip)
    }

    /// The record goes to a topic as it came, with headers that say where it failed and why, in the transaction that
    /// passes it over; it leaves nothing else (EO-9).
    ///
    /// The topic must exist, and be no input of the topology. The command `dead-letters` lists, shows and replays what
    /// is in it.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::dead_letter("failed"));
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let driver = TopologyTestDriver::new(topology.build()?)?;
    /// let numbers = driver.input::<String, i64>("in");
    /// let bad = || numbers.try_pipe_bytes(Some(secs(1)), Some(b"a"), Some(b"?")); // no number
    /// bad()?;
    /// let letter = driver.dead_letters().remove(0);
    /// assert_eq!((&*letter.topic, letter.value.as_deref()), ("failed", Some(&b"?"[..])));
    /// assert_eq!((letter.header("processor-topic"), letter.header("processor-node")), (Some("in"), Some("in")));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn dead_letter(topic: impl Into<String>) -> Self {
        Self(Last::DeadLetter(topic.into()))
    }

    /// The record is processed again up to so many times, the first time after `delay`, and then each time after twice
    /// as long, a minute at the most. Later records of its task wait.
    ///
    /// Attempts are counted in memory: after a restart or a move they begin anew.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// # use processor_core::testing::{TopologyTestDriver, secs};
    /// # use std::time::Duration;
    /// # let mut topology = Topology::builder();
    /// topology.on_failure(FailurePolicy::retry(2, Duration::from_secs(1)).then(FailurePolicy::skip()));
    /// # topology.source("in", "in", (Utf8, JavaLong)).sink("out", "out", (Utf8, JavaLong));
    /// # let mut driver = TopologyTestDriver::new(topology.build()?)?;
    /// let numbers = driver.input::<String, i64>("in");
    /// let bad = || numbers.try_pipe_bytes(Some(secs(1)), Some(b"a"), Some(b"?")); // no number
    /// bad()?; // it waits
    /// driver.advance_wall_clock(Duration::from_secs(1))?; // it is tried again, and waits
    /// assert!(driver.skipped().is_empty());
    /// driver.advance_wall_clock(Duration::from_secs(2))?;
    /// assert_eq!(driver.skipped().len(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn retry(times: u32, delay: Duration) -> Retry {
        Retry { times, delay, delay_max: DELAY_MAX }
    }
}

/// Attempts after a failure; [`then`](Self::then) says what follows the last one.
///
/// ```
/// use std::time::Duration;
/// use processor_core::prelude::*;
/// use processor_core::protocol::failure::{Policy, Verdict};
///
/// let policy = FailurePolicy::retry(4, Duration::from_secs(10))
///     .delay_max(Duration::from_secs(30))
///     .then(FailurePolicy::dead_letter("failed"));
/// let policy = Policy::from(policy);
/// let waits = [10, 20, 30, 30].map(|secs| Verdict::RetryAfter(Duration::from_secs(secs)));
/// assert_eq!([0, 1, 2, 3].map(|retried| policy.verdict(retried)), waits);
/// assert_eq!(policy.verdict(4), Verdict::DeadLetter("failed"));
/// ```
///
/// By itself it is no policy:
///
/// ```compile_fail
/// # use processor_core::prelude::*;
/// # let mut topology = Topology::builder();
/// topology.on_failure(FailurePolicy::retry(3, std::time::Duration::from_secs(1))); // and then?
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "say with .then(policy) what becomes of a record that fails every time"]
pub struct Retry {
    times: u32,
    delay: Duration,
    delay_max: Duration,
}

impl Retry {
    /// Bounds the wait between two attempts; without it that is a minute.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::prelude::*;
    /// # use processor_core::protocol::failure::Verdict;
    /// let retry = FailurePolicy::retry(9, Duration::from_secs(10));
    /// let policy = Policy::from(retry.then(FailurePolicy::fail()));
    /// let retry = retry.delay_max(Duration::from_mins(10));
    /// let longer = Policy::from(retry.then(FailurePolicy::fail()));
    /// let after = |secs| Verdict::RetryAfter(Duration::from_secs(secs));
    /// // The sixth wait, doubled five times.
    /// assert_eq!((policy.verdict(5), longer.verdict(5)), (after(60), after(320)));
    /// ```
    pub fn delay_max(self, delay_max: Duration) -> Self {
        Self { delay_max, ..self }
    }

    /// What becomes of the record if it fails every time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::prelude::*;
    /// # use processor_core::protocol::failure::Verdict;
    /// let retry = FailurePolicy::retry(1, Duration::from_secs(1));
    /// let policy = Policy::from(retry.then(FailurePolicy::skip()));
    /// assert_eq!(policy.verdict(0), Verdict::RetryAfter(Duration::from_secs(1)));
    /// assert_eq!(policy.verdict(1), Verdict::Skip); // it was tried again once
    /// ```
    pub fn then(self, policy: FailurePolicy) -> RetryPolicy {
        RetryPolicy { retry: self, last: policy }
    }

    fn delay(&self, attempts: u32) -> Duration {
        let doubled = 1_u32.checked_shl(attempts).and_then(|factor| self.delay.checked_mul(factor));
        doubled.unwrap_or(self.delay_max).min(self.delay_max)
    }
}

/// A policy that tries again first.
///
/// ```
/// use std::time::Duration;
/// use processor_core::prelude::*;
/// use processor_core::protocol::failure::RetryPolicy;
///
/// /// For nodes that ask another service.
/// fn patient(dead_letters: &str) -> RetryPolicy {
///     let retry = FailurePolicy::retry(5, Duration::from_millis(200));
///     retry.then(FailurePolicy::dead_letter(dead_letters))
/// }
///
/// Topology::builder().on_failure(patient("failed"));
/// assert_eq!(Policy::from(patient("failed")).dead_letter_topic(), Some("failed"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    retry: Retry,
    last: FailurePolicy,
}

/// Any policy, as a topology holds it.
///
/// ```
/// use processor_core::prelude::*;
/// use processor_core::protocol::failure::Policy;
///
/// /// What the arguments say.
/// fn policy(dead_letters: Option<&str>) -> Policy {
///     match dead_letters {
///         Some(topic) => FailurePolicy::dead_letter(topic).into(),
///         None => FailurePolicy::fail().into(),
///     }
/// }
///
/// assert_eq!(policy(Some("failed")).dead_letter_topic(), Some("failed"));
/// Topology::builder().on_failure(policy(None));
/// ```
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
///
/// ```
/// # use std::time::Duration;
/// # use processor_core::prelude::*;
/// use processor_core::protocol::failure::Verdict;
///
/// fn text(verdict: Verdict<'_>) -> String {
///     match verdict {
///         Verdict::Fail => "stop".to_owned(),
///         Verdict::Skip => "pass over".to_owned(),
///         Verdict::DeadLetter(topic) => format!("to {topic}"),
///         Verdict::RetryAfter(delay) => format!("again in {delay:?}"),
///     }
/// }
///
/// let retry = FailurePolicy::retry(2, Duration::from_secs(1));
/// let policy = Policy::from(retry.then(FailurePolicy::dead_letter("failed")));
/// let texts = [0, 1, 2].map(|retried| text(policy.verdict(retried)));
/// assert_eq!(texts, ["again in 1s", "again in 2s", "to failed"]);
/// ```
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
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use processor_core::prelude::*;
    /// # use processor_core::protocol::failure::Verdict;
    /// assert_eq!(Policy::from(FailurePolicy::skip()).verdict(0), Verdict::Skip);
    /// let retry = FailurePolicy::retry(1, Duration::from_secs(1));
    /// let policy = Policy::from(retry.then(FailurePolicy::fail()));
    /// let (first, second) = (policy.verdict(0), policy.verdict(1));
    /// assert_eq!((first, second), (Verdict::RetryAfter(Duration::from_secs(1)), Verdict::Fail));
    /// ```
    pub fn verdict(&self, retried: u32) -> Verdict<'_> {
        match (&self.retry, &self.last.0) {
            (Some(retry), _) if retried < retry.times => Verdict::RetryAfter(retry.delay(retried)),
            (_, Last::Fail) => Verdict::Fail,
            (_, Last::Skip) => Verdict::Skip,
            (_, Last::DeadLetter(topic)) => Verdict::DeadLetter(topic),
        }
    }

    /// The topic of its dead letters; `None`: it sends none.
    ///
    /// ```
    /// # use processor_core::prelude::*;
    /// let policy = Policy::from(FailurePolicy::dead_letter("failed"));
    /// assert_eq!(policy.dead_letter_topic(), Some("failed"));
    /// assert_eq!(Policy::from(FailurePolicy::skip()).dead_letter_topic(), None);
    /// ```
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

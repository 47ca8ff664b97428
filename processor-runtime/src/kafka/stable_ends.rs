//! Where the input logs are stable: what librdkafka's statistics say of the ends of the partitions that are fetched.
//!
//! A reader that reads committed records stops at the last stable offset, which an open transaction of any producer holds
//! back. No call of librdkafka tells it; the statistics do, every few seconds.

use std::collections::BTreeMap;
use std::time::Instant;

use processor_core::ids::{Partition, TopicPartition};
use serde::Deserialize;

use crate::status::Unstable;

/// How often librdkafka tells.
pub(super) const TOLD_EVERY: (&str, &str) = ("statistics.interval.ms", "5000");
/// The state of a partition that is being fetched; the figures of others are old.
const FETCHED: &str = "active";

/// The stable ends of the partitions that are fetched.
#[derive(Debug, Default)]
pub(super) struct StableEnds(BTreeMap<TopicPartition, StableEnd>);

#[derive(Clone, Copy, Debug)]
struct StableEnd {
    stable: i64,
    end: i64,
    drained: bool,
    /// Since when it has been where it is.
    since: Instant,
}

/// The part of the statistics that is read.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: BTreeMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: BTreeMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    partition: i32,
    fetch_state: String,
    hi_offset: i64,
    ls_offset: i64,
    /// From where the next fetch reads; control records and aborted ones are behind it once they were met.
    next_offset: i64,
    /// Records that were fetched and not handed out.
    fetchq_cnt: i64,
}

impl StableEnds {
    /// Takes the statistics in, as of now.
    ///
    /// # Errors
    /// They are not what librdkafka 2.12 writes.
    pub(super) fn told(&mut self, statistics: &[u8], now: Instant) -> Result<(), serde_json::Error> {
        let statistics: Statistics = serde_json::from_slice(statistics)?;
        let mut ends = BTreeMap::new();
        for (topic, told) in statistics.topics {
            let is_fetched = |partition: &PartitionStatistics| {
                partition.fetch_state == FETCHED && partition.partition >= 0 && partition.ls_offset >= 0
            };
            for told in told.partitions.into_values().filter(is_fetched) {
                let partition = TopicPartition::new(topic.as_str(), Partition::new(told.partition));
                let (stable, end) = (told.ls_offset, told.hi_offset);
                let known = self.0.get(&partition).filter(|known| known.stable == stable && known.is_behind());
                let since = known.map_or(now, |known| known.since);
                let drained = told.next_offset >= end && told.fetchq_cnt == 0;
                ends.insert(partition, StableEnd { stable, end, drained, since });
            }
        }
        self.0 = ends;
        Ok(())
    }

    /// What is not stable of a partition; `None`: nothing was told of it.
    pub(super) fn unstable(&self, partition: &TopicPartition, now: Instant) -> Option<Unstable> {
        let known = self.0.get(partition)?;
        if !known.is_behind() {
            return Some(Unstable { drained: known.drained, ..Unstable::default() });
        }
        let records = u64::try_from(known.end - known.stable).unwrap_or(0);
        Some(Unstable { records, stands_for: now.saturating_duration_since(known.since), drained: false })
    }
}

impl StableEnd {
    fn is_behind(&self) -> bool {
        self.stable < self.end
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(state: &str, stable: i64, end: i64) -> String {
        told_with(state, stable, end, "\"next_offset\": 10, \"fetchq_cnt\": 0")
    }

    fn told_with(state: &str, stable: i64, end: i64, more: &str) -> String {
        format!(
            r#"{{"name": "app", "topics": {{"in": {{"topic": "in", "partitions": {{
                "0": {{"partition": 0, "fetch_state": "{state}", "hi_offset": {end}, "ls_offset": {stable}, {more}}},
                "-1": {{"partition": -1, "fetch_state": "none", "hi_offset": -1001, "ls_offset": -1001, "next_offset": -1001, "fetchq_cnt": 0}}
            }}}}}}}}"#
        )
    }

    #[test]
    fn a_stable_end_that_stands_below_the_end_is_timed() {
        let (mut ends, start) = (StableEnds::default(), Instant::now());
        let partition = TopicPartition::new("in", Partition::new(0));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut after = |seconds, state: &str, stable, end| {
            ends.told(told(state, stable, end).as_bytes(), at(seconds)).expect("librdkafka's form");
            ends.unstable(&partition, at(seconds)).map(|it| (it.records, it.stands_for.as_secs()))
        };
        assert_eq!(after(0, "active", 10, 10), Some((0, 0)));
        assert_eq!(after(5, "active", 10, 12), Some((2, 0)), "a transaction has begun behind it");
        assert_eq!(after(10, "active", 10, 20), Some((10, 5)));
        assert_eq!(after(15, "active", 19, 22), Some((3, 0)), "that one ended, another is open");
        assert_eq!(after(20, "active", 19, 22), Some((3, 5)));
        assert_eq!(after(25, "stopped", 19, 22), None, "nobody fetches it here any more");
        assert_eq!(after(90, "active", 19, 22), Some((3, 0)), "nobody watched it meanwhile");
        assert_eq!(after(95, "active", 22, 22), Some((0, 0)));
    }

    #[test]
    fn a_log_is_drained_when_all_of_it_was_read_and_handed_out() {
        let partition = TopicPartition::new("in", Partition::new(0));
        let drained = |stable, end, next: i64, queued: i64| {
            let (mut ends, more) =
                (StableEnds::default(), format!("\"next_offset\": {next}, \"fetchq_cnt\": {queued}"));
            ends.told(told_with("active", stable, end, &more).as_bytes(), Instant::now()).expect("librdkafka's form");
            ends.unstable(&partition, Instant::now()).is_some_and(|it| it.drained)
        };
        assert!(drained(10, 10, 10, 0));
        assert!(!drained(10, 10, 9, 0), "there is more to read");
        assert!(!drained(10, 10, 10, 1), "one was not handed out");
        assert!(!drained(9, 10, 10, 0), "one is held back");
    }

    #[test]
    fn other_words_than_statistics_are_an_error() {
        assert!(StableEnds::default().told(b"{\"topics\": 3}", Instant::now()).is_err());
    }
}

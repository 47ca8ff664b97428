//! What became of the records of the open transaction: the end offset under each tag, and the first failure.

use super::DeliveryTag;

/// A record that was not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DeliveryFailure {
    /// librdkafka's or Kafka's error code.
    pub(super) code: i32,
    /// Where and why, for people.
    pub(super) message: String,
}

/// The delivery reports since the transaction began.
#[derive(Debug, Default)]
pub(super) struct Deliveries {
    /// By tag: the offset behind the last record; negative where none was delivered.
    ends: Vec<i64>,
    first_failure: Option<DeliveryFailure>,
}

impl Deliveries {
    /// Forgets the transaction before; keeps the memory.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.first_failure = None;
    }

    /// A record under `tag` stands at `offset`.
    pub(super) fn delivered(&mut self, tag: DeliveryTag, offset: i64) {
        if tag == DeliveryTag::UNTRACKED {
            return;
        }
        if offset < 0 {
            // The broker said "duplicate" without the offset of the first copy: the end would not be exact.
            self.failed(0, || {
                "a repeated record was acknowledged without its offset; the transaction is repeated".to_owned()
            });
            return;
        }
        let slot = usize::from(tag.0);
        if slot >= self.ends.len() {
            self.ends.resize(slot + 1, -1);
        }
        self.ends[slot] = self.ends[slot].max(offset + 1);
    }

    /// A record was not written; only the first such is kept, since the others follow from it.
    pub(super) fn failed(&mut self, code: i32, message: impl FnOnce() -> String) {
        if self.first_failure.is_none() {
            self.first_failure = Some(DeliveryFailure { code, message: message() });
        }
    }

    /// The offset behind the last record under `tag`.
    pub(super) fn end(&self, tag: DeliveryTag) -> Option<i64> {
        self.ends.get(usize::from(tag.0)).copied().filter(|end| *end >= 0)
    }

    /// The first failure.
    pub(super) fn first_failure(&self) -> Option<&DeliveryFailure> {
        self.first_failure.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_the_highest_offset_plus_one_per_tag() {
        let mut deliveries = Deliveries::default();
        deliveries.delivered(DeliveryTag(2), 7);
        deliveries.delivered(DeliveryTag(2), 5);
        deliveries.delivered(DeliveryTag(0), 0);
        assert_eq!(deliveries.end(DeliveryTag(2)), Some(8));
        assert_eq!(deliveries.end(DeliveryTag(0)), Some(1));
        assert_eq!(deliveries.end(DeliveryTag(1)), None);
        deliveries.clear();
        assert_eq!(deliveries.end(DeliveryTag(2)), None);
    }

    #[test]
    fn untracked_records_take_no_space() {
        let mut deliveries = Deliveries::default();
        deliveries.delivered(DeliveryTag::UNTRACKED, 7);
        assert_eq!(deliveries.end(DeliveryTag::UNTRACKED), None);
        assert!(deliveries.ends.is_empty());
    }

    #[test]
    fn the_first_failure_is_kept() {
        let mut deliveries = Deliveries::default();
        deliveries.failed(10, || "first".to_owned());
        deliveries.failed(29, || "second".to_owned());
        assert_eq!(deliveries.first_failure().map(|failure| failure.code), Some(10));
    }

    #[test]
    fn a_tracked_record_without_an_offset_is_a_failure() {
        let mut deliveries = Deliveries::default();
        deliveries.delivered(DeliveryTag(1), -1001);
        assert!(deliveries.first_failure().is_some());
    }
}

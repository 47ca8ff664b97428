//! What became of the records of the open transaction: the end offset under each tag, and the first failure.

use rdkafka::bindings::rd_kafka_resp_err_t as E;

use super::{DeliveryTag, RecordNumber, RefusedRecord};

/// A record that an abort threw away before it was sent.
const PURGED: i32 = E::RD_KAFKA_RESP_ERR__PURGE_QUEUE as i32;

/// What a broker, or the client in its place, says of a record that it will never take.
const REFUSED_FOR_WHAT_IT_IS: [i32; 4] = [
    E::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE as i32,
    E::RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE as i32,
    E::RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP as i32,
    E::RD_KAFKA_RESP_ERR_INVALID_RECORD as i32,
];

/// What a record is sent with and comes back with: its tag and its number in one word.
pub(super) fn opaque(tag: DeliveryTag, number: RecordNumber) -> u64 {
    u64::from(tag.0) | u64::from(number.0) << u16::BITS
}

/// The reverse of [`opaque`].
pub(super) fn tag_and_number(opaque: u64) -> (DeliveryTag, RecordNumber) {
    (DeliveryTag(opaque as u16), RecordNumber((opaque >> u16::BITS) as u32))
}

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
    refused: Option<RefusedRecord>,
    has_gap: bool,
}

impl Deliveries {
    /// Forgets the transaction before; keeps the memory.
    pub(super) fn clear(&mut self) {
        self.ends.clear();
        self.first_failure = None;
        self.refused = None;
        self.has_gap = false;
    }

    /// A record under `tag` stands at `offset`. Without an offset it is not believed: the broker said "duplicate", which
    /// librdkafka takes for success, and a broker that has forgotten the producer says so of records it never wrote. (It
    /// forgets a producer by the timestamps of its records, `producer.id.expiration.ms`: after a restart at once, where they
    /// are a day old. Then it takes whatever sequence number comes first, and refuses the ones before it as repeated.)
    pub(super) fn delivered(&mut self, tag: DeliveryTag, offset: i64) {
        if offset < 0 {
            self.failed(0, RecordNumber::NONE, || {
                "a record was acknowledged as repeated, without its offset; the transaction is repeated".to_owned()
            });
            return;
        }
        if tag == DeliveryTag::UNTRACKED {
            return;
        }
        let slot = usize::from(tag.0);
        if slot >= self.ends.len() {
            self.ends.resize(slot + 1, -1);
        }
        self.ends[slot] = self.ends[slot].max(offset + 1);
    }

    /// A record was not written; only the first such is kept, since the others follow from it.
    pub(super) fn failed(&mut self, code: i32, number: RecordNumber, message: impl FnOnce() -> String) {
        self.has_gap |= code != PURGED;
        let is_refused = number != RecordNumber::NONE && REFUSED_FOR_WHAT_IT_IS.contains(&code);
        if is_refused && self.refused.is_none() {
            let reason = message();
            self.refused = Some(RefusedRecord { number, reason: reason.clone() });
            self.first_failure.get_or_insert(DeliveryFailure { code, message: reason });
        } else if self.first_failure.is_none() {
            self.first_failure = Some(DeliveryFailure { code, message: message() });
        }
    }

    /// The offset behind the last record under `tag`.
    pub(super) fn end(&self, tag: DeliveryTag) -> Option<i64> {
        self.ends.get(usize::from(tag.0)).copied().filter(|end| *end >= 0)
    }

    /// Whether a sequence number was used up by a record that the broker did not take. librdkafka 2.12.1 does not give it
    /// out again, so the next transaction of the same producer fails with `OUT_OF_ORDER_SEQUENCE_NUMBER`, once.
    pub(super) fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// The first numbered record that was refused for what it is. Others that failed with it may follow from it.
    pub(super) fn refused(&self) -> Option<&RefusedRecord> {
        self.refused.as_ref()
    }

    /// A record was refused before it was even sent.
    pub(super) fn refused_at_once(&mut self, code: i32, number: RecordNumber, reason: &str) {
        if number != RecordNumber::NONE && REFUSED_FOR_WHAT_IT_IS.contains(&code) && self.refused.is_none() {
            self.refused = Some(RefusedRecord { number, reason: reason.to_owned() });
        }
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
        deliveries.failed(10, RecordNumber::NONE, || "first".to_owned());
        deliveries.failed(29, RecordNumber::NONE, || "second".to_owned());
        assert_eq!(deliveries.first_failure().map(|failure| failure.code), Some(10));
    }

    #[test]
    fn a_record_that_was_refused_leaves_a_gap_and_one_that_was_never_sent_does_not() {
        let mut deliveries = Deliveries::default();
        deliveries.failed(PURGED, RecordNumber::NONE, || "thrown away".to_owned());
        assert!(!deliveries.has_gap());
        deliveries.failed(10, RecordNumber::NONE, || "too large".to_owned());
        assert!(deliveries.has_gap());
        deliveries.clear();
        assert!(!deliveries.has_gap());
    }

    #[test]
    fn a_record_that_was_refused_for_what_it_is_has_a_name() {
        let mut deliveries = Deliveries::default();
        let (tag, number) = tag_and_number(opaque(DeliveryTag::UNTRACKED, RecordNumber(70_000)));
        assert_eq!((tag, number), (DeliveryTag::UNTRACKED, RecordNumber(70_000)));
        deliveries.failed(29, RecordNumber(1), || "no right to write".to_owned());
        deliveries.failed(10, RecordNumber::NONE, || "a changelog record".to_owned());
        assert_eq!(deliveries.refused(), None);
        deliveries.failed(10, number, || "too large".to_owned());
        assert_eq!(deliveries.refused(), Some(&RefusedRecord { number, reason: "too large".to_owned() }));
        deliveries.clear();
        assert_eq!(deliveries.refused(), None);
    }

    #[test]
    fn a_record_without_an_offset_is_a_failure() {
        for tag in [DeliveryTag(1), DeliveryTag::UNTRACKED] {
            let mut deliveries = Deliveries::default();
            deliveries.delivered(tag, -1001);
            assert!(deliveries.first_failure().is_some(), "{tag:?}");
            assert!(deliveries.has_gap(), "the producer's sequence numbers are of no use any more");
        }
    }
}

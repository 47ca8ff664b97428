//! A dead letter, read from its record; and the mark that says that one was closed.

use std::fmt;
use std::str::FromStr;

use processor_core::ids::{Offset, Partition, Timestamp, TopicPartition};
use processor_core::task::dead_letter::{
    ERROR_HEADER as ERROR, KIND_HEADER as KIND, NODE_HEADER as NODE, OFFSET_HEADER as OFFSET,
    PARTITION_HEADER as PARTITION, TASK_HEADER as TASK, TIMESTAMP_HEADER as TIMESTAMP, TOPIC_HEADER as TOPIC,
};

use crate::kafka::Header;
use crate::kafka::records::StoredRecord;

/// The headers that a dead letter has beyond those of the record.
const OWN: [&str; 8] = [TOPIC, PARTITION, OFFSET, TIMESTAMP, TASK, NODE, KIND, ERROR];

/// How a letter was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Its record went back.
    Replayed,
    /// Nobody will replay it.
    Discarded,
}

impl Closed {
    const ALL: [Self; 2] = [Self::Replayed, Self::Discarded];

    /// The header of a mark that says so; its value is the offset of the letter in the same partition, in decimal.
    pub(super) fn header(self) -> &'static str {
        match self {
            Self::Replayed => "processor-replayed",
            Self::Discarded => "processor-discarded",
        }
    }

    /// In one word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// Where a dead letter stands in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LetterId {
    pub(super) partition: Partition,
    pub(super) offset: Offset,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for LetterId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once(':').and_then(|(partition, offset)| Some((number(partition)?, number(offset)?)));
        let (partition, offset) =
            numbers.ok_or("a letter is named <partition>:<offset>, such as 0:17, as `list` shows it")?;
        Ok(Self { partition: Partition::new(partition), offset: Offset::new(offset) })
    }
}

/// A number that is not negative.
fn number<N: FromStr + Default + PartialOrd>(text: &str) -> Option<N> {
    text.parse().ok().filter(|number| *number >= N::default())
}

/// What a record of a dead-letter topic is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A dead letter.
    Letter(Box<Letter>),
    /// The mark that the letter at this place was closed.
    Mark(LetterId, Closed),
    /// Nothing of ours.
    Other,
}

impl Kind {
    /// Looks at a record. Anybody may write to the topic: what does not read as ours is not. A letter comes first: its
    /// record may have had any headers, also those of a mark, and a mark has none of a letter's.
    pub(super) fn of(record: StoredRecord) -> Self {
        let record = match Letter::of(record) {
            Ok(letter) => return Self::Letter(Box::new(letter)),
            Err(record) => record,
        };
        for closed in Closed::ALL {
            if let Some(offset) = record.header(closed.header()) {
                let id = |offset| LetterId { partition: record.partition, offset: Offset::new(offset) };
                return number(offset).map_or(Self::Other, |offset| Self::Mark(id(offset), closed));
            }
        }
        Self::Other
    }
}

/// A dead letter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Letter {
    record: StoredRecord,
    /// The partition that its record came from,
    pub(super) origin: TopicPartition,
    /// at this offset.
    pub(super) offset: Offset,
    pub(super) task: String,
    pub(super) node: String,
    pub(super) kind: String,
    pub(super) error: String,
}

impl Letter {
    /// The record, if it is none.
    fn of(record: StoredRecord) -> Result<Self, StoredRecord> {
        let Some((origin, offset)) = origin(&record) else { return Err(record) };
        let text = |name: &str| record.header(name).unwrap_or_default().to_owned();
        let (task, node, kind, error) = (text(TASK), text(NODE), text(KIND), text(ERROR));
        Ok(Self { record, origin, offset, task, node, kind, error })
    }

    /// Its place.
    pub(super) fn id(&self) -> LetterId {
        LetterId { partition: self.record.partition, offset: self.record.offset }
    }

    /// The record's timestamp.
    pub(super) fn timestamp(&self) -> Option<Timestamp> {
        let original = self.record.header(TIMESTAMP).and_then(|text| text.parse().ok());
        original.map(Timestamp::new).or(self.record.timestamp)
    }

    /// The record's key.
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.record.key.as_deref()
    }

    /// The record's value.
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.record.value.as_deref()
    }

    /// The record's headers: without those that the dead letter has beyond them, which come last. A record that was a dead
    /// letter before keeps the headers of that.
    pub(super) fn headers(&self) -> Vec<Header> {
        let mut headers = self.record.headers.clone();
        for name in OWN {
            if let Some(last) = headers.iter().rposition(|(known, _)| known == name) {
                headers.remove(last);
            }
        }
        headers
    }
}

/// Where a letter's record came from, as its headers say.
fn origin(record: &StoredRecord) -> Option<(TopicPartition, Offset)> {
    let topic = record.header(TOPIC).filter(|topic| is_topic(topic))?;
    let partition = Partition::new(number(record.header(PARTITION)?)?);
    Some((TopicPartition::new(topic, partition), Offset::new(number(record.header(OFFSET)?)?)))
}

/// Kafka's rule for the names of topics: another one would never be answered for.
fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=249).contains(&name.len()) && name.chars().all(legal) && !matches!(name, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(headers: &[(&str, &str)]) -> StoredRecord {
        StoredRecord {
            partition: Partition::new(2),
            offset: Offset::new(17),
            timestamp: Some(Timestamp::new(5)),
            key: Some(b"k".to_vec()),
            value: None,
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), Some(value.as_bytes().to_vec())))
                .collect(),
        }
    }

    fn letter(headers: &[(&str, &str)]) -> Letter {
        match Kind::of(record(headers)) {
            Kind::Letter(letter) => *letter,
            other => panic!("{other:?} is no letter"),
        }
    }

    const OF_ORDERS: [(&str, &str); 5] =
        [("trace", "abc"), (TOPIC, "orders"), (PARTITION, "1"), (OFFSET, "99"), (TIMESTAMP, "1000")];

    #[test]
    fn a_letter_gives_back_the_record_as_it_was() {
        let letter = letter(&OF_ORDERS);
        assert_eq!((letter.origin.to_string().as_str(), letter.offset.get()), ("orders-1", 99));
        assert_eq!(letter.timestamp(), Some(Timestamp::new(1000)));
        assert_eq!(letter.headers(), [("trace".to_owned(), Some(b"abc".to_vec()))]);
        assert_eq!(letter.id().to_string(), "2:17");
    }

    #[test]
    fn a_record_that_was_a_dead_letter_before_keeps_those_headers() {
        let twice =
            [&OF_ORDERS[..], &[(TOPIC, "orders-failed"), (PARTITION, "0"), (OFFSET, "3"), (TIMESTAMP, "")]].concat();
        let letter = letter(&twice);
        assert_eq!(&*letter.origin.topic, "orders-failed");
        assert_eq!(letter.timestamp(), Some(Timestamp::new(5)), "it had none, so the letter's own counts");
        assert_eq!(letter.headers(), record(&OF_ORDERS).headers);
    }

    #[test]
    fn a_mark_names_a_letter_of_its_partition() {
        let id = LetterId { partition: Partition::new(2), offset: Offset::new(9) };
        assert_eq!(Kind::of(record(&[("processor-replayed", "9")])), Kind::Mark(id, Closed::Replayed));
        assert_eq!(Kind::of(record(&[("processor-discarded", "9")])), Kind::Mark(id, Closed::Discarded));
        assert_eq!("2:9".parse(), Ok(id));
    }

    #[test]
    fn a_letter_whose_record_had_the_headers_of_a_mark_closes_nothing() {
        let forged = [&[("processor-discarded", "9"), ("processor-replayed", "8")], &OF_ORDERS[1..]].concat();
        let letter = letter(&forged);
        assert_eq!(letter.headers(), record(&forged[..2]).headers, "and it goes back as it was");
    }

    #[test]
    fn what_does_not_read_as_ours_is_not() {
        let hostile: [&[(&str, &str)]; 6] = [
            &[],
            &[("processor-replayed", "-1")],
            &[("processor-discarded", "x")],
            &[(TOPIC, "orders"), (PARTITION, "-1"), (OFFSET, "1")],
            &[(TOPIC, "a/b"), (PARTITION, "1"), (OFFSET, "1")],
            &[(TOPIC, "orders"), (PARTITION, "1")],
        ];
        for headers in hostile {
            assert_eq!(Kind::of(record(headers)), Kind::Other, "{headers:?}");
        }
        for text in ["", "1", "1:", ":1", "-1:1", "1:-1", "1:2:3"] {
            assert!(text.parse::<LetterId>().is_err(), "{text}");
        }
    }
}

//! The inputs of the workloads: entries for the ledger, and for each example program what it reads.
//!
//! A seed decides every key and value; record `i` has the timestamp `base_timestamp + i`, so that no two records of a
//! partition share one, and goes to the partition that a Java producer would choose.

use anyhow::Result;
use processor_simulator::SplitMix64;

use super::paced::{Pace, PacedProducer};

/// Records share requests for so long.
const LINGER_MS: u64 = 5;

/// What to produce.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where to.
    pub topic: String,
    /// Decides keys and values.
    pub seed: u64,
    /// How many records.
    pub count: u64,
    /// How many different keys there can be.
    pub keys: u64,
    /// How many partitions the topic has.
    pub partitions: i32,
    /// Records a second; as fast as possible if absent.
    pub rate: Option<u64>,
    /// The first record's timestamp, at least 1: Kafka's clients take 0 for "now".
    pub base_timestamp: i64,
}

impl Workload {
    /// So many records over 100 keys, as fast as possible, with seed 1 and timestamps from 2023-11-14.
    pub fn new(topic: &str, count: u64, partitions: i32) -> Self {
        let (seed, keys, base_timestamp) = (1, 100, 1_700_000_000_000);
        Self { topic: topic.to_owned(), seed, count, keys, partitions, rate: None, base_timestamp }
    }
}

/// Produces temperatures: key `sensor-<n>`, value a Java double from 0 to 100.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_readings(bootstrap: &str, workload: &Workload) -> Result<()> {
    produce(bootstrap, workload, |random, _| {
        (format!("sensor-{}", random.below(workload.keys)), (random.unit() * 100.0).to_be_bytes().to_vec())
    })
}

/// Produces the readings of [`produce_readings`] as JSON, such as `{"value":21.5}`.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_json_readings(bootstrap: &str, workload: &Workload) -> Result<()> {
    produce(bootstrap, workload, |random, _| {
        let (sensor, value) = (random.below(workload.keys), random.unit() * 100.0);
        (format!("sensor-{sensor}"), format!(r#"{{"value":{value:?}}}"#).into_bytes())
    })
}

/// Produces values of so many bytes, which no compression makes much smaller: key `sensor-<n>`.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_values(bootstrap: &str, workload: &Workload, bytes: usize) -> Result<()> {
    produce(bootstrap, workload, |random, _| {
        let sensor = random.below(workload.keys);
        let mut value = Vec::with_capacity(bytes + 8);
        while value.len() < bytes {
            value.extend(random.below(u64::MAX).to_be_bytes());
        }
        value.truncate(bytes);
        (format!("sensor-{sensor}"), value)
    })
}

/// Produces account movements: key `account-<n>`, value a delta from -500 to 500 as a big-endian i64.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_ledger(bootstrap: &str, workload: &Workload) -> Result<()> {
    produce(bootstrap, workload, |random, _| {
        let account = format!("account-{}", random.below(workload.keys));
        (account, (random.below(1_001) as i64 - 500).to_be_bytes().to_vec())
    })
}

/// Produces lines: key `page-<n>`, value one to five words with spaces between, `word-<n>` without the dash.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_lines(bootstrap: &str, workload: &Workload) -> Result<()> {
    produce(bootstrap, workload, |random, _| {
        let page = format!("page-{}", random.below(workload.keys));
        let words = (0..=random.below(5)).map(|_| format!("word{}", random.below(workload.keys)));
        (page, words.collect::<Vec<_>>().join(" ").into_bytes())
    })
}

/// Produces transfers: key the paying account, value JSON with `to` and `amount`. Three of ten are paid by `bank`. Nobody
/// pays to accounts `poor-<n>`, so all that they would pay is refused. One in fifty is no JSON.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_transfers(bootstrap: &str, workload: &Workload) -> Result<()> {
    produce(bootstrap, workload, |random, _| {
        let account = |random: &mut SplitMix64| format!("account-{}", random.below(workload.keys));
        let from = match random.below(20) {
            0..6 => "bank".to_owned(),
            6 => format!("poor-{}", random.below(workload.keys)),
            _ => account(random),
        };
        let transfer = format!(r#"{{"to":"{}","amount":{}}}"#, account(random), 1 + random.below(300));
        let cut = if random.below(50) == 0 { transfer.len() / 2 } else { transfer.len() };
        (from, transfer[..cut].to_owned().into_bytes())
    })
}

/// How long after an order it may be repeated, in milliseconds.
const REPEATED_WITHIN_MS: u64 = 5_000;

/// Produces orders: key `order-<n>`, value `at <timestamp>`. Half of them repeat the id of an order of the last five
/// seconds, as a sender does that got no answer.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_orders(bootstrap: &str, workload: &Workload) -> Result<()> {
    produce(bootstrap, workload, |random, timestamp| {
        let age = if random.below(2) == 0 { 0 } else { 1 + random.below(REPEATED_WITHIN_MS) };
        (format!("order-{}", timestamp - age as i64), format!("at {timestamp}").into_bytes())
    })
}

/// The partition that Kafka's Java producer chooses for a key.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has a partition");
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

/// Key and value of each record come from the generator and the record's timestamp.
fn produce(
    bootstrap: &str,
    workload: &Workload,
    record: impl Fn(&mut SplitMix64, i64) -> (String, Vec<u8>),
) -> Result<()> {
    let pace = Pace { rate: workload.rate, linger_ms: LINGER_MS };
    let mut producer = PacedProducer::new(bootstrap, &workload.topic, workload.partitions, pace)?;
    let mut random = SplitMix64::new(workload.seed);
    for index in 0..workload.count {
        let timestamp = workload.base_timestamp + index as i64;
        let (key, value) = record(&mut random, timestamp);
        producer.send(&key, &value, timestamp)?;
    }
    producer.finish()
}

/// As in `org.apache.kafka.common.utils.Utils`.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::{murmur2, partition_of};

    /// The values of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn partitions_are_in_range_and_all_used() {
        let used: std::collections::BTreeSet<i32> =
            (0..100).map(|n| partition_of(format!("account-{n}").as_bytes(), 4)).collect();
        assert_eq!(used.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }
}

//! The inputs of the two workloads: readings for the moving average, entries for the ledger.
//!
//! A seed decides every key and value; record `i` has the timestamp `base_timestamp + i`, so that no two records of a
//! partition share one, and goes to the partition that a Java producer would choose.

use anyhow::Result;

use super::paced::{Pace, PacedProducer};
use super::random::SplitMix64;

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
    produce(bootstrap, workload, "sensor", |random| (random.unit() * 100.0).to_be_bytes())
}

/// Produces account movements: key `account-<n>`, value a delta from -500 to 500 as a big-endian i64.
///
/// # Errors
/// A record could not be delivered within five minutes.
pub fn produce_ledger(bootstrap: &str, workload: &Workload) -> Result<()> {
    produce(bootstrap, workload, "account", |random| (random.below(1_001) as i64 - 500).to_be_bytes())
}

/// The partition that Kafka's Java producer chooses for a key.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has a partition");
    (murmur2(key) & 0x7fff_ffff) as i32 % partitions
}

fn produce(bootstrap: &str, workload: &Workload, kind: &str, value: fn(&mut SplitMix64) -> [u8; 8]) -> Result<()> {
    let pace = Pace { rate: workload.rate, linger_ms: LINGER_MS };
    let mut producer = PacedProducer::new(bootstrap, &workload.topic, workload.partitions, pace)?;
    let mut random = SplitMix64::new(workload.seed);
    for index in 0..workload.count {
        let key = format!("{kind}-{}", random.below(workload.keys));
        producer.send(&key, &value(&mut random), workload.base_timestamp + index as i64)?;
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

//! Which partition a key belongs to: what Kafka's Java clients choose, so that producers in both languages agree.

use crate::ids::Partition;

/// The partition of a key among so many: the positive part of [`murmur2`] modulo their number.
///
/// ```
/// use processor_core::ids::Partition;
/// use processor_core::partition::of_key;
///
/// assert_eq!(of_key(b"foobar", 50), Partition::new(16));
/// ```
///
/// # Panics
/// If there are no partitions.
pub fn of_key(key: &[u8], partitions: u32) -> Partition {
    assert!(partitions > 0, "a topic has at least one partition");
    let positive = murmur2(key) & 0x7fff_ffff;
    Partition::new((positive % partitions) as i32)
}

/// The 32-bit `MurmurHash2` with the seed that Kafka's `DefaultPartitioner` uses.
///
/// ```
/// use processor_core::partition::murmur2;
///
/// // What Kafka's `Utils.murmur2` gives, as an unsigned number.
/// assert_eq!(murmur2(b"21"), (-973_932_308_i32).cast_unsigned());
/// ```
pub fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ bytes.len() as u32;
    let (words, tail) = bytes.as_chunks::<4>();
    for word in words {
        let word = u32::from_le_bytes(*word).wrapping_mul(M);
        let word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    if !tail.is_empty() {
        let folded = tail.iter().rev().fold(0_u32, |folded, byte| (folded << 8) | u32::from(*byte));
        hash = (hash ^ folded).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that Apache Kafka's own tests expect of its `Utils.murmur2`, as Java's signed integers.
    #[test]
    fn keys_hash_as_kafkas_java_clients_hash_them() {
        let expected = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in expected {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}

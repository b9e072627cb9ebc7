//! Which partition holds a key. Pure.

/// The partition of `key` among `partitions`, as Kafka's own clients choose it (murmur2 of the key, sign bit
/// cleared, modulo the count). `partitions` below 1 counts as 1.
pub fn partition_of(key: &[u8], partitions: i32) -> i32 {
    let hash = i32::from_ne_bytes((murmur2(key) & 0x7fff_ffff).to_ne_bytes());
    hash % partitions.max(1)
}

/// Murmur 2 with Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    // Kafka hashes the length as a 32-bit integer; keys are far below its range
    #[allow(clippy::cast_possible_truncation)]
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (at, byte) in rest.iter().enumerate() {
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
    use super::*;

    /// The vectors of `org.apache.kafka.common.utils.UtilsTest.testMurmur2`.
    #[test]
    fn the_hash_agrees_with_kafkas_own_vectors() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in vectors {
            assert_eq!(murmur2(text.as_bytes()), u32::from_ne_bytes(hash.to_ne_bytes()), "{text}");
        }
    }

    #[test]
    fn a_partition_is_always_one_of_the_topics() {
        for key in ["", "a", "sites/berlin/telemetry/meter-7/power", "工場/温度"] {
            for partitions in [1, 3, 12, 300] {
                assert!((0..partitions).contains(&partition_of(key.as_bytes(), partitions)));
            }
            assert_eq!(partition_of(key.as_bytes(), 0), 0);
        }
    }
}

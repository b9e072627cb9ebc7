//! What a numbered message carries: run, publisher, sequence and time of the first send, readable with any client,
//! with a checksum over all of it. Pure.

use std::fmt;
use std::str::FromStr;

/// The smallest payload that holds every possible stamp, in bytes.
pub const MIN_BYTES: usize = 48;

/// Names one run of the load, so that several may share a topic: six characters of `0-9a-z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId([u8; 6]);

impl RunId {
    /// A run id made from a clock reading: different readings give different ids for 36^6 microseconds × 60.
    pub fn from_clock(wall_us: u64) -> Self {
        let mut rest = wall_us / 60;
        let mut text = [b'0'; 6];
        for place in text.iter_mut().rev() {
            *place = DIGITS[usize::try_from(rest % 36).unwrap_or(0)];
            rest /= 36;
        }
        Self(text)
    }

    /// The six characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("??????")
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RunId {
    type Err = PayloadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes: [u8; 6] = text.as_bytes().try_into().map_err(|_| PayloadError::Run)?;
        let known = bytes.iter().all(|byte| DIGITS.contains(byte));
        if known { Ok(Self(bytes)) } else { Err(PayloadError::Run) }
    }
}

/// The numbers in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The run.
    pub run: RunId,
    /// The publisher within the run, from 0.
    pub publisher: u16,
    /// The message of that publisher, from 0 without gaps.
    pub sequence: u32,
    /// The wall clock at the first send, in microseconds since 1970.
    pub sent_us: u64,
}

/// Why bytes are no payload of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not written by the ledger at all.
    #[error("not a ledger payload")]
    Foreign,
    /// Written by the ledger and changed on the way.
    #[error("a ledger payload whose checksum does not match")]
    Altered,
    /// A text that names no run.
    #[error("a run id is six characters of 0-9 and a-z")]
    Run,
}

/// How many bytes each payload has: the same for all, or spread evenly over a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadSize {
    min: usize,
    max: usize,
}

impl PayloadSize {
    /// Always `bytes`.
    pub const fn fixed(bytes: usize) -> Self {
        Self { min: bytes, max: bytes }
    }

    /// The size of one message: the same each time it is asked for.
    pub fn of(self, publisher: u16, sequence: u32) -> usize {
        let span = (self.max - self.min + 1) as u64;
        let mut seed = (u64::from(publisher) << 32) | u64::from(sequence);
        seed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        seed ^= seed >> 29;
        self.min + usize::try_from((seed >> 16) % span).unwrap_or(0)
    }
}

impl fmt::Display for PayloadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{}..{}", self.min, self.max) }
    }
}

impl FromStr for PayloadSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let number =
            |part: &str| part.parse::<usize>().map_err(|_| format!("{part:?} is no number of bytes"));
        let (min, max) = (number(min)?, number(max)?);
        if min > max || min < MIN_BYTES {
            return Err(format!("write BYTES or MIN..MAX with at least {MIN_BYTES} bytes"));
        }
        Ok(Self { min, max })
    }
}

const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Builds the payload of `bytes` bytes (or as many as the stamp needs, if that is more).
pub fn encode(stamp: &Stamp, bytes: usize) -> Vec<u8> {
    let head = format!("{}.{}.{}.{}.", stamp.run, stamp.publisher, stamp.sequence, base36(stamp.sent_us));
    let mut payload = Vec::with_capacity(bytes.max(MIN_BYTES));
    payload.extend_from_slice(head.as_bytes());
    payload.extend_from_slice(b"0000000");
    let checksum = payload.len() - 7..payload.len();
    if payload.len() < bytes {
        payload.push(b'.');
        payload.extend(DIGITS.iter().cycle().take(bytes.saturating_sub(payload.len())));
    }
    let sum = base36(u64::from(fnv(&payload)));
    let sum = format!("{sum:0>7}");
    payload[checksum].copy_from_slice(sum.as_bytes());
    payload
}

/// Reads a payload back and checks every byte of it.
pub fn decode(payload: &[u8]) -> Result<Stamp, PayloadError> {
    let mut fields = payload.splitn(6, |byte| *byte == b'.');
    let mut field =
        || fields.next().and_then(|field| std::str::from_utf8(field).ok()).ok_or(PayloadError::Foreign);
    let run = field()?.parse().map_err(|_| PayloadError::Foreign)?;
    let publisher = field()?.parse().map_err(|_| PayloadError::Foreign)?;
    let sequence = field()?.parse().map_err(|_| PayloadError::Foreign)?;
    let sent = field()?;
    let sent_us = u64::from_str_radix(sent, 36).map_err(|_| PayloadError::Foreign)?;
    let sum = field()?;
    let stamp = Stamp { run, publisher, sequence, sent_us };
    let start = sum.as_ptr() as usize - payload.as_ptr() as usize;
    if sum.len() != 7 {
        return Err(PayloadError::Altered);
    }
    let mut hash = fnv_more(FNV_START, &payload[..start]);
    hash = fnv_more(hash, b"0000000");
    hash = fnv_more(hash, &payload[start + 7..]);
    if u64::from_str_radix(sum, 36) == Ok(u64::from(hash)) { Ok(stamp) } else { Err(PayloadError::Altered) }
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::with_capacity(13);
    loop {
        digits.push(DIGITS[usize::try_from(number % 36).unwrap_or(0)]);
        number /= 36;
        if number == 0 {
            break;
        }
    }
    digits.iter().rev().map(|digit| char::from(*digit)).collect()
}

const FNV_START: u32 = 0x811c_9dc5;

fn fnv(bytes: &[u8]) -> u32 {
    fnv_more(FNV_START, bytes)
}

/// FNV-1a: finds accidents; nobody forges a ledger payload.
fn fnv_more(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp { run: "ab12cd".parse().unwrap(), publisher: 7, sequence: 1234, sent_us: 1_795_400_000_123_456 }
    }

    #[test]
    fn a_payload_reads_back_and_has_the_size_that_was_asked_for() {
        for size in [MIN_BYTES, 49, 100, 1000, 100_000] {
            let payload = encode(&stamp(), size);
            assert_eq!(payload.len(), size);
            assert_eq!(decode(&payload), Ok(stamp()));
        }
    }

    #[test]
    fn the_largest_stamp_fits_the_smallest_payload() {
        let stamp = Stamp { publisher: u16::MAX, sequence: u32::MAX, ..stamp() };
        assert_eq!(encode(&stamp, MIN_BYTES).len(), MIN_BYTES);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = encode(&stamp(), 80);
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 1;
            assert_ne!(decode(&bad), Ok(stamp()), "byte {place}");
        }
        assert!(decode(&good[..79]).is_err());
    }

    #[test]
    fn a_strangers_payload_is_foreign() {
        for payload in [&b""[..], b"21.5", b"{\"a\":1}", b"......", &[0xff; 60]] {
            assert_eq!(decode(payload), Err(PayloadError::Foreign));
        }
    }

    #[test]
    fn sizes_of_a_range_stay_inside_it_and_differ() {
        let size: PayloadSize = "100..1000".parse().unwrap();
        let sizes: Vec<_> = (0..1000).map(|sequence| size.of(1, sequence)).collect();
        assert!(sizes.iter().all(|size| (100..=1000).contains(size)));
        assert!(sizes.iter().any(|size| *size < 200) && sizes.iter().any(|size| *size > 900));
        assert_eq!(size.of(1, 5), size.of(1, 5));
        assert!("10".parse::<PayloadSize>().is_err() && "200..100".parse::<PayloadSize>().is_err());
    }

    #[test]
    fn run_ids_differ_when_made_a_millisecond_apart() {
        assert_ne!(RunId::from_clock(1_795_400_000_000_000), RunId::from_clock(1_795_400_000_001_000));
        assert!("AB12CD".parse::<RunId>().is_err() && "abc".parse::<RunId>().is_err());
    }
}

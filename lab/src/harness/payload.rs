//! Message bodies: realistic JSON of the asked size, different from each other, cheap to write, and checkable byte for byte
//! when they come back.

use std::fmt::Write;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rand::distr::{Alphanumeric, SampleString};
use rand::{Rng, SeedableRng, rngs::StdRng};

/// The smallest body that can be written.
pub const SIZE_BYTES_MIN: u64 = 160;
/// The variable part: `{"id":"qqqqqqqq-pppppppp-ssssssss","sent_us":"tttttttttttttttt",`.
const HEADER_BYTES: usize = 64;
/// What ends a body, after the signature that fills it up.
const CLOSING: &str = r#""}"#;

/// Which message of the run this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageId {
    /// Index of the queue it was sent to.
    pub queue: u32,
    /// Index of its producer.
    pub producer: u32,
    /// Counted from 0 by its producer.
    pub sequence: u32,
}

/// Writes and checks bodies.
#[derive(Debug)]
pub struct Payloads {
    size_bytes: usize,
    /// Everything after the header, drawn once so that the generator costs the run little.
    tails: Vec<String>,
}

impl Payloads {
    /// Bodies of exactly `size_bytes`, at least [`SIZE_BYTES_MIN`].
    pub fn new(size_bytes: usize, seed: u64) -> Self {
        // Many enough that messages of one commit differ; fewer where drawing them is not optimised, and nothing is measured.
        const POOL_BYTES: usize = if cfg!(debug_assertions) { 1 << 17 } else { 8 << 20 };
        let mut rng = StdRng::seed_from_u64(seed);
        let count = (POOL_BYTES / size_bytes).clamp(16, 8_192);
        let tail_bytes = size_bytes - HEADER_BYTES;
        Self { size_bytes, tails: (0..count).map(|_| order(tail_bytes, &mut rng)).collect() }
    }

    /// Bytes of every body.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// `count` bodies from `first` on, in one allocation. `sent`, when they should be sent, counts
    /// from the start of the run.
    pub fn batch(&self, first: MessageId, count: u32, sent: Duration) -> Vec<Bytes> {
        let mut buffer = BytesMut::with_capacity(self.size_bytes * count as usize);
        (0..count)
            .map(|index| {
                let id = MessageId { sequence: first.sequence + index, ..first };
                write_header(&mut buffer, id, sent);
                buffer.extend_from_slice(self.tail(id).as_bytes());
                buffer.split().freeze()
            })
            .collect()
    }

    /// Reads the id and the time of a body; `None` unless it is byte for byte what [`Payloads::batch`] wrote.
    pub fn read(&self, body: &[u8]) -> Option<(MessageId, Duration)> {
        let (header, tail) = body.split_at_checked(HEADER_BYTES)?;
        let [open, queue, dash, producer, dash_again, sequence, middle, sent, close] =
            split(header, [7, 8, 1, 8, 1, 8, 13, 16, 2])?;
        let frame = [open, dash, dash_again, middle, close];
        let number = |digits| u32::try_from(from_hex(digits)?).ok();
        let id = MessageId { queue: number(queue)?, producer: number(producer)?, sequence: number(sequence)? };
        let sent = Duration::from_micros(from_hex(sent)?);
        (frame == FRAME.map(str::as_bytes) && tail == self.tail(id).as_bytes()).then_some((id, sent))
    }

    /// Reads the id and the time of a body that came back as other text for the same JSON, as `jsonb` does; the rest of it is
    /// not checked.
    pub fn read_normalized(&self, body: &[u8]) -> Option<(MessageId, Duration)> {
        let text = std::str::from_utf8(body).ok()?;
        let value = |key: &str| text.split_once(key)?.1.split('"').next();
        let mut numbers = value(r#""id": ""#)?.split('-').map(|number| u32::from_str_radix(number, 16));
        let mut number = || numbers.next()?.ok();
        let id = MessageId { queue: number()?, producer: number()?, sequence: number()? };
        let sent = u64::from_str_radix(value(r#""sent_us": ""#)?, 16).ok()?;
        Some((id, Duration::from_micros(sent)))
    }

    fn tail(&self, id: MessageId) -> &str {
        // Producers start far apart, so that messages stored together seldom share a tail.
        let index = (id.producer as usize).wrapping_mul(2_654_435_761).wrapping_add(id.sequence as usize);
        &self.tails[index % self.tails.len()]
    }
}

/// What stands between the numbers of a header.
const FRAME: [&str; 5] = [r#"{"id":""#, "-", "-", r#"","sent_us":""#, r#"","#];

/// Parts of these lengths, one after the other.
fn split<const N: usize>(mut bytes: &[u8], lengths: [usize; N]) -> Option<[&[u8]; N]> {
    let mut parts = [&bytes[..0]; N];
    for (part, length) in parts.iter_mut().zip(lengths) {
        (*part, bytes) = bytes.split_at_checked(length)?;
    }
    Some(parts)
}

/// A number of lower-case hexadecimal digits.
fn from_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number: u64, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(value))
    })
}

fn write_header(buffer: &mut BytesMut, id: MessageId, sent: Duration) {
    let MessageId { queue, producer, sequence } = id;
    let micros = u64::try_from(sent.as_micros()).unwrap_or(u64::MAX);
    // Writing to memory cannot fail.
    let _ = write!(buffer, r#"{{"id":"{queue:08x}-{producer:08x}-{sequence:08x}","sent_us":"{micros:016x}","#);
}

/// The rest of an order of exactly `length` bytes: about half of it items, then a random signature.
fn order(length: usize, rng: &mut StdRng) -> String {
    let mut text = format!(r#""customer":"{}","items":["#, Alphanumeric.sample_string(rng, 20));
    loop {
        let item = item(rng);
        let separator = if text.ends_with('[') { "" } else { "," };
        if text.len() + separator.len() + item.len() > length / 2 {
            break;
        }
        text.push_str(separator);
        text.push_str(&item);
    }
    text.push_str(r#"],"signature":""#);
    let signature_bytes = length.saturating_sub(text.len() + CLOSING.len());
    text.push_str(&Alphanumeric.sample_string(rng, signature_bytes));
    text.push_str(CLOSING);
    text
}

fn item(rng: &mut StdRng) -> String {
    const TITLES: [&str; 8] = [
        "steel bolt M8",
        "oak shelf",
        "desk lamp",
        "copper wire",
        "paint, white",
        "door hinge",
        "cable 5 m",
        "drill bit",
    ];
    format!(
        r#"{{"sku":"{}","title":"{}","quantity":{},"price":{}.{:02},"in_stock":{}}}"#,
        Alphanumeric.sample_string(rng, 12),
        TITLES[rng.random_range(0..TITLES.len())],
        rng.random_range(1..100),
        rng.random_range(1..2_000),
        rng.random_range(0..100),
        rng.random_bool(0.8),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: MessageId = MessageId { queue: 3, producer: 31, sequence: 4_000_000_000 };
    const SENT: Duration = Duration::from_micros(12_345_678);

    #[test]
    fn bodies_are_json_of_the_asked_size() {
        for size in [SIZE_BYTES_MIN as usize, 161, 200, 1_024, 65_536] {
            let bodies = Payloads::new(size, 7).batch(FIRST, 2, SENT);
            for body in &bodies {
                assert_eq!(body.len(), size);
                let json: serde_json::Value = serde_json::from_slice(body).unwrap();
                assert!(json["items"].is_array(), "{json}");
            }
            assert_ne!(bodies[0], bodies[1]);
        }
    }

    #[test]
    fn bodies_come_back_with_id_and_time() {
        let payloads = Payloads::new(300, 7);
        for (index, body) in payloads.batch(FIRST, 10, SENT).iter().enumerate() {
            let id = MessageId { sequence: FIRST.sequence + index as u32, ..FIRST };
            assert_eq!(payloads.read(body), Some((id, SENT)));
        }
    }

    #[test]
    fn rewritten_json_is_read_too() {
        let payloads = Payloads::new(300, 7);
        let body =
            r#"{"id": "00000003-0000001f-ee6b2800", "items": [], "sent_us": "0000000000bc614e", "customer": "x"}"#;
        assert_eq!(payloads.read_normalized(body.as_bytes()), Some((FIRST, SENT)));
        assert_eq!(payloads.read_normalized(br#"{"id": "3-1f"}"#), None);
    }

    #[test]
    fn a_changed_byte_anywhere_is_noticed() {
        let payloads = Payloads::new(SIZE_BYTES_MIN as usize, 7);
        let body = payloads.batch(FIRST, 1, SENT).remove(0);
        for at in 0..body.len() {
            let mut changed = body.to_vec();
            changed[at] ^= 0x80;
            assert_eq!(payloads.read(&changed), None, "byte {at}");
        }
        assert_eq!(payloads.read(&body[..body.len() - 1]), None);
        assert_eq!(payloads.read(b"{}"), None);
    }
}

//! The handler: the opaque token of one delivery of one message.
//!
//! It names the subscription, the lease (random, so a handler of an older delivery never fits), the message, and how many
//! messages the lease had, which lets a full batch be settled in one statement. A checksum refuses tokens that were mangled
//! on the way; it is no secret. What a token says is compared with the row of the lease, so one that was made up is good for
//! nothing that the caller was not given: it would have to know the lease id, which has 74 random bits, and an offset that is in it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use super::checksum::checksum;
use super::ids::{LeaseId, StreamId, SubscriptionId, SubscriptionKey};

const VERSION: u8 = 1;
const CONTENT_LEN: usize = 1 + 8 + 8 + 16 + 8 + 1;
const LEN: usize = CONTENT_LEN + 4;

/// A parsed handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handler {
    /// The subscription and the stream the message was delivered from.
    pub key: SubscriptionKey,
    /// The delivery.
    pub lease: LeaseId,
    /// The message.
    pub offset: i64,
    /// Messages in the lease when it was granted.
    pub batch_len: u8,
}

impl Handler {
    /// As the caller gets it: 62 characters.
    pub fn format(&self) -> String {
        let mut bytes = Vec::with_capacity(LEN);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.key.stream.0.to_be_bytes());
        bytes.extend_from_slice(&self.key.subscription.0.to_be_bytes());
        bytes.extend_from_slice(self.lease.0.as_bytes());
        bytes.extend_from_slice(&self.offset.to_be_bytes());
        bytes.push(self.batch_len);
        bytes.extend_from_slice(&checksum(&[&bytes]));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// `None` when it is not one of ours.
    pub fn parse(token: &str) -> Option<Self> {
        let mut bytes = [0u8; LEN + 2];
        let len = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok()?;
        let bytes: &[u8; LEN] = bytes.get(..len)?.try_into().ok()?;
        let number = |at: usize| bytes[at..at + 8].try_into().map(i64::from_be_bytes).ok();
        let (content, sum) = bytes.split_at(CONTENT_LEN);
        (bytes[0] == VERSION && checksum(&[content]) == sum).then_some(())?;
        Some(Self {
            key: SubscriptionKey { stream: StreamId(number(1)?), subscription: SubscriptionId(number(9)?) },
            lease: LeaseId(Uuid::from_slice(&bytes[17..33]).ok()?),
            offset: number(33)?,
            batch_len: bytes[41],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handler() -> Handler {
        Handler {
            key: SubscriptionKey { stream: StreamId(7), subscription: SubscriptionId(i64::MAX) },
            lease: LeaseId(Uuid::from_u128(0x1234)),
            offset: 99,
            batch_len: 10,
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let token = handler().format();
        assert_eq!(token.len(), 62);
        assert_eq!(Handler::parse(&token), Some(handler()));
    }

    #[test]
    fn refuses_a_token_with_any_character_changed() {
        let token = handler().format();
        for index in 0..token.len() {
            for other in ["A", "B", "z", "-"] {
                let mut mangled = token.clone();
                mangled.replace_range(index..=index, other);
                assert!(mangled == token || Handler::parse(&mangled).is_none(), "{index} {other}");
            }
        }
    }

    #[test]
    fn refuses_everything_else() {
        let token = handler().format();
        let long = "A".repeat(100_000);
        for bad in ["", "x", "eyJjZyI6", &token[1..], &format!("{token}A"), &token.replace('A', "!"), &long] {
            assert_eq!(Handler::parse(bad), None, "{bad:.60}");
        }
    }
}

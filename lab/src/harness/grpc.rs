//! The parts of gRPC requests that every client of the lab builds.

use std::time::Duration;

use bytes::Bytes;
use dms_client::v1::{ConsumeOptions, NewMessage};

/// The messages of a send.
pub fn messages(bodies: Vec<Bytes>, delay: Duration) -> Vec<NewMessage> {
    let delay = (!delay.is_zero()).then(|| duration(delay));
    bodies.into_iter().map(|body| NewMessage { body, delay, ..NewMessage::default() }).collect()
}

/// The options of a consume.
pub fn consume_options(max: u32, wait: Duration, lease: Duration) -> ConsumeOptions {
    ConsumeOptions { max_messages: Some(max.cast_signed()), wait: Some(duration(wait)), lease: Some(duration(lease)) }
}

fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs().cast_signed(), nanos: duration.subsec_nanos().cast_signed() }
}

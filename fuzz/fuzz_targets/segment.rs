//! Payloads of segments as they come from the table, and the records in them.

#![no_main]

use bytes::{Bytes, BytesMut};
use dms::store::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(messages) = codec::decode(codec::CODEC_PLAIN, Bytes::copy_from_slice(input)) else { return };
    let mut again = BytesMut::new();
    messages.iter().for_each(|message| codec::encode(message, &mut again));
    let read = codec::decode(codec::CODEC_PLAIN, again.freeze()).expect("what was written can be read");
    assert_eq!(read, messages);
});

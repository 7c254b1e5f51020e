//! Payloads of segments as they come from the table, and the records in them.

#![no_main]

use bytes::{Bytes, BytesMut};
use dms::store::log::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let read = |bytes| codec::decode(codec::CODEC_PLAIN, bytes).into_iter().collect::<Result<Vec<_>, _>>();
    let Ok(messages) = read(Bytes::copy_from_slice(input)) else { return };
    let mut again = BytesMut::new();
    messages.iter().for_each(|message| codec::encode(message, &mut again));
    assert_eq!(read(again.freeze()).expect("what was written can be read"), messages);
});

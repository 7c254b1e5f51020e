//! Handlers that callers give back: any text, and one that differs from ours in a few bytes.

#![no_main]

use dms::domain::handler::Handler;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Some(handler) = Handler::parse(text) {
        assert_eq!(handler.format(), text, "a handler has one form");
    }
});

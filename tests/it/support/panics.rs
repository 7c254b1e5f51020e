//! Panics of the service, which runs in the process of the tests: a task's panic fails no test by itself.

use std::panic;
use std::sync::{Mutex, Once, PoisonError};

static WATCHING: Once = Once::new();
static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Begins to note every panic that is not one of a test.
pub(crate) fn watch() {
    WATCHING.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let of_a_test = info.location().is_some_and(|place| place.file().starts_with("tests/"));
            if !of_a_test {
                SEEN.lock().unwrap_or_else(PoisonError::into_inner).push(info.to_string());
            }
            before(info);
        }));
    });
}

/// Fails when something has panicked since the watch began.
#[track_caller]
pub(crate) fn none_seen() {
    let seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.is_empty(), "{seen:#?}");
}

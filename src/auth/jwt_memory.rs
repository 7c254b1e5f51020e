//! Tokens that were found good: a client shows the same one with every call, and checking its signature costs more than a send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ring::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

use super::principal::Principal;

/// Tokens remembered; when there are more, all are forgotten and checked again.
const TOKENS_MAX: usize = 10_000;

type Mark = [u8; SHA256_OUTPUT_LEN];

/// Owners of good tokens, by the digest of the whole token, and until when (seconds since 1970).
#[derive(Debug, Default)]
pub(super) struct Memory(Mutex<HashMap<Mark, (Arc<Principal>, u64)>>);

impl Memory {
    /// Who has this token, if it was found good and still is.
    pub(super) fn owner(&self, token: &str, now: u64) -> Option<Arc<Principal>> {
        let mark = mark(token)?;
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&mark).filter(|(_, until)| now <= *until).map(|(owner, _)| Arc::clone(owner))
    }

    /// Remembers a good token.
    pub(super) fn keep(&self, token: &str, owner: &Arc<Principal>, until: u64) {
        let Some(mark) = mark(token) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= TOKENS_MAX {
            known.clear();
        }
        known.insert(mark, (Arc::clone(owner), until));
    }
}

fn mark(token: &str) -> Option<Mark> {
    digest(&SHA256, token.as_bytes()).as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_remembered_until_its_end() {
        let memory = Memory::default();
        let owner = Arc::new(Principal::new("shop"));
        memory.keep("a.b.c", &owner, 100);
        for (token, now, known) in
            [("a.b.c", 0, true), ("a.b.c", 100, true), ("a.b.c", 101, false), ("a.b.d", 0, false)]
        {
            assert_eq!(memory.owner(token, now).is_some(), known, "{token} {now}");
        }
    }

    #[test]
    fn memory_is_bounded() {
        let memory = Memory::default();
        let owner = Arc::new(Principal::new("shop"));
        for number in 0..TOKENS_MAX + 5 {
            memory.keep(&number.to_string(), &owner, 100);
        }
        assert_eq!(memory.0.lock().unwrap().len(), 5);
    }
}

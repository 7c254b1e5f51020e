//! Signatures that were used: a signed request that somebody recorded cannot be sent again later, nor many times.
//!
//! A date has no fractions of a second, so equal requests of one second (two polls of one consumer) have the same signature. Hence a
//! signature may come again some times for a moment after its first use, and not after that. The moment counts from the first use and
//! not from the date, so a client whose clock is wrong has it too.
//!
//! Each access key has a memory of its own. When all together are too large the largest one forgets: whoever signs more than all others
//! shortens its own protection, and nobody else's.

use std::collections::HashMap;
use std::mem;
use std::time::{Duration, Instant};

/// Half of an HMAC tells signatures apart.
const MARK_LEN: usize = 16;
/// Marks of all access keys together: some 50 MB.
const MARKS_MAX: usize = 800_000;
/// Between two lines of the log about forgetting.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

type Mark = [u8; MARK_LEN];

/// How often a signature may be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grace {
    /// After its first use.
    pub within: Duration,
    /// Uses in all.
    pub uses_max: u32,
}

#[derive(Debug, Clone, Copy)]
struct Use {
    first: Instant,
    count: u32,
}

/// What is known of all access keys.
#[derive(Debug)]
pub(super) struct Used {
    remembered: Duration,
    marks_max: usize,
    marks: usize,
    keys: HashMap<String, OfKey>,
    swept: Instant,
    complained: Option<Instant>,
}

/// The uses of one access key, in two generations so that old ones go without a search.
#[derive(Debug)]
struct OfKey {
    young: HashMap<Mark, Use>,
    young_since: Instant,
    old: HashMap<Mark, Use>,
}

impl OfKey {
    fn new(now: Instant) -> Self {
        Self { young: HashMap::new(), young_since: now, old: HashMap::new() }
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Forgets the old generation; how many marks that were.
    fn forget(&mut self, now: Instant) -> usize {
        self.young_since = now;
        mem::replace(&mut self.old, mem::take(&mut self.young)).len()
    }

    fn find(&mut self, mark: &Mark) -> Option<&mut Use> {
        match self.young.get_mut(mark) {
            Some(found) => Some(found),
            None => self.old.get_mut(mark),
        }
    }
}

impl Used {
    /// A signature is known for at least this time.
    pub(super) fn new(remembered: Duration, now: Instant) -> Self {
        let keys = HashMap::new();
        Self { remembered, marks_max: MARKS_MAX, marks: 0, keys, swept: now, complained: None }
    }

    /// Notes the use of a good signature of an access key; whether it may be used now.
    pub(super) fn admit(&mut self, access: &str, signature: &[u8; 32], grace: Grace, now: Instant) -> bool {
        let mut mark = Mark::default();
        mark.copy_from_slice(&signature[..MARK_LEN]);
        self.forget_expired(access, now);
        let of_key = match self.keys.get_mut(access) {
            Some(of_key) => of_key,
            None => self.keys.entry(access.to_owned()).or_insert_with(|| OfKey::new(now)),
        };
        if let Some(known) = of_key.find(&mark) {
            known.count = known.count.saturating_add(1);
            return known.count <= grace.uses_max && now.saturating_duration_since(known.first) <= grace.within;
        }
        of_key.young.insert(mark, Use { first: now, count: 1 });
        self.marks += 1;
        self.forget_largest(now);
        true
    }

    fn forget_expired(&mut self, access: &str, now: Instant) {
        let is_due = |of_key: &OfKey| now.saturating_duration_since(of_key.young_since) > self.remembered;
        if let Some(of_key) = self.keys.get_mut(access).filter(|of_key| is_due(of_key)) {
            self.marks -= of_key.forget(now);
        }
        // Access keys that are used no more, and those that are gone from the file.
        if now.saturating_duration_since(self.swept) > self.remembered {
            self.swept = now;
            let mut forgotten = 0;
            self.keys.retain(|_, of_key| {
                if now.saturating_duration_since(of_key.young_since) > self.remembered {
                    forgotten += of_key.forget(now);
                }
                of_key.len() > 0
            });
            self.marks -= forgotten;
        }
    }

    /// Only an access key that has signed at least its share of all marks can be the largest.
    fn forget_largest(&mut self, now: Instant) {
        while self.marks > self.marks_max {
            let Some((access, largest)) = self.keys.iter_mut().max_by_key(|(_, of_key)| of_key.len()) else { return };
            if self.complained.is_none_or(|when| now.saturating_duration_since(when) >= COMPLAINT_INTERVAL) {
                self.complained = Some(now);
                let signatures = largest.len();
                tracing::warn!(
                    access,
                    signatures,
                    "so many signatures that older ones of this access key are forgotten early"
                );
            }
            self.marks -= largest.forget(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REMEMBERED: Duration = Duration::from_secs(1800);
    const GRACE: Grace = Grace { within: Duration::from_secs(5), uses_max: 3 };
    const OFTEN: Grace = Grace { uses_max: 1000, ..GRACE };

    fn signature(number: u64) -> [u8; 32] {
        let mut signature = [0; 32];
        signature[..8].copy_from_slice(&number.to_be_bytes());
        signature
    }

    fn known(used: &Used, access: &str) -> usize {
        used.keys.get(access).map_or(0, OfKey::len)
    }

    #[test]
    fn a_signature_may_come_again_for_a_moment_and_never_after() {
        let start = Instant::now();
        let mut used = Used::new(REMEMBERED, start);
        for (seconds, expected) in [(0, true), (1, true), (5, true), (6, false), (1000, false), (1800, false)] {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(used.admit("AK", &signature(1), OFTEN, now), expected, "{seconds}");
        }
        // Another one is not affected, and the first use is not moved by later ones.
        assert!(used.admit("AK", &signature(2), OFTEN, start + Duration::from_secs(7)));
    }

    #[test]
    fn a_signature_may_come_again_only_some_times() {
        let start = Instant::now();
        let mut used = Used::new(REMEMBERED, start);
        let admitted = (0..1576).filter(|_| used.admit("AK", &signature(1), GRACE, start)).count();
        assert_eq!(admitted, 3);
        assert!(used.admit("OTHER", &signature(1), GRACE, start), "of another access key");
        assert!(used.admit("AK", &signature(2), GRACE, start));
    }

    #[test]
    fn a_signature_is_known_as_long_as_its_date_could_be_good() {
        let start = Instant::now();
        let mut used = Used::new(REMEMBERED, start);
        // Just before the generations change, and still known a whole life later.
        assert!(used.admit("AK", &signature(1), GRACE, start + REMEMBERED));
        assert!(used.admit("AK", &signature(2), GRACE, start + REMEMBERED + Duration::from_secs(1)));
        assert!(!used.admit("AK", &signature(1), GRACE, start + REMEMBERED * 2));
        assert!(!used.admit("AK", &signature(2), GRACE, start + REMEMBERED * 2));
    }

    #[test]
    fn a_flood_of_one_access_key_makes_only_itself_forget() {
        let start = Instant::now();
        let mut used = Used { marks_max: 100, ..Used::new(REMEMBERED, start) };
        for number in 0..10 {
            assert!(used.admit("QUIET", &signature(number), GRACE, start));
        }
        for number in 0..10_000 {
            assert!(used.admit("LOUD", &signature(number), GRACE, start), "a flood is not refused");
            assert!(used.marks <= 100 && used.marks == known(&used, "LOUD") + known(&used, "QUIET"));
        }
        assert_eq!(known(&used, "QUIET"), 10);
        let late = start + GRACE.within * 2;
        assert!((0..10).all(|number| !used.admit("QUIET", &signature(number), GRACE, late)));
        assert!(!used.admit("LOUD", &signature(9_999), GRACE, late));
    }

    #[test]
    fn what_is_used_no_more_is_forgotten() {
        let start = Instant::now();
        let mut used = Used::new(REMEMBERED, start);
        assert!(used.admit("GONE", &signature(1), GRACE, start));
        for round in 1_u32..4 {
            let later = start + (REMEMBERED + Duration::from_secs(1)) * round;
            assert!(used.admit("AK", &signature(u64::from(round)), GRACE, later));
        }
        assert_eq!((known(&used, "GONE"), used.keys.len()), (0, 1));
        assert_eq!(used.marks, known(&used, "AK"));
    }
}

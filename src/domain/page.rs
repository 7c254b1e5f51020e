//! Pages of lists. A page ends with a token that says where the next one begins, so that a list that changes meanwhile repeats nothing
//! and leaves nothing out.

use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::checksum::checksum;
use super::clock::Timestamp;
use super::error::{Error, ErrorKind, Result};
use super::ids::{StreamId, SubscriptionId};
use super::limits::PAGE_SIZE;
use super::queue::GroupSummary;

const VERSION: u8 = 1;
const SUM_LEN: usize = 4;
/// The longest tag key makes a token of about 200 characters.
const TOKEN_CHARS: RangeInclusive<usize> = 1..=300;

/// What orders a list, and so can say where a page of it ended.
pub trait PageKey: Sized {
    /// Each list has a number of its own.
    const LIST: u8;

    /// As bytes.
    fn to_bytes(&self) -> Vec<u8>;

    /// The key of these bytes.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// Queues are listed by creation time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueKey {
    /// When the queue was created.
    pub created_at: Timestamp,
    /// Its stream, for queues of the same instant.
    pub stream: StreamId,
}

impl PageKey for QueueKey {
    const LIST: u8 = 1;

    fn to_bytes(&self) -> Vec<u8> {
        [self.created_at.0.to_be_bytes(), self.stream.0.to_be_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (created_at, stream) = bytes.split_at_checked(8)?;
        Some(Self { created_at: Timestamp(number(created_at)?), stream: StreamId(number(stream)?) })
    }
}

/// Groups are listed by creation, which numbers them.
impl PageKey for SubscriptionId {
    const LIST: u8 = 2;

    fn to_bytes(&self) -> Vec<u8> {
        self.0.to_be_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        number(bytes).map(Self)
    }
}

/// The tags of a project are listed by key.
impl PageKey for String {
    const LIST: u8 = 3;

    fn to_bytes(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

fn number(bytes: &[u8]) -> Option<i64> {
    bytes.try_into().ok().map(i64::from_be_bytes)
}

/// Which page of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<K> {
    /// Whose list it is.
    scope: String,
    /// Items on the page; all when absent.
    size: Option<usize>,
    /// The last item of the page before.
    pub after: Option<K>,
}

impl<K: PageKey> ListPage<K> {
    /// Checks `page_size` (DMS.10240042) and `page_token` (DMS.10240043), which must be of the same list of the same owner.
    pub fn parse(scope: &str, size: Option<i32>, token: &str) -> Result<Self> {
        let allowed = "an integer from 1 to 1000";
        let checked = |size: i32| match usize::try_from(size).ok().filter(|size| PAGE_SIZE.contains(size)) {
            None => Err(Error::field(ErrorKind::SearchLimit, "page_size", size, allowed)),
            good => Ok(good),
        };
        let after = match token {
            "" => None,
            token => Some(key(scope, token).ok_or_else(|| {
                let allowed = "the next_page_token of a page of this list; without one the list begins anew";
                Error::field(ErrorKind::SearchOffset, "page_token", token, allowed)
            })?),
        };
        Ok(Self { scope: scope.to_owned(), size: size.map_or(Ok(None), checked)?, after })
    }

    /// How many items to read: one more than wanted, which shows that there is another page.
    pub(crate) fn items_to_read(&self) -> Option<i64> {
        self.size.and_then(|size| i64::try_from(size + 1).ok())
    }

    /// Leaves the page of what was read behind `after`; the token of the next page, or an empty one.
    pub fn cut<T>(&self, items: &mut Vec<T>, key: impl Fn(&T) -> K) -> String {
        let Some(size) = self.size.filter(|size| *size < items.len()) else { return String::new() };
        items.truncate(size);
        items.last().map(|last| token(&self.scope, &key(last))).unwrap_or_default()
    }
}

/// Which groups of a queue are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GroupPage {
    /// By number, as DMS has it: so many a page, and the page, from 1.
    Numbered(usize, usize),
    /// Behind the page before.
    After(ListPage<SubscriptionId>),
}

impl GroupPage {
    /// A page by its number when both numbers are valid; all when one of them is not, or there is none.
    pub(crate) fn numbered(size: Option<i32>, number: i32) -> Self {
        let positive = |number: i32| usize::try_from(number).ok().filter(|number| *number > 0);
        let both = size.and_then(positive).zip(positive(number));
        both.map_or(Self::Numbered(usize::MAX, 1), |(size, number)| Self::Numbered(size, number))
    }

    /// Leaves the page of all groups; the token of the next one, or an empty one.
    pub(crate) fn cut(&self, groups: &mut Vec<GroupSummary>) -> String {
        match self {
            Self::Numbered(size, number) => {
                groups.drain(..size.saturating_mul(number - 1).min(groups.len()));
                groups.truncate(*size);
                String::new()
            }
            Self::After(page) => {
                groups.retain(|summary| page.after.is_none_or(|after| summary.group.subscription > after));
                page.cut(groups, |summary| summary.group.subscription)
            }
        }
    }
}

fn token<K: PageKey>(scope: &str, key: &K) -> String {
    let mut bytes = vec![VERSION, K::LIST];
    bytes.extend(key.to_bytes());
    let sum = checksum(&[&bytes, scope.as_bytes()]);
    bytes.extend(sum);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn key<K: PageKey>(scope: &str, token: &str) -> Option<K> {
    TOKEN_CHARS.contains(&token.len()).then_some(())?;
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (content, sum) = bytes.split_at_checked(bytes.len().checked_sub(SUM_LEN)?)?;
    let [VERSION, list, key @ ..] = content else { return None };
    (*list == K::LIST && checksum(&[content, scope.as_bytes()]) == sum).then_some(())?;
    K::from_bytes(key)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::{GroupId, QueueId};
    use crate::domain::queue::Group;

    fn pages(size: i32) -> Vec<Vec<i64>> {
        let (mut found, mut next) = (Vec::new(), String::new());
        loop {
            let page = ListPage::<SubscriptionId>::parse("queue", Some(size), &next).unwrap();
            let after = page.after.map_or(0, |after| after.0);
            let mut items: Vec<i64> = (1..=5).filter(|item| *item > after).collect();
            next = page.cut(&mut items, |item| SubscriptionId(*item));
            found.push(items);
            if next.is_empty() {
                return found;
            }
        }
    }

    #[test]
    fn pages_follow_each_other_to_the_end() {
        assert_eq!(pages(2), [vec![1, 2], vec![3, 4], vec![5]]);
        assert_eq!(pages(5), [vec![1, 2, 3, 4, 5]]);
        assert_eq!(pages(4), [vec![1, 2, 3, 4], vec![5]]);
        let all = ListPage::<SubscriptionId>::parse("queue", None, "").unwrap();
        assert_eq!(
            (all.items_to_read(), all.cut(&mut vec![1, 2], |item| SubscriptionId(*item))),
            (None, String::new())
        );
    }

    fn group(number: i64) -> GroupSummary {
        let (id, queue) = (GroupId(Uuid::nil()), QueueId(Uuid::nil()));
        Group { id, queue, name: String::new(), subscription: SubscriptionId(number), dead_letters: None }.into()
    }

    #[test]
    fn numbered_pages_need_both_numbers() {
        let page = |size, number| {
            let mut groups: Vec<GroupSummary> = (1..=3).map(group).collect();
            assert_eq!(GroupPage::numbered(size, number).cut(&mut groups), "");
            groups.iter().map(|summary| summary.group.subscription.0).collect::<Vec<_>>()
        };
        assert_eq!(page(Some(2), 1), [1, 2]);
        assert_eq!(page(Some(2), 2), [3]);
        assert_eq!(page(Some(2), 3), [0; 0]);
        assert_eq!(page(Some(i32::MAX), i32::MAX), [0; 0]);
        for (size, number) in [(None, 1), (Some(0), 1), (Some(1), -1), (Some(-1), 0)] {
            assert_eq!(page(size, number), [1, 2, 3]);
        }
    }

    #[test]
    fn every_key_comes_back_as_it_was() {
        let queue = QueueKey { created_at: Timestamp(i64::MAX), stream: StreamId(-1) };
        assert_eq!(key("p", &token("p", &queue)), Some(queue));
        assert_eq!(key("p", &token("p", &SubscriptionId(7))), Some(SubscriptionId(7)));
        for text in ["a".to_owned(), "值".repeat(36)] {
            assert_eq!(key("p", &token("p", &text)), Some(text));
        }
    }

    #[test]
    fn tokens_of_other_lists_and_owners_and_mangled_ones_are_refused() {
        let good = token("p", &SubscriptionId(7));
        let of_tags = token("p", &"12345678".to_owned());
        let long = "A".repeat(100_000);
        for bad in [&of_tags, &token("q", &SubscriptionId(7)), &good[1..], &format!("{good}A"), "AA", "!", &long] {
            let error = ListPage::<SubscriptionId>::parse("p", None, bad).unwrap_err();
            assert_eq!((error.kind(), error.field_name()), (ErrorKind::SearchOffset, Some("page_token")), "{bad:.40}");
        }
        assert!(ListPage::<SubscriptionId>::parse("p", None, &good).is_ok());
    }

    #[test]
    fn a_page_has_1_to_1000_items() {
        for (size, good) in [(1, true), (1000, true), (0, false), (1001, false), (-1, false), (i32::MIN, false)] {
            let parsed = ListPage::<SubscriptionId>::parse("p", Some(size), "");
            assert_eq!(parsed.map_err(|error| error.kind()).err(), (!good).then_some(ErrorKind::SearchLimit), "{size}");
        }
    }
}

use uuid::Uuid;

use super::*;

fn queue(number: u128, name: &str, tags: &[(&str, &str)]) -> TaggedQueue {
    let tag = |(key, value): &(&str, &str)| Tag { key: (*key).into(), value: (*value).into() };
    TaggedQueue { id: QueueId(Uuid::from_u128(number)), name: name.into(), tags: tags.iter().map(tag).collect() }
}

fn queues() -> Vec<TaggedQueue> {
    vec![
        queue(1, "Orders-eu", &[("env", "prod"), ("team", "a")]),
        queue(2, "orders-us", &[("env", "test"), ("team", "a")]),
        queue(3, "billing", &[("env", "prod"), ("note", "")]),
        queue(4, "plain", &[]),
    ]
}

fn condition(key: &str, values: &[&str]) -> TagValues {
    TagValues { key: key.into(), values: values.iter().map(|value| (*value).into()).collect() }
}

fn found(filter: &Filter) -> Vec<u128> {
    let page = Page::parse(None, None).unwrap();
    search(queues(), filter, page).queues.iter().map(|queue| queue.id.0.as_u128()).collect()
}

#[test]
fn an_empty_filter_finds_everything() {
    assert_eq!(found(&Filter::default()), [1, 2, 3, 4]);
}

#[test]
fn tags_must_all_hold() {
    let both = Filter { tags: vec![condition("env", &["prod"]), condition("team", &[])], ..Filter::default() };
    assert_eq!(found(&both), [1]);
    let either_value = Filter { tags: vec![condition("env", &["prod", "test"])], ..Filter::default() };
    assert_eq!(found(&either_value), [1, 2, 3]);
    let empty_value = Filter { tags: vec![condition("note", &[""])], ..Filter::default() };
    assert_eq!(found(&empty_value), [3]);
    let other_case = Filter { tags: vec![condition("ENV", &[])], ..Filter::default() };
    assert_eq!(found(&other_case), [0u128; 0]);
}

#[test]
fn tags_any_needs_one() {
    let filter = Filter { tags_any: vec![condition("note", &[]), condition("team", &["a"])], ..Filter::default() };
    assert_eq!(found(&filter), [1, 2, 3]);
}

#[test]
fn not_tags_refuses_only_all_together() {
    let filter = Filter { not_tags: vec![condition("env", &["prod"]), condition("team", &[])], ..Filter::default() };
    assert_eq!(found(&filter), [2, 3, 4]);
}

#[test]
fn not_tags_any_refuses_each() {
    let filter =
        Filter { not_tags_any: vec![condition("env", &["test"]), condition("note", &[])], ..Filter::default() };
    assert_eq!(found(&filter), [1, 4]);
}

#[test]
fn the_name_matches_in_any_case_and_with_the_tags() {
    assert_eq!(found(&Filter { name_part: "ORDERS".into(), ..Filter::default() }), [1, 2]);
    let filter = Filter { tags: vec![condition("env", &["prod"])], name_part: "orders".into(), ..Filter::default() };
    assert_eq!(found(&filter), [1]);
    assert_eq!(found(&Filter { name_part: "a\0b".into(), ..Filter::default() }), [0u128; 0]);
}

#[test]
fn a_page_is_cut_after_counting() {
    let page = Page::parse(Some(2), Some(1)).unwrap();
    let result = search(queues(), &Filter::default(), page);
    assert_eq!((result.queues.len(), result.queues[0].name.as_str(), result.total), (2, "orders-us", 4));
    let beyond = search(queues(), &Filter::default(), Page::parse(None, Some(i32::MAX)).unwrap());
    assert_eq!((beyond.queues.len(), beyond.total), (0, 4));
    let count = search(queues(), &Filter::default(), Page::COUNT_ONLY);
    assert_eq!((count.queues.len(), count.total), (0, 4));
}

#[test]
fn pages_out_of_range_are_refused() {
    for limit in [0, -1, 1001, i32::MIN, i32::MAX] {
        assert_eq!(Page::parse(Some(limit), None).unwrap_err().kind(), ErrorKind::SearchLimit);
    }
    assert_eq!(Page::parse(Some(1000), Some(-1)).unwrap_err().kind(), ErrorKind::SearchOffset);
}

#[test]
fn lists_out_of_bounds_are_refused() {
    let keys = |count: usize| (0..count).map(|n| condition(&n.to_string(), &[])).collect::<Vec<_>>();
    let values = |count: usize| {
        let values = (0..count).map(|n| n.to_string()).collect();
        vec![TagValues { key: "k".into(), values }]
    };
    let cases = [
        (keys(10), None),
        (keys(11), Some(ErrorKind::TooManyTags)),
        (values(10), None),
        (values(11), Some(ErrorKind::RequestFormat)),
        (vec![condition("", &[])], Some(ErrorKind::TagKeyLength)),
        (vec![condition(&"é".repeat(127), &[])], None),
        (vec![condition(&"é".repeat(128), &[])], Some(ErrorKind::TagKeyLength)),
        (vec![condition("k", &[&"v".repeat(255)])], None),
        (vec![condition("k", &[&"v".repeat(256)])], Some(ErrorKind::TagValueLength)),
        (vec![condition("k", &[]), condition("k", &["v"])], Some(ErrorKind::TagKeyRepeated)),
        (vec![condition("k", &["v", "v"])], Some(ErrorKind::RequestFormat)),
    ];
    for (list, expected) in cases {
        for filter in [
            Filter { tags: list.clone(), ..Filter::default() },
            Filter { tags_any: list.clone(), ..Filter::default() },
            Filter { not_tags: list.clone(), ..Filter::default() },
            Filter { not_tags_any: list.clone(), ..Filter::default() },
        ] {
            assert_eq!(filter.check().err().map(|error| error.kind()), expected, "{list:?}");
        }
    }
}

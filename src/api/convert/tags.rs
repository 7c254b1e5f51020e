//! Resource tags and the search by them.

use dms_client::v1 as pb;

use super::count;
use crate::domain::search::{Filter, Found, Page, TaggedQueue};
use crate::domain::tag::{self, Tag, TagBatch, TagSelector, TagValues};
use crate::domain::{Error, ErrorKind, Result};

/// Checks a tag to add.
pub(crate) fn tag(given: Option<pb::Tag>) -> Result<Tag> {
    let given = given.ok_or_else(|| Error::missing(ErrorKind::RequestFormat, "tag", "a key and a value"))?;
    Tag::parse("tag", given.key, given.value)
}

/// Checks a batch.
pub(crate) fn batch(request: pb::BatchQueueTagsRequest) -> Result<TagBatch> {
    let action = pb::TagAction::try_from(request.action).unwrap_or_default();
    if action == pb::TagAction::Unspecified {
        return Err(Error::field(ErrorKind::TagAction, "action", request.action, "CREATE or DELETE"));
    }
    tag::check_count("tags", request.tags.len())?;
    let tags = request.tags.into_iter().enumerate().map(|(index, tag)| (format!("tags[{index}]"), tag));
    if action == pb::TagAction::Create {
        let parse = |(field, tag): (String, pb::BatchTag)| Tag::parse(&field, tag.key, tag.value.unwrap_or_default());
        return TagBatch::create(tags.map(parse).collect::<Result<_>>()?);
    }
    let parse = |(field, tag): (String, pb::BatchTag)| TagSelector::parse(&field, tag.key, tag.value);
    Ok(TagBatch::Delete(tags.map(parse).collect::<Result<_>>()?))
}

/// Checks a search.
pub(crate) fn search(request: pb::SearchQueuesRequest) -> Result<(Filter, Page)> {
    let page = match pb::SearchAction::try_from(request.action) {
        Ok(pb::SearchAction::Filter) => Page::parse(request.limit, request.offset)?,
        Ok(pb::SearchAction::Count) => Page::COUNT_ONLY,
        Ok(pb::SearchAction::Unspecified) | Err(_) => {
            return Err(Error::field(ErrorKind::SearchAction, "action", request.action, "FILTER or COUNT"));
        }
    };
    let filter = Filter {
        tags: conditions(request.tags),
        tags_any: conditions(request.tags_any),
        not_tags: conditions(request.not_tags),
        not_tags_any: conditions(request.not_tags_any),
        name_part: request.resource_name,
    };
    filter.check()?;
    Ok((filter, page))
}

fn conditions(list: Vec<pb::TagValues>) -> Vec<TagValues> {
    list.into_iter().map(|pb::TagValues { key, values }| TagValues { key, values }).collect()
}

/// Tags for the wire.
pub(crate) fn tags(tags: Vec<Tag>) -> Vec<pb::Tag> {
    tags.into_iter().map(|Tag { key, value }| pb::Tag { key, value }).collect()
}

/// A key and its values for the wire.
pub(crate) fn tag_values(tag: TagValues) -> pb::TagValues {
    pb::TagValues { key: tag.key, values: tag.values }
}

/// What a search found.
pub(crate) fn found(found: Found) -> pb::SearchQueuesResponse {
    let resources = found.queues.into_iter().map(resource).collect();
    pb::SearchQueuesResponse { resources, total_count: count(found.total) }
}

fn resource(queue: TaggedQueue) -> pb::QueueResource {
    pb::QueueResource { queue_id: queue.id.to_string(), queue_name: queue.name, tags: tags(queue.tags) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch_of(action: i32, tags: &[(&str, Option<&str>)]) -> Result<TagBatch> {
        let tag =
            |(key, value): &(&str, Option<&str>)| pb::BatchTag { key: (*key).into(), value: value.map(Into::into) };
        batch(pb::BatchQueueTagsRequest { action, tags: tags.iter().map(tag).collect(), ..Default::default() })
    }

    fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn batches_are_read_by_action() {
        let created = vec![Tag { key: "a".into(), value: String::new() }];
        assert_eq!(batch_of(1, &[("a", None)]), Ok(TagBatch::Create(created)));
        let any = |key: &str| TagSelector { key: key.into(), value: None };
        assert_eq!(batch_of(2, &[("a", None), ("a", None)]), Ok(TagBatch::Delete(vec![any("a"), any("a")])));
        let empty = TagSelector { key: "a".into(), value: Some(String::new()) };
        assert_eq!(batch_of(2, &[("a", Some(""))]), Ok(TagBatch::Delete(vec![empty])));
    }

    #[test]
    fn wrong_batches_are_refused() {
        for action in [0, 3, -1] {
            assert_eq!(kind(batch_of(action, &[("a", None)])), Some(ErrorKind::TagAction));
        }
        assert_eq!(kind(batch_of(1, &[])), Some(ErrorKind::RequestFormat));
        assert_eq!(kind(batch_of(1, &[("a", None); 11])), Some(ErrorKind::TooManyTags));
        assert_eq!(kind(batch_of(1, &[("a", None), ("a", Some("x"))])), Some(ErrorKind::TagKeyRepeated));
        assert_eq!(kind(batch_of(2, &[("", None)])), Some(ErrorKind::TagKeyLength));
        assert_eq!(kind(batch_of(2, &[("a", Some("\0"))])), Some(ErrorKind::TagValueCharacters));
        assert_eq!(kind(tag(None)), Some(ErrorKind::RequestFormat));
    }

    #[test]
    fn searches_need_an_action_and_pages_only_to_filter() {
        let of = |action, limit| {
            kind(search(pb::SearchQueuesRequest { action, limit, offset: Some(0), ..Default::default() }))
        };
        assert_eq!((of(0, None), of(3, None)), (Some(ErrorKind::SearchAction), Some(ErrorKind::SearchAction)));
        assert_eq!((of(1, Some(0)), of(1, Some(1))), (Some(ErrorKind::SearchLimit), None));
        assert_eq!(of(2, Some(0)), None);
    }
}

//! Lists in requests, counted on the wire: how long each may be, before it costs any memory.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::domain::{Result, labels, message, queue, search, settle, tag};

/// A repeated field of a message.
#[derive(Debug)]
pub(super) struct List {
    tag: u32,
    name: &'static str,
    /// Refuses a count that is out of range, for a field of this name.
    check: fn(&str, usize) -> Result<()>,
    /// The lists in each of its messages.
    inner: &'static [Self],
}

impl List {
    const fn of(tag: u32, name: &'static str, check: fn(&str, usize) -> Result<()>, inner: &'static [Self]) -> Self {
        Self { tag, name, check, inner }
    }
}

const SEND: &[List] = &[List::of(3, "messages", message::check_count, NEW_MESSAGE)];
const NEW_MESSAGE: &[List] = &[List::of(3, "tags", labels::check_count, &[])];
const CONSUME: &[List] = &[List::of(5, "tags", labels::check_count, &[])];
const ACK: &[List] = &[List::of(4, "entries", settle::check_count, &[])];
const GROUPS: &[List] = &[List::of(3, "names", queue::check_group_count, &[])];
const BATCH: &[List] = &[List::of(4, "tags", tag::check_count, &[])];
const SEARCH: &[List] = &[
    List::of(3, "tags", search::check_keys_count, CONDITION),
    List::of(4, "tags_any", search::check_keys_count, CONDITION),
    List::of(5, "not_tags", search::check_keys_count, CONDITION),
    List::of(6, "not_tags_any", search::check_keys_count, CONDITION),
];
const CONDITION: &[List] = &[List::of(2, "values", search::check_values_count, &[])];
/// Lists of one message, at most.
const LISTS_MAX: usize = 4;

/// The lists of a request by its name. Answers are made by the service, and may be as long as they are.
pub(super) fn of(message: &str) -> &'static [List] {
    match message {
        "SendMessagesRequest" => SEND,
        "ConsumeMessagesRequest" => CONSUME,
        "AckMessagesRequest" | "AckDeadLettersRequest" => ACK,
        "CreateConsumerGroupsRequest" => GROUPS,
        "BatchQueueTagsRequest" => BATCH,
        "SearchQueuesRequest" => SEARCH,
        _ => &[],
    }
}

/// Checks how many items each list of an encoded message has.
///
/// # Errors
/// What the check of a list says. Bytes that are no message are left to the decoder, which stops where this does.
pub(super) fn check(message: &[u8], lists: &[List]) -> Result<()> {
    check_within(message, lists, &String::new)
}

fn check_within(mut message: &[u8], lists: &[List], place: &dyn Fn() -> String) -> Result<()> {
    let mut counts = [0; LISTS_MAX];
    while let Some((tag, value)) = next_field(&mut message) {
        let Some((list, count)) = lists.iter().zip(&mut counts).find(|(list, _)| list.tag == tag) else { continue };
        let index = *count;
        *count += 1;
        if !list.inner.is_empty() {
            check_within(value, list.inner, &|| format!("{}{}[{index}].", place(), list.name))?;
        }
    }
    for (list, count) in lists.iter().zip(counts).filter(|(_, count)| *count > 0) {
        // The name is made only when there is something wrong.
        if (list.check)(list.name, count).is_err() {
            (list.check)(&format!("{}{}", place(), list.name), count)?;
        }
    }
    Ok(())
}

/// The next field and, of one that has a length, its value; of others nothing. `None` at the end, or where no field can be read.
fn next_field<'a>(message: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    if message.is_empty() {
        return None;
    }
    let (tag, wire_type) = decode_key(message).ok()?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, message, DecodeContext::default()).ok()?;
        // No list has such a field.
        return Some((0, &[]));
    }
    let length = usize::try_from(decode_varint(message).ok()?).ok()?;
    let (value, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some((tag, value))
}

#[cfg(test)]
#[path = "lists_tests.rs"]
mod tests;

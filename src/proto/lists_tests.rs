use std::collections::{HashMap, HashSet};

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::*;
use crate::domain::ErrorKind;
use dms_client::v1 as pb;

fn refusal(message: &[u8], name: &str) -> Option<(ErrorKind, String)> {
    check(message, of(name)).err().map(|error| (error.kind(), error.message().to_owned()))
}

fn send(counts: &[usize]) -> Vec<u8> {
    let message = |count: &usize| pb::NewMessage { tags: vec![String::new(); *count], ..Default::default() };
    let messages = counts.iter().map(message).collect();
    pb::SendMessagesRequest { project_id: "p".into(), messages, ..Default::default() }.encode_to_vec()
}

#[test]
fn lists_within_their_bounds_pass() {
    for counts in [&[][..], &[0], &[3; 10]] {
        assert_eq!(refusal(&send(counts), "SendMessagesRequest"), None);
    }
    let entries = vec![pb::AckEntry::default(); 1000];
    let ack = pb::AckMessagesRequest { entries, ..Default::default() }.encode_to_vec();
    assert_eq!(refusal(&ack, "AckMessagesRequest"), None);
    assert_eq!(refusal(&send(&[0; 100]), "SendMessagesResponse"), None, "answers have no bounds");
}

#[test]
fn a_list_that_is_too_long_is_named_with_its_count() {
    let (kind, message) = refusal(&send(&[0; 500_000]), "SendMessagesRequest").unwrap();
    assert_eq!(
        (kind, message.as_str()),
        (ErrorKind::RequestFormat, "messages: '500000 messages' is not 1-10 messages")
    );
    let (kind, message) = refusal(&send(&[3, 90_000]), "SendMessagesRequest").unwrap();
    assert_eq!(
        (kind, message.as_str()),
        (ErrorKind::LabelInvalid, "messages[1].tags: '90000 labels' is not at most 3 labels")
    );
    let condition = pb::TagValues { key: "k".into(), values: vec![String::new(); 11] };
    let search = pb::SearchQueuesRequest { not_tags: vec![condition; 2], ..Default::default() }.encode_to_vec();
    let (_, message) = refusal(&search, "SearchQueuesRequest").unwrap();
    assert_eq!(message, "not_tags[0].values: '11 values' is not at most 10 values");
}

#[test]
fn what_is_no_message_is_counted_as_far_as_it_can_be_read() {
    let empty = [0x1a, 0];
    let cases: [(&[u8], bool); 7] = [
        (b"", false),
        (&[0x1a], false),
        (&[0x1a, 0xff], false),
        (&[0xff; 20], false),
        // Behind a group, a varint, and a fixed number.
        (&[&[0x2b, 0x30, 1, 0x2c][..], &empty.repeat(11)].concat(), true),
        (&[&[0x28, 0x80, 1, 0x3d, 1, 2, 3, 4][..], &empty.repeat(11)].concat(), true),
        // What ends in the middle.
        (&[&empty.repeat(11)[..], &[0x1a, 9]].concat(), true),
    ];
    for (bytes, refused) in cases {
        assert_eq!(refusal(bytes, "SendMessagesRequest").is_some(), refused, "{bytes:x?}");
    }
}

/// All messages of the API by their full names.
fn described() -> (HashMap<String, DescriptorProto>, Vec<String>) {
    let set = FileDescriptorSet::decode(dms_client::DESCRIPTOR_SET).unwrap();
    let inputs = set.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
    let inputs = inputs.map(|method| method.input_type().to_owned()).collect();
    let named = |file: prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        file.message_type.into_iter().map(move |message| (format!(".{package}.{}", message.name()), message))
    };
    (set.file.into_iter().flat_map(named).collect(), inputs)
}

#[test]
fn every_list_of_every_request_has_a_bound() {
    let (messages, inputs) = described();
    let mut bounded = HashSet::new();
    for input in &inputs {
        let lists = of(input.rsplit('.').next().unwrap());
        assert!(lists.len() <= LISTS_MAX);
        assert_all_bounded(&messages, input, lists, &mut bounded);
    }
    assert!(bounded.len() >= 12, "{bounded:?}");
}

fn assert_all_bounded(
    messages: &HashMap<String, DescriptorProto>,
    name: &str,
    lists: &[List],
    bounded: &mut HashSet<String>,
) {
    let Some(message) = messages.get(name) else { return };
    for field in &message.field {
        let list = lists.iter().find(|list| list.tag == u32::try_from(field.number()).unwrap());
        if field.label() == Label::Repeated {
            let list = list.unwrap_or_else(|| panic!("{name}.{} has no bound", field.name()));
            assert_eq!(list.name, field.name());
            // A packed list of numbers would be one field.
            assert!(matches!(field.r#type(), Type::Message | Type::String | Type::Bytes), "{name}.{}", field.name());
            bounded.insert(format!("{name}.{}", field.name()));
        }
        if field.r#type() == Type::Message {
            assert_all_bounded(messages, field.type_name(), list.map_or(&[], |list| list.inner), bounded);
        }
    }
}

//! Handlers that are not good: first in the list the request is refused and nothing changes, later the list ends there.

use dms::domain::handler::Handler;
use dms_client::v1 as pb;
use pb::AckOutcome::{Acked, AfterFailure, Failed, InvalidHandler};

use crate::support::consumers::summary;
use crate::support::service::{Group, PROJECT, TestService, attempts, bodies, code, handlers, message};

const INVALID: &str = "DMS.10542209";
const MISMATCH: &str = "DMS.10540004";
const GARBAGE: &str = "eyJjZyI6Im15X2pzb25fZ3JvdXAifQ==";

/// A NORMAL queue and a group on it.
async fn with_group() -> (TestService, Group) {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    (service, group)
}

fn success(message: &pb::LeasedMessage) -> (&str, bool) {
    (&message.handler, true)
}

/// The batch is as it was delivered: all of it can still be acknowledged.
async fn assert_untouched(service: &TestService, group: &Group, batch: &[pb::LeasedMessage]) {
    assert!(service.consume(group, 10).await.is_empty(), "still leased");
    let result = service.ack(group, &handlers(batch, true)).await.unwrap();
    assert_eq!(summary(&result), (i32::try_from(batch.len()).unwrap(), 0, vec![Acked; batch.len()]));
}

#[tokio::test]
async fn a_bad_handler_in_front_refuses_the_list_and_changes_nothing() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2"]).await;
    let batch = service.take(&group, 10).await;
    let long = "A".repeat(10_000);
    for bad in ["", "x", GARBAGE, "\u{0}", "ünïcödé", &batch[0].handler[1..], &long] {
        for (first, second) in [((bad, true), (bad, true)), ((bad, false), (bad, true))] {
            let list = [first, success(&batch[0]), (batch[1].handler.as_str(), false), second];
            assert_eq!(code(&service.ack(&group, &list).await.unwrap_err()), INVALID, "{bad:.40}");
        }
    }
    assert_untouched(&service, &group, &batch).await;
}

#[tokio::test]
async fn a_bad_handler_later_ends_the_list_and_what_stands_behind_it_comes_again_at_once() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2", "3", "4"]).await;
    let batch = service.take(&group, 10).await;
    let list = [success(&batch[0]), success(&batch[1]), (GARBAGE, true), success(&batch[2]), success(&batch[3])];
    let result = service.ack(&group, &list).await.unwrap();
    assert_eq!(summary(&result), (2, 3, vec![Acked, Acked, InvalidHandler, AfterFailure, AfterFailure]));
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (["3", "4"].map(String::from).to_vec(), vec![2; 2]));
}

#[tokio::test]
async fn what_is_not_named_behind_a_bad_handler_keeps_its_lease() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2", "3"]).await;
    let batch = service.take(&group, 10).await;
    let result = service.ack(&group, &[success(&batch[0]), (GARBAGE, true), success(&batch[2])]).await.unwrap();
    assert_eq!(summary(&result), (1, 2, vec![Acked, InvalidHandler, AfterFailure]));
    assert_eq!(bodies(&service.take(&group, 10).await), ["3"]);
    assert_untouched(&service, &group, &batch[1..2]).await;
}

#[tokio::test]
async fn a_handler_named_twice_is_bad_the_second_time() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2"]).await;
    let batch = service.take(&group, 10).await;
    let list = [success(&batch[0]), success(&batch[0]), success(&batch[1])];
    let result = service.ack(&group, &list).await.unwrap();
    assert_eq!(summary(&result), (1, 2, vec![Acked, InvalidHandler, AfterFailure]));
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (vec!["2".to_owned()], vec![2]));
}

#[tokio::test]
async fn a_handler_named_again_behind_its_own_success_stays_acknowledged() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2"]).await;
    let batch = service.take(&group, 10).await;
    let list = [success(&batch[0]), (batch[1].handler.as_str(), false), success(&batch[0])];
    let result = service.ack(&group, &list).await.unwrap();
    assert_eq!(summary(&result), (1, 2, vec![Acked, Failed, AfterFailure]));
    assert_eq!(bodies(&service.take(&group, 10).await), ["2"]);
    assert_eq!(service.counters(&group).await.consumed_messages, 1);
}

#[tokio::test]
async fn a_settled_batch_cannot_be_settled_again() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2"]).await;
    let batch = service.take(&group, 10).await;
    service.ack(&group, &handlers(&batch, true)).await.unwrap();
    for entries in [handlers(&batch, true), handlers(&batch, false), handlers(&batch[1..], true)] {
        assert_eq!(code(&service.ack(&group, &entries).await.unwrap_err()), INVALID);
    }
    let counters = service.counters(&group).await;
    assert_eq!((counters.consumed_messages, counters.available_messages), (2, 0));
}

#[tokio::test]
async fn a_failed_batch_cannot_be_acknowledged_with_its_old_handlers() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1"]).await;
    let old = service.fail_next(&group, 10).await;
    assert_eq!(code(&service.ack(&group, &handlers(&old, true)).await.unwrap_err()), INVALID);
    let new = service.take(&group, 10).await;
    assert_ne!(old[0].handler, new[0].handler, "a handler is of one delivery");
    assert_eq!(code(&service.ack(&group, &handlers(&old, true)).await.unwrap_err()), INVALID);
    assert_untouched(&service, &group, &new).await;
}

#[tokio::test]
async fn an_expired_handler_later_in_the_list_ends_it() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1"]).await;
    let expired = service.take_for(&group, 1, Some(15)).await;
    service.send(&group.queue, &["2", "3"]).await;
    let live = service.take_for(&group, 10, Some(60)).await;
    service.advance(16);
    let list = [success(&live[0]), success(&expired[0]), success(&live[1])];
    let result = service.ack(&group, &list).await.unwrap();
    assert_eq!(summary(&result), (1, 2, vec![Acked, InvalidHandler, AfterFailure]));
    let mut again = service.take(&group, 1).await;
    again.extend(service.take(&group, 1).await);
    assert_eq!((bodies(&again), attempts(&again)), (["1", "3"].map(String::from).to_vec(), vec![2; 2]));
}

#[tokio::test]
async fn a_handler_of_another_group_is_refused() {
    let (service, group) = with_group().await;
    let other = service.group(&group.queue, "audit").await;
    service.send(&group.queue, &["1", "2"]).await;
    let (mine, theirs) = (service.take(&group, 10).await, service.take(&other, 10).await);
    let refused = service.ack(&group, &[success(&theirs[0]), success(&mine[0])]).await.unwrap_err();
    assert_eq!(code(&refused), MISMATCH);
    let result = service.ack(&group, &[success(&mine[0]), success(&theirs[0]), success(&mine[1])]).await.unwrap();
    assert_eq!(summary(&result), (1, 2, vec![Acked, InvalidHandler, AfterFailure]));
    assert_eq!(bodies(&service.take(&group, 10).await), ["2"]);
    assert_untouched(&service, &other, &theirs).await;
}

#[tokio::test]
async fn a_handler_of_another_queue_is_refused() {
    let (service, group) = with_group().await;
    let other = service.group(&service.queue("invoices").await, "billing").await;
    service.send(&other.queue, &["1"]).await;
    let theirs = service.take(&other, 10).await;
    assert_eq!(code(&service.ack(&group, &handlers(&theirs, true)).await.unwrap_err()), MISMATCH);
    assert_untouched(&service, &other, &theirs).await;
}

#[tokio::test]
async fn a_handler_of_another_project_is_refused() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1"]).await;
    let batch = service.take(&group, 10).await;
    let foreign = "0123456789abcdef0123456789abcdef";
    let entries = vec![pb::AckEntry { handler: batch[0].handler.clone(), ..Default::default() }];
    let named = |project: &str, group: &Group| pb::AckMessagesRequest {
        project_id: project.into(),
        queue_id: group.queue.clone(),
        group_id: group.id.clone(),
        entries: entries.clone(),
    };
    let mut client = service.replica.messages.clone();
    let unknown = client.ack_messages(named(foreign, &group)).await.unwrap_err();
    assert_eq!(code(&unknown), "DMS.10240401", "the queue is not of that project");

    let new = pb::CreateQueueRequest { project_id: foreign.into(), name: "orders".into(), ..Default::default() };
    let queue = service.replica.queues.clone().create_queue(new).await.unwrap().into_inner().queue.unwrap().id;
    let names = vec!["billing".into()];
    let new = pb::CreateConsumerGroupsRequest { project_id: foreign.into(), queue_id: queue.clone(), names };
    let created = service.replica.queues.clone().create_consumer_groups(new).await.unwrap().into_inner();
    let theirs = Group { queue, id: created.groups[0].id.clone() };
    assert_eq!(code(&client.ack_messages(named(foreign, &theirs)).await.unwrap_err()), MISMATCH);
    assert_eq!(code(&client.ack_messages(named(PROJECT, &theirs)).await.unwrap_err()), "DMS.10240401");
    assert_untouched(&service, &group, &batch).await;
}

#[tokio::test]
async fn handlers_of_normal_messages_and_of_dead_letters_do_not_mix() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1"]).await;
    service.fail_next(&group, 1).await;
    service.send(&queue, &["2"]).await;
    let (normal, dead) = (service.take(&group, 1).await, service.take_dead_letters(&group, 1).await);
    assert_eq!(code(&service.ack(&group, &handlers(&dead, true)).await.unwrap_err()), MISMATCH);
    assert_eq!(code(&service.ack_dead_letters(&group, &handlers(&normal, true)).await.unwrap_err()), MISMATCH);
    let list = [success(&normal[0]), success(&dead[0])];
    let result = service.ack(&group, &list).await.unwrap();
    assert_eq!(summary(&result), (1, 1, vec![Acked, InvalidHandler]));
    let result = service.ack_dead_letters(&group, &handlers(&dead, true)).await.unwrap();
    assert_eq!(summary(&result), (1, 0, vec![Acked]));
}

#[tokio::test]
async fn hundreds_of_garbage_handlers_are_answered_like_one() {
    let (service, group) = with_group().await;
    service.send_messages(&group.queue, vec![message("1"), message("2")]).await.unwrap();
    let batch = service.take(&group, 10).await;
    let garbage: Vec<String> = (0..500).map(|number| format!("{GARBAGE}{number}")).collect();
    let garbage: Vec<(&str, bool)> = garbage.iter().map(|text| (text.as_str(), true)).collect();
    assert_eq!(code(&service.ack(&group, &garbage).await.unwrap_err()), INVALID);
    let mut list = vec![success(&batch[0])];
    list.extend(&garbage);
    list.push(success(&batch[1]));
    let result = service.ack(&group, &list).await.unwrap();
    assert_eq!((result.success_count, result.fail_count), (1, 501));
    let mut expected = vec![Acked, InvalidHandler];
    expected.resize(502, AfterFailure);
    assert_eq!(summary(&result).2, expected);
    assert_eq!(bodies(&service.take(&group, 10).await), ["2"]);
}

/// A handler as only somebody would have it who made it up: of a lease of one's own, but not of a message in it.
fn invented(of: &pb::LeasedMessage, change: impl FnOnce(&mut Handler)) -> String {
    let mut handler = Handler::parse(&of.handler).unwrap();
    change(&mut handler);
    handler.format()
}

#[tokio::test]
async fn an_offset_that_is_not_in_the_lease_settles_nothing() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2", "3"]).await;
    let batch = service.take(&group, 3).await;
    let away = |message, by: i64| invented(message, |handler| handler.offset += by);
    // As many handlers as the batch has, so that it looks like a whole one.
    let whole = [away(&batch[0], 100), away(&batch[1], 100), away(&batch[2], 100)];
    let entries: Vec<_> = whole.iter().map(|handler| (handler.as_str(), true)).collect();
    assert_eq!(code(&service.ack(&group, &entries).await.unwrap_err()), INVALID);
    // The same sum of offsets, and only one that is wrong.
    let (less, more) = (away(&batch[0], -1), away(&batch[2], 1));
    for wrong in [[less.as_str(), &batch[1].handler, &more], [&more, &batch[1].handler, &batch[2].handler]] {
        let entries = wrong.map(|handler| (handler, true));
        assert_eq!(code(&service.ack(&group, &entries).await.unwrap_err()), INVALID);
    }
    // A batch that claims to be smaller than it is: one message of it is one message.
    let alone = invented(&batch[0], |handler| handler.batch_len = 1);
    let result = service.ack(&group, &[(&alone, true)]).await.unwrap();
    assert_eq!(summary(&result), (1, 0, vec![Acked]));
    let far = invented(&batch[1], |handler| (handler.offset, handler.batch_len) = (i64::MAX, 1));
    assert_eq!(code(&service.ack(&group, &[(&far, true)]).await.unwrap_err()), INVALID);
    let other = invented(&batch[1], |handler| handler.batch_len = 1);
    let result = service.ack(&group, &[(&other, true), (&away(&batch[1], 50), true), (&batch[2].handler, true)]).await;
    assert_eq!(summary(&result.unwrap()), (1, 2, vec![Acked, InvalidHandler, AfterFailure]));
}

#[tokio::test]
async fn a_batch_is_whole_in_any_order() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1", "2", "3"]).await;
    let mut batch = service.take(&group, 3).await;
    batch.reverse();
    let result = service.ack(&group, &handlers(&batch, true)).await.unwrap();
    assert_eq!(summary(&result), (3, 0, vec![Acked; 3]));
}

#[tokio::test]
async fn a_refused_handler_is_told_which_it_is_why_and_what_to_do() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", pb::QueueMode::Normal, 2).await;
    let (group, other) = (service.group(&queue, "billing").await, service.group(&queue, "audit").await);
    let elsewhere = service.group(&service.queue("invoices").await, "billing").await;
    service.send(&elsewhere.queue, &["1"]).await;
    service.send(&queue, &["1", "2"]).await;
    let [mine, theirs, foreign] =
        [service.take(&group, 10).await, service.take(&other, 10).await, service.take(&elsewhere, 1).await];
    service.ack(&other, &handlers(&theirs[..1], true)).await.unwrap();
    let settled = theirs[0].handler.as_str();
    for (group, handler, words) in [
        (&group, GARBAGE, "unparsable; give a handler exactly as it came with its message"),
        (&group, theirs[1].handler.as_str(), "of another group of this queue: name the group that it was delivered to"),
        (
            &group,
            foreign[0].handler.as_str(),
            "of another queue: name the queue and the group that it was delivered to",
        ),
        (&other, settled, "settled before: each delivery is acknowledged once"),
    ] {
        let refused = service.ack(group, &[(handler, true)]).await.unwrap_err();
        assert!(refused.message().starts_with(&format!("entries[0].handler: {words}")), "{}", refused.message());
        let refused = service.ack_dead_letters(group, &[(handler, true)]).await.unwrap_err();
        assert!(refused.message().starts_with("entries[0].handler: "), "{}", refused.message());
    }
    let list = [success(&mine[0]), success(&mine[1]), success(&mine[0])];
    let result = service.ack(&group, &list).await.unwrap();
    let words = "entries[2].handler: the entry with index 0 names it too; name each handler once";
    assert_eq!((result.success_count, result.invalid_handler.as_str()), (2, words));
    let dead = service.ack_dead_letters(&other, &[success(&theirs[1])]).await.unwrap_err();
    let words = "entries[0].handler: messages and dead letters of a group are acknowledged apart";
    assert!(dead.message().starts_with(words), "{}", dead.message());
    assert_eq!(service.ack(&other, &handlers(&theirs[1..], true)).await.unwrap().invalid_handler, "");
}

#[tokio::test]
async fn a_late_acknowledgement_is_told_when_the_lease_ended_and_what_helps() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", pb::QueueMode::Fifo, 3).await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2"]).await;
    let batch = service.take_for(&group, 10, Some(15)).await;
    let end = batch[0].lease_expire_time.unwrap().to_string();
    let end = format!("its lease ended at {}Z", end.split(['.', 'Z']).next().unwrap());
    // At once, when the row may still be there; when the messages wait; and when they are delivered again.
    service.advance(16);
    for step in 0..3 {
        let late = service.ack(&group, &handlers(&batch, true)).await.unwrap_err();
        assert_eq!(code(&late), INVALID);
        let message = late.message();
        assert!(message.starts_with(&format!("entries[0].handler: {end}, before it was acknowledged")), "{message}");
        for advice in ["ask for a longer lease (ack_wait in REST, at most 300 s)", "take fewer messages at a time"] {
            assert!(message.contains(advice), "{message}");
        }
        if step == 1 {
            assert_eq!(bodies(&service.take(&group, 10).await), ["1", "2"]);
        }
        // The upkeep ends the lease meanwhile.
        service.advance(1);
    }
}

#[tokio::test]
async fn a_handler_that_comes_late_once_more_is_told_that_it_may_have_been_settled() {
    let (service, group) = with_group().await;
    service.send(&group.queue, &["1"]).await;
    let batch = service.take_for(&group, 1, Some(15)).await;
    service.ack(&group, &handlers(&batch, true)).await.unwrap();
    service.advance(16);
    let again = service.ack(&group, &handlers(&batch, true)).await.unwrap_err();
    assert!(again.message().starts_with("entries[0].handler: settled before its lease ended at 20"), "{again:?}");
}

#[tokio::test]
async fn dead_letters_are_told_the_same_causes() {
    let service = TestService::start().await;
    let queue = service.redrive_queue("orders", pb::QueueMode::Normal, 1).await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2", "3"]).await;
    service.fail_next(&group, 3).await;
    let dead = service.take_dead_letters(&group, 3).await;
    service.ack_dead_letters(&group, &handlers(&dead[..1], true)).await.unwrap();
    let result = service.ack_dead_letters(&group, &[success(&dead[1]), success(&dead[0])]).await.unwrap();
    assert!(result.invalid_handler.starts_with("entries[1].handler: settled before: each delivery"), "{result:?}");
    service.advance(31);
    let late = service.ack_dead_letters(&group, &handlers(&dead[2..], true)).await.unwrap_err();
    assert!(late.message().starts_with("entries[0].handler: its lease ended at 20"), "{late:?}");
    let plain = service.group(&service.queue("plain").await, "billing").await;
    let none = service.ack_dead_letters(&plain, &handlers(&dead, true)).await.unwrap_err();
    assert!(none.message().contains("its queue has no redrive policy"), "{none:?}");
}

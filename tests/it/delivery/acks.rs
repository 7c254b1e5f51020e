//! Acknowledgement lists of live deliveries: walked in order, the first failure ends the walk.

use dms_client::v1 as pb;
use pb::AckOutcome::{Acked, AfterFailure, Failed};

use crate::support::consumers::summary;
use crate::support::service::{Group, TestService, attempts, bodies, code, handlers};

/// A NORMAL queue whose group holds the messages `1` to `count` (at most 10) in one batch.
async fn delivered(count: usize) -> (TestService, Group, Vec<pb::LeasedMessage>) {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    let texts: Vec<String> = (1..=count).map(|number| number.to_string()).collect();
    service.send(&queue, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let batch = service.take(&group, 10).await;
    assert_eq!(bodies(&batch), texts);
    (service, group, batch)
}

/// Handlers of a batch with a status each.
fn with_statuses<'a>(batch: &'a [pb::LeasedMessage], statuses: &[bool]) -> Vec<(&'a str, bool)> {
    batch.iter().map(|message| message.handler.as_str()).zip(statuses.iter().copied()).collect()
}

#[tokio::test]
async fn a_fail_in_the_middle_ends_the_list_and_the_tail_comes_again_at_once_in_order() {
    let (service, group, batch) = delivered(5).await;
    let result = service.ack(&group, &with_statuses(&batch, &[true, true, false, true, true])).await.unwrap();
    assert_eq!(summary(&result), (2, 3, vec![Acked, Acked, Failed, AfterFailure, AfterFailure]));
    let again = service.take(&group, 10).await;
    assert_eq!(bodies(&again), ["3", "4", "5"]);
    assert_eq!(attempts(&again), [2, 2, 2]);
    let result = service.ack(&group, &handlers(&again, true)).await.unwrap();
    assert_eq!(summary(&result), (3, 0, vec![Acked; 3]));
    service.advance(3600);
    assert!(service.consume(&group, 10).await.is_empty());
    let counters = service.counters(&group).await;
    assert_eq!((counters.consumed_messages, counters.available_messages), (5, 0));
}

#[tokio::test]
async fn a_fail_in_front_fails_the_whole_list() {
    let (service, group, batch) = delivered(3).await;
    let result = service.ack(&group, &with_statuses(&batch, &[false, true, true])).await.unwrap();
    assert_eq!(summary(&result), (0, 3, vec![Failed, AfterFailure, AfterFailure]));
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (["1", "2", "3"].map(String::from).to_vec(), vec![2; 3]));
}

#[tokio::test]
async fn a_fail_at_the_end_fails_only_itself() {
    let (service, group, batch) = delivered(3).await;
    let result = service.ack(&group, &with_statuses(&batch, &[true, true, false])).await.unwrap();
    assert_eq!(summary(&result), (2, 1, vec![Acked, Acked, Failed]));
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (vec!["3".to_owned()], vec![2]));
}

#[tokio::test]
async fn what_is_not_named_behind_a_fail_keeps_its_lease() {
    let (service, group, batch) = delivered(4).await;
    let result = service.ack(&group, &with_statuses(&batch, &[true, false])).await.unwrap();
    assert_eq!(summary(&result), (1, 1, vec![Acked, Failed]));
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (vec!["2".to_owned()], vec![2]));
    assert!(service.consume(&group, 10).await.is_empty(), "the others are leased");
    assert_eq!(service.ack(&group, &handlers(&batch[2..], true)).await.unwrap().success_count, 2);
}

#[tokio::test]
async fn a_second_fail_in_one_list_stands_behind_the_first() {
    let (service, group, batch) = delivered(3).await;
    let result = service.ack(&group, &handlers(&batch, false)).await.unwrap();
    assert_eq!(summary(&result), (0, 3, vec![Failed, AfterFailure, AfterFailure]));
    assert_eq!(attempts(&service.take(&group, 10).await), [2, 2, 2]);
}

#[tokio::test]
async fn a_status_that_is_not_given_means_success() {
    let (service, group, batch) = delivered(1).await;
    let request = pb::AckMessagesRequest {
        project_id: crate::support::service::PROJECT.into(),
        queue_id: group.queue.clone(),
        group_id: group.id.clone(),
        entries: vec![pb::AckEntry { handler: batch[0].handler.clone(), ..Default::default() }],
    };
    let answer = service.replica.messages.clone().ack_messages(request).await.unwrap().into_inner();
    assert_eq!(summary(&answer.result.unwrap()), (1, 0, vec![Acked]));
}

#[tokio::test]
async fn handlers_out_of_order_are_fine_when_all_are_good() {
    let (service, group, batch) = delivered(4).await;
    let mut shuffled = handlers(&batch, true);
    shuffled.rotate_left(1);
    shuffled.swap(0, 2);
    let result = service.ack(&group, &shuffled).await.unwrap();
    assert_eq!(summary(&result), (4, 0, vec![Acked; 4]));
    service.advance(3600);
    assert!(service.consume(&group, 10).await.is_empty());
}

#[tokio::test]
async fn the_tail_behind_an_acknowledged_prefix_keeps_its_lease_and_then_comes_again() {
    let (service, group, batch) = delivered(5).await;
    let result = service.ack(&group, &handlers(&batch[..2], true)).await.unwrap();
    assert_eq!(summary(&result), (2, 0, vec![Acked; 2]));
    service.advance(29);
    assert!(service.consume(&group, 10).await.is_empty(), "still leased");
    assert_eq!(service.counters(&group).await.available_messages, 3);
    service.advance(2);
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (["3", "4", "5"].map(String::from).to_vec(), vec![2; 3]));
    let late = service.ack(&group, &handlers(&batch[2..], true)).await.unwrap_err();
    assert_eq!(code(&late), "DMS.10542209");
}

#[tokio::test]
async fn the_tail_behind_an_acknowledged_prefix_can_be_acknowledged_until_the_lease_ends() {
    let (service, group, batch) = delivered(5).await;
    service.ack(&group, &handlers(&batch[..2], true)).await.unwrap();
    service.advance(15);
    let result = service.ack(&group, &handlers(&batch[2..3], true)).await.unwrap();
    assert_eq!(summary(&result), (1, 0, vec![Acked]));
    service.advance(14);
    let result = service.ack(&group, &handlers(&batch[3..], true)).await.unwrap();
    assert_eq!(summary(&result), (2, 0, vec![Acked; 2]));
    service.advance(3600);
    assert!(service.consume(&group, 10).await.is_empty());
    assert_eq!(service.counters(&group).await.consumed_messages, 5);
}

#[tokio::test]
async fn one_message_out_of_the_middle_can_be_acknowledged_alone() {
    let (service, group, batch) = delivered(3).await;
    service.ack(&group, &handlers(&batch[1..2], true)).await.unwrap();
    service.advance(31);
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (["1", "3"].map(String::from).to_vec(), vec![2; 2]));
}

#[tokio::test]
async fn one_list_may_name_several_batches() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    service.send(&queue, &["1", "2", "3", "4"]).await;
    let (first, second) = (service.take(&group, 2).await, service.take(&group, 2).await);
    let entries = [
        (first[0].handler.as_str(), true),
        (second[0].handler.as_str(), true),
        (first[1].handler.as_str(), false),
        (second[1].handler.as_str(), true),
    ];
    let result = service.ack(&group, &entries).await.unwrap();
    assert_eq!(summary(&result), (2, 2, vec![Acked, Acked, Failed, AfterFailure]));
    let again = service.take(&group, 10).await;
    assert_eq!((bodies(&again), attempts(&again)), (["2", "4"].map(String::from).to_vec(), vec![2; 2]));
}

#[tokio::test]
async fn a_list_may_have_a_thousand_entries() {
    let service = TestService::start().await;
    let queue = service.queue("orders").await;
    let group = service.group(&queue, "billing").await;
    let mut all = Vec::new();
    for _ in 0..100 {
        service.send(&queue, &["0"; 10]).await;
        all.extend(service.take(&group, 10).await);
    }
    assert_eq!(all.len(), 1000);
    let mut entries = handlers(&all, true);
    entries.push(entries[0]);
    assert_eq!(code(&service.ack(&group, &entries).await.unwrap_err()), "DMS.10540010");
    entries.pop();
    let result = service.ack(&group, &entries).await.unwrap();
    assert_eq!(summary(&result), (1000, 0, vec![Acked; 1000]));
    let counters = service.counters(&group).await;
    assert_eq!((counters.consumed_messages, counters.available_messages), (1000, 0));
}

#[tokio::test]
async fn an_empty_list_is_refused() {
    let (service, group, _batch) = delivered(1).await;
    assert_eq!(code(&service.ack(&group, &[]).await.unwrap_err()), "DMS.10540010");
    assert_eq!(code(&service.ack_dead_letters(&group, &[]).await.unwrap_err()), "DMS.10540010");
}

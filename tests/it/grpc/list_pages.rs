//! Pages of the lists of the gRPC API, by token.

use dms_client::v1 as pb;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::support::service::{PROJECT, TestService, code};

/// A service with five queues, of which some were created in the same instant, and two groups in the first.
async fn start() -> (TestService, Vec<String>) {
    let service = TestService::start().await;
    let mut queues = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        queues.push(service.queue(name).await);
        if name == "b" {
            service.advance(1);
        }
    }
    (service, queues)
}

async fn queues(service: &TestService, size: Option<i32>, token: &str) -> Result<(Vec<String>, String), Status> {
    let request = pb::ListQueuesRequest { project_id: PROJECT.into(), page_size: size, page_token: token.into() };
    let page = service.replica.queues.clone().list_queues(request).await?.into_inner();
    Ok((page.queues.into_iter().map(|queue| queue.id).collect(), page.next_page_token))
}

async fn groups(
    service: &TestService,
    queue: &str,
    size: Option<i32>,
    token: &str,
) -> Result<(Vec<String>, String), Status> {
    let request = pb::ListConsumerGroupsRequest {
        project_id: PROJECT.into(),
        queue_id: queue.into(),
        include_counters: true,
        page_size: size,
        page_token: token.into(),
        current_page: None,
    };
    let page = service.replica.queues.clone().list_consumer_groups(request).await?.into_inner();
    assert!(page.groups.iter().all(|group| group.counters.is_some()));
    Ok((page.groups.into_iter().map(|group| group.name).collect(), page.next_page_token))
}

async fn tags(service: &TestService, size: Option<i32>, token: &str) -> Result<(Vec<String>, String), Status> {
    let request = pb::ListProjectTagsRequest { project_id: PROJECT.into(), page_size: size, page_token: token.into() };
    let page = service.replica.tags.clone().list_project_tags(request).await?.into_inner();
    Ok((page.tags.into_iter().map(|tag| tag.key).collect(), page.next_page_token))
}

#[tokio::test]
async fn pages_of_queues_follow_each_other_though_queues_come_and_go() {
    let (service, created) = start().await;
    assert_eq!(queues(&service, None, "").await.unwrap(), (created.clone(), String::new()));
    assert_eq!(queues(&service, Some(5), "").await.unwrap(), (created.clone(), String::new()));
    let (first, token) = queues(&service, Some(2), "").await.unwrap();
    assert_eq!(first, created[..2]);
    // The page before shrinks, and the list grows.
    let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: created[0].clone() };
    service.replica.queues.clone().delete_queue(request).await.unwrap();
    let late = service.queue("f").await;
    let (second, token) = queues(&service, Some(2), &token).await.unwrap();
    assert_eq!(second, created[2..4]);
    assert_eq!(queues(&service, None, &token).await.unwrap(), (vec![created[4].clone(), late], String::new()));
}

#[tokio::test]
async fn groups_and_tags_have_pages_too() {
    let (service, created) = start().await;
    for name in ["one", "two", "three"] {
        service.group(&created[0], name).await;
    }
    let (first, token) = groups(&service, &created[0], Some(2), "").await.unwrap();
    assert_eq!(first, ["one", "two"]);
    assert_eq!(groups(&service, &created[0], Some(2), &token).await.unwrap(), (vec!["three".into()], String::new()));
    // The order is that of the letters' code points, whatever the collation of the database.
    for (queue, keys) in [(&created[0], ["b", "B"]), (&created[1], ["é", "a"])] {
        let tag = |key: &str| pb::BatchTag { key: key.into(), value: None };
        let request = pb::BatchQueueTagsRequest {
            project_id: PROJECT.into(),
            queue_id: queue.clone(),
            action: pb::TagAction::Create.into(),
            tags: keys.into_iter().map(tag).collect(),
        };
        service.replica.tags.clone().batch_queue_tags(request).await.unwrap();
    }
    let (mut keys, mut token) = tags(&service, Some(1), "").await.unwrap();
    while !token.is_empty() {
        let (more, next) = tags(&service, Some(1), &token).await.unwrap();
        assert_eq!(more.len(), 1);
        (keys, token) = ([keys, more].concat(), next);
    }
    assert_eq!(keys, ["B", "a", "b", "é"]);
}

#[tokio::test]
async fn tokens_of_another_list_and_sizes_out_of_range_are_refused_by_name() {
    let (service, created) = start().await;
    for queue in &created[..2] {
        service.group(queue, "one").await;
        service.group(queue, "two").await;
    }
    let (_, of_queues) = queues(&service, Some(1), "").await.unwrap();
    let (_, of_groups) = groups(&service, &created[0], Some(1), "").await.unwrap();
    assert!(!of_queues.is_empty() && !of_groups.is_empty());
    let request = pb::ListQueuesRequest { project_id: "other".into(), page_size: None, page_token: of_queues.clone() };
    let mut refused = vec![
        ("page_token", service.replica.queues.clone().list_queues(request).await.unwrap_err()),
        ("page_token", queues(&service, Some(1), &of_groups).await.unwrap_err()),
        ("page_token", groups(&service, &created[1], None, &of_groups).await.unwrap_err()),
        ("page_token", groups(&service, &created[0], None, &of_queues).await.unwrap_err()),
        ("page_token", tags(&service, None, &of_queues).await.unwrap_err()),
        ("page_token", queues(&service, None, &of_queues[1..]).await.unwrap_err()),
    ];
    for size in [0, -1, 1001] {
        refused.push(("page_size", queues(&service, Some(size), "").await.unwrap_err()));
        refused.push(("page_size", groups(&service, &created[0], Some(size), "").await.unwrap_err()));
        refused.push(("page_size", tags(&service, Some(size), "").await.unwrap_err()));
    }
    for (field, status) in refused {
        let expected = if field == "page_size" { "DMS.10240042" } else { "DMS.10240043" };
        assert_eq!(code(&status), expected, "{status}");
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, field, "{status}");
    }
}

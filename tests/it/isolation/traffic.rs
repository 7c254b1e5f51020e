//! What one project may ask for, and that others are not held up by one that asks for much.

use std::time::Duration;

use dms::api::TrafficLimits;
use dms::broker::Settings;
use dms_client::v1 as pb;
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::support::rest::Rest;
use crate::support::service::{PROJECT, TestService, message};

const OTHER: &str = "other";

async fn create(service: &TestService, project: &str) -> Result<String, Status> {
    let request = pb::CreateQueueRequest { project_id: project.into(), name: "queue".into(), ..Default::default() };
    Ok(service.replica.queues.clone().create_queue(request).await?.into_inner().queue.unwrap().id)
}

async fn send(service: &TestService, project: &str, queue: &str, body: &str) -> Result<(), Status> {
    let request = pb::SendMessagesRequest {
        project_id: project.into(),
        queue_id: queue.into(),
        messages: vec![message(body)],
        return_ids: false,
    };
    service.replica.messages.clone().send_messages(request).await.map(drop)
}

fn hint(status: &Status) -> Duration {
    status.get_details_retry_info().and_then(|info| info.retry_delay).expect("a hint to retry")
}

#[tokio::test]
async fn a_project_beyond_its_calls_a_second_is_told_when_to_come_back_and_others_are_not() {
    let service = TestService::limited(TrafficLimits { calls_per_second: 1, ..TrafficLimits::default() }).await;
    let queue = create(&service, PROJECT).await.unwrap();
    // The rate, and a second in advance; what passes in the meantime is at most one more.
    let mut refused = None;
    for _ in 0..5 {
        refused = refused.or(send(&service, PROJECT, &queue, "1").await.err());
    }
    let refused = refused.expect("five calls at once pass one a second");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!((Duration::from_millis(1)..=Duration::from_secs(2)).contains(&hint(&refused)), "{refused:?}");
    create(&service, OTHER).await.unwrap();
    tokio::time::sleep(hint(&refused)).await;
    send(&service, PROJECT, &queue, "1").await.unwrap();
}

#[tokio::test]
async fn bytes_a_second_count_sends_and_deliveries_and_rest_says_so_too() {
    let service = TestService::limited(TrafficLimits { bytes_per_second: 1000, ..TrafficLimits::default() }).await;
    let queue = create(&service, PROJECT).await.unwrap();
    let group = service.group(&queue, "group").await;
    let body = format!("\"{}\"", "x".repeat(3000));
    send(&service, PROJECT, &queue, &body).await.unwrap();
    let refused = send(&service, PROJECT, &queue, "1").await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(hint(&refused) > Duration::from_secs(1), "{refused:?}");
    let rest = Rest::new(&service.replica);
    let answer = rest.get("/queues").await;
    assert_eq!(answer.code(), (404, "DMS.10240407".to_owned()));
    tokio::time::sleep(hint(&refused)).await;
    assert_eq!(service.consume(&group, 1).await.len(), 1);
    let refused = send(&service, PROJECT, &queue, "1").await.unwrap_err();
    assert!(hint(&refused) > Duration::from_secs(1), "the delivery is not counted: {refused:?}");
}

#[tokio::test]
async fn a_project_that_fills_the_lanes_leaves_room_for_another() {
    let settings = Settings { append_lanes: 1, lane_calls_max: 50, pool_connections: 4, ..Settings::default() };
    let service = TestService::with(settings).await;
    let greedy = create(&service, PROJECT).await.unwrap();
    let modest = create(&service, OTHER).await.unwrap();
    // A flush takes a second for each stream in it.
    let slow =
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
                CREATE TRIGGER slow BEFORE INSERT ON segments FOR EACH ROW EXECUTE FUNCTION slow()";
    sqlx::raw_sql(slow).execute(&mut service.database.sql().await).await.unwrap();
    let mut sends = JoinSet::new();
    for _ in 0..200 {
        let (mut messages, queue_id) = (service.replica.messages.clone(), greedy.clone());
        let messages_of_one = vec![message("1")];
        let request = pb::SendMessagesRequest {
            project_id: PROJECT.into(),
            queue_id,
            messages: messages_of_one,
            return_ids: false,
        };
        sends.spawn(async move { messages.send_messages(request).await.map(drop) });
    }
    let mut refused = 0;
    while refused < 100 {
        let answer = sends.join_next().await.unwrap().unwrap();
        assert_eq!(answer.unwrap_err().code(), Code::ResourceExhausted);
        refused += 1;
    }
    let sent = send(&service, OTHER, &modest, "1").await;
    sent.expect("the other project has its share");
}

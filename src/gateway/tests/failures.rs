use std::time::Duration;

use tonic::Status;

use super::fake::Fake;
use super::{GROUP, call, get};
use crate::domain::ErrorKind;

#[tokio::test]
async fn every_row_of_the_table_reaches_the_caller() {
    for kind in ErrorKind::ALL {
        let row = kind.row();
        let reply = get(&Fake::refusing(*kind, "queue_id: 'q' is wrong", None), "/v1.0/p1/queues").await;
        assert_eq!(reply.status.as_u16(), row.http, "{kind:?}");
        assert_eq!(reply.text, format!(r#"{{"error_code":"DMS.{}","error_msg":"queue_id: 'q' is wrong"}}"#, row.code));
        assert_eq!(reply.headers.get("retry-after"), None);
        assert_eq!(reply.headers.contains_key("www-authenticate"), row.http == 401);
    }
}

#[tokio::test]
async fn fields_have_their_rest_names() {
    let cases = [
        (ErrorKind::MaxMessagesOutOfRange, "max_messages: '11' is not 1-10", "max_msgs: '11' is not 1-10"),
        (ErrorKind::WaitOutOfRange, "wait: '61s' is not 1-60 s", "time_wait: '61s' is not 1-60 s"),
        (ErrorKind::LeaseOutOfRange, "lease: '1s' is not 15-300 s", "ack_wait: '1s' is not 15-300 s"),
        (ErrorKind::LabelInvalid, "tags: '!' is not plain", "tag: '!' is not plain"),
        (ErrorKind::LabelInvalid, "messages.tags: '!' is not plain", "messages.tags: '!' is not plain"),
        (ErrorKind::TooManyTags, "tags: 11", "tags: 11"),
        (ErrorKind::RequestFormat, "messages.delay: '1' is not", "messages.delayTime: '1' is not"),
        (ErrorKind::RequestFormat, "messages[2].delay: '1' is not", "messages[2].delayTime: '1' is not"),
        (ErrorKind::AckStatusInvalid, "entries[0].status: '7' is not", "message[0].status: '7' is not"),
        (ErrorKind::RequestFormat, "entries: '0 entries' is not", "message: '0 entries' is not"),
        (ErrorKind::QueueNotFound, "no such queue", "no such queue"),
    ];
    for (kind, grpc, rest) in cases {
        assert_eq!(get(&Fake::refusing(kind, grpc, None), "/v1.0/p1/queues").await.message(), rest);
    }
}

#[tokio::test]
async fn a_retry_hint_becomes_whole_seconds() {
    for (millis, header) in [(200, "1"), (1000, "1"), (1001, "2")] {
        let hint = Some(Duration::from_millis(millis));
        let reply = get(&Fake::refusing(ErrorKind::Overloaded, "later", hint), "/v1.0/p1/queues").await;
        assert_eq!((reply.status.as_u16(), &reply.headers["retry-after"]), (404, &header.parse().unwrap()));
    }
}

#[tokio::test]
async fn a_status_of_no_service_is_an_unreachable_upstream() {
    for status in
        [Status::unavailable("connection refused"), Status::cancelled("Timeout expired"), Status::unknown("?")]
    {
        let reply = get(&Fake::failing(status), "/v1.0/p1/queues").await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (500, "DMS.10250005"));
    }
    let reply = get(&Fake::failing(Status::out_of_range("message too large")), "/v1.0/p1/queues").await;
    assert_eq!(reply.code(), "DMS.10540011");
}

#[tokio::test]
async fn an_unreadable_message_is_an_error_of_the_service() {
    let message = dms_client::v1::Message { body: "{".into(), ..Default::default() };
    let leased = dms_client::v1::LeasedMessage { message: Some(message), ..Default::default() };
    let fake = Fake::answering(dms_client::v1::ConsumeMessagesResponse { messages: vec![leased] });
    let reply = call(&fake, "GET", &format!("{GROUP}/messages"), "").await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (500, "DMS.10250004"));
}

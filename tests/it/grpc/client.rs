//! The crate `dms-client` against a service: plain calls, typed errors, tokens, TLS, deadlines.

use std::time::Duration;

use dms_client::{Client, Error, Options, v1 as pb};
use tokio::net::TcpListener;
use tonic::Code;

use crate::support::credentials::by_token;
use crate::support::service::{PROJECT, TestService, bodies, message};

fn create(name: &str) -> pb::CreateQueueRequest {
    pb::CreateQueueRequest { project_id: PROJECT.into(), name: name.into(), ..Default::default() }
}

async fn list(client: &Client) -> Result<pb::ListQueuesResponse, Error> {
    client.list_queues(pb::ListQueuesRequest { project_id: PROJECT.into(), ..Default::default() }).await
}

#[tokio::test]
async fn plain_calls_go_from_a_queue_to_an_acknowledgement() {
    let service = TestService::start().await;
    let client = Client::connect(&Options::new(service.replica.grpc())).await.unwrap();
    let queue_id = client.create_queue(create("orders")).await.unwrap().queue.unwrap().id;
    let group = service.group(&queue_id, "billing").await;
    let (project_id, messages) = (PROJECT.to_owned(), vec![message("1"), message("2")]);
    let send = pb::SendMessagesRequest { project_id, queue_id, messages, return_ids: true };
    assert_eq!(client.send_messages(send).await.unwrap().results.len(), 2);

    let leased = client.consume_messages(group.consume_request(10)).await.unwrap().messages;
    assert_eq!(bodies(&leased), ["1", "2"]);
    let status = pb::AckStatus::Success.into();
    let entries = leased.into_iter().map(|leased| pb::AckEntry { handler: leased.handler, status }).collect();
    let (project_id, queue_id, group_id) = (PROJECT.to_owned(), group.queue.clone(), group.id.clone());
    let ack = pb::AckMessagesRequest { project_id, queue_id, group_id, entries };
    assert_eq!(client.ack_messages(ack).await.unwrap().result.unwrap().success_count, 2);
    assert_eq!(service.counters(&group).await.consumed_messages, 2);
}

#[tokio::test]
async fn refusals_are_typed_as_the_error_table_has_them() {
    let service = TestService::start().await;
    let client = Client::connect(&Options::new(service.replica.grpc())).await.unwrap();
    let error = client.create_queue(create("no spaces")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some("NAME_CHARACTERS")));
    assert_eq!((error.dms_code(), error.http_status()), (Some("DMS.10240007"), Some(400)));
    assert_eq!((error.field(), error.retry_after()), (Some("name"), None));
    assert!(error.to_string().starts_with("name: 'no spaces'"), "{error}");
    assert!(error.is_refusal() && !error.is_retryable());
}

#[tokio::test]
async fn a_token_is_shown_with_every_call() {
    let service = TestService::guarded(by_token(&[("mine", &[PROJECT], &["admin"])])).await;
    let options = Options::new(service.replica.grpc());
    let known = Client::connect(&options.clone().token("mine")).await.unwrap();
    assert_eq!(list(&known).await.unwrap().queues, []);
    let stranger = Client::connect(&options.clone().token("other")).await.unwrap();
    assert_eq!(list(&stranger).await.unwrap_err().reason(), Some("TOKEN_INVALID"));
    let nobody = Client::connect(&options).await.unwrap();
    assert_eq!(list(&nobody).await.unwrap_err().reason(), Some("TOKEN_MISSING"));
}

#[tokio::test]
async fn a_service_that_is_away_or_silent_is_retryable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // It accepts nothing: the kernel does, and no answer comes.
    let silent = Client::lazy(&Options::new(&url).deadline(Duration::from_millis(100))).unwrap();
    let error = list(&silent).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, None));
    assert!(error.is_retryable() && !error.is_refusal(), "{error}");
    drop((listener, silent));
    let error = Client::connect(&Options::new(&url)).await.unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
}

/// Serves one connection after the other, each until this step of its first call.
async fn ending_connections(listener: TcpListener, step: Step) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        if step == Step::Connected {
            continue;
        }
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let Some(Ok((_request, mut answer))) = connection.accept().await else { continue };
        let _body = match step {
            Step::Connected | Step::Called => continue,
            Step::Answering => {
                let head = http::Response::builder().header("content-type", "application/grpc");
                Some(answer.send_response(head.body(()).unwrap(), false).unwrap())
            }
            Step::Refused => {
                answer.send_reset(h2::Reason::REFUSED_STREAM);
                None
            }
            Step::GoneAway => {
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                None
            }
        };
        // Writes what there is to write.
        let _ended = tokio::time::timeout(Duration::from_millis(50), connection.accept()).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    Connected,
    Called,
    Answering,
    Refused,
    GoneAway,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_connection_ends_is_retryable() {
    for step in [Step::Connected, Step::Called, Step::Answering, Step::Refused, Step::GoneAway] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::lazy(&Options::new(format!("http://{}", listener.local_addr().unwrap()))).unwrap();
        let serving = tokio::spawn(ending_connections(listener, step));
        for _ in 0..20 {
            let error = list(&client).await.unwrap_err();
            assert_eq!((error.code(), error.reason()), (Code::Unavailable, None), "{step:?} {error:?}");
            assert!(error.is_retryable(), "{step:?} {error:?}");
        }
        serving.abort();
    }
}

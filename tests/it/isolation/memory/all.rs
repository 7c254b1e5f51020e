//! All users of memory at their bounds at once.

use std::time::Duration;

use dms_client::v1 as pb;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::process::{Client, GREEDY, MIB};
use super::unread::{Unread, unfinished, with_large_head};
use super::{BUDGET, Beside, CONSUME, SEND, locked, text};

/// Connections of HTTP/1 that each caller opens: more than there are places for.
const CONNECTIONS: usize = 200;
/// Headers that stay just below what the listener takes.
const HEAD_BYTES: usize = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn all_at_once() {
    let beside = Beside::start().await;
    let grpc = beside.process.grpc.clone().unwrap();
    let rest = beside.process.rest.clone();
    let (mut unread, mut bodies, mut streams, mut waiting) = (Vec::new(), Vec::new(), Vec::new(), JoinSet::new());
    let (mut locks, mut queues) = (Vec::new(), Vec::new());
    // The cache, rounds and answers: what was sent is found in whole segments, leased, and not read.
    for token in GREEDY {
        let client = beside.process.client(token).await;
        let (queue, group) = client.queue("queue").await;
        for _ in 0..60 {
            client.send(&queue, text(500_000)).await.unwrap();
        }
        let mut connection = Unread::open(&grpc).await;
        for _ in 0..80 {
            connection.call(CONSUME, token, &client.consume(&queue, &group, 3)).await;
        }
        unread.push(connection);
        let (row, _) = client.queue("locked").await;
        client.send(&row, text(400_000)).await.unwrap();
        queues.push((client, token, client_queue(&beside, token).await, row));
    }
    // Lanes, and what is served apart from them.
    for (client, token, _, queue) in &queues {
        locks.push(locked(&beside.database, queue).await);
        for _ in 0..80 {
            let (client, queue) = (client.clone(), queue.clone());
            waiting.spawn(async move {
                let _refused = client.send(&queue, text(400_000)).await;
            });
        }
        // Requests, large and small.
        for (size, count) in [(1_400_000, 20), (60_000, 80)] {
            let mut connection = Unread::open(&grpc).await;
            let message = client.message(queue, text(size));
            for _ in 0..count {
                bodies.push(connection.begin(SEND, token, &message).await);
            }
            unread.push(connection);
        }
    }
    for peer in 2..6 {
        for _ in 0..10 {
            streams.push(unfinished(&rest, peer, "/v1.0/p/queues/q/messages", GREEDY[0], MIB).await);
        }
    }
    // Connections and calls, with headers that fill what is left for small requests.
    for (client, token, empty, _) in &queues {
        let path = format!("/v1.0/{token}/queues/{}/groups/{}/messages?time_wait=60", empty.0, empty.1);
        streams.extend(polls_with_large_heads(&rest, &path, token).await);
        wait_for(&mut waiting, &beside.process.client(token).await, &client.consume(&empty.0, &empty.1, 60));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut refused = 0;
    for _ in 0..3 {
        refused += beside.quiet.probe_patiently(&beside.queue).await;
    }
    println!("the probe was refused {refused} times with a hint, and let in");
    let held = async |name: &str| beside.process.metric(&format!("dms_memory_reserved_bytes{{use=\"{name}\"}}")).await;
    let part = async |name: &str| beside.process.metric(&format!("dms_memory_part_bytes{{use=\"{name}\"}}")).await;
    for name in ["connections", "calls", "rounds", "lanes", "small_requests", "large_requests", "answers"] {
        println!("{name}: {} of {} bytes", held(name).await, part(name).await);
    }
    for part in ["large_requests", "small_requests", "lanes", "answers"] {
        beside.process.was_refused(part).await;
    }
    assert!(held("connections").await >= part("connections").await / 4, "connections were not driven to their bound");
    beside.process.check("all at once", BUDGET);
    drop((locks, streams, unread, bodies));
    waiting.shutdown().await;
    beside.bounded("and after all have gone").await;
}

/// A queue in which there is nothing.
async fn client_queue(beside: &Beside, token: &'static str) -> (String, String) {
    beside.process.client(token).await.queue("empty").await
}

/// Connections of HTTP/1, each with a long poll whose headers are large.
async fn polls_with_large_heads(rest: &str, path: &str, token: &str) -> Vec<TcpStream> {
    let mut polls = Vec::new();
    for number in 0..CONNECTIONS {
        let peer = 20 + u8::try_from(number % 8).unwrap();
        polls.push(with_large_head(rest, peer, path, token, HEAD_BYTES).await);
    }
    polls
}

/// Long polls, which leave calls for those who send.
fn wait_for(waiting: &mut JoinSet<()>, client: &Client, request: &pb::ConsumeMessagesRequest) {
    for _ in 0..250 {
        let (client, request) = (client.clone(), client.request(request.clone()));
        waiting.spawn(async move {
            let _refused = client.messages.clone().consume_messages(request).await;
        });
    }
}

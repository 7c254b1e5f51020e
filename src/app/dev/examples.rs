//! Lines to paste: create a queue and a group, send, consume, acknowledge, delete. They need only curl (or grpcurl) and sed,
//! and can be pasted any number of times.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const REST: &str = r#"
Try it with curl:

  API=http://ADDRESS/v1.0/demo
  QUEUE=$(curl -sS $API/queues -H 'Content-Type: application/json' -d '{"name":"orders-'$(date +%s)'"}' | sed 's/.*"id":"\([^"]*\)".*/\1/')
  GROUP=$(curl -sS $API/queues/$QUEUE/groups -H 'Content-Type: application/json' -d '{"groups":[{"name":"billing"}]}' | sed 's/.*"id":"\([^"]*\)".*/\1/')
  curl -sS $API/queues/$QUEUE/messages -H 'Content-Type: application/json' -d '{"messages":[{"body":{"order":1}}]}'; echo
  MESSAGES=$(curl -sS $API/queues/$QUEUE/groups/$GROUP/messages); echo "$MESSAGES"
  HANDLER=$(echo "$MESSAGES" | sed 's/.*"handler":"\([^"]*\)".*/\1/')
  curl -sS $API/queues/$QUEUE/groups/$GROUP/ack -H 'Content-Type: application/json' -d '{"message":[{"handler":"'$HANDLER'","status":"success"}]}'; echo
  curl -sS -X DELETE $API/queues/$QUEUE
"#;

const GRPC: &str = r#"
Try it with grpcurl (bodies are bytes, so base64):

  rpc() { grpcurl -plaintext -d "$2" ADDRESS dms.v1.$1; }
  QUEUE=$(rpc QueueService/CreateQueue '{"project_id":"demo","name":"orders-'$(date +%s)'"}' | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p')
  GROUP=$(rpc QueueService/CreateConsumerGroups '{"project_id":"demo","queue_id":"'$QUEUE'","names":["billing"]}' | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p')
  rpc MessageService/SendMessages '{"project_id":"demo","queue_id":"'$QUEUE'","messages":[{"body":"'$(printf '{"order":1}' | base64)'"}]}'
  MESSAGES=$(rpc MessageService/ConsumeMessages '{"project_id":"demo","queue_id":"'$QUEUE'","group_id":"'$GROUP'"}'); echo "$MESSAGES"
  HANDLER=$(echo "$MESSAGES" | sed -n 's/.*"handler": *"\([^"]*\)".*/\1/p')
  rpc MessageService/AckMessages '{"project_id":"demo","queue_id":"'$QUEUE'","group_id":"'$GROUP'","entries":[{"handler":"'$HANDLER'"}]}'
  rpc QueueService/DeleteQueue '{"project_id":"demo","queue_id":"'$QUEUE'"}'
"#;

/// The lines for these listeners.
pub(super) fn lines(grpc: SocketAddr, rest: Option<SocketAddr>) -> String {
    let rest = rest.map(|address| REST.replace("ADDRESS", &reachable(address).to_string()));
    rest.unwrap_or_default() + &GRPC.replace("ADDRESS", &reachable(grpc).to_string())
}

/// A listener on all addresses is reached at the loopback one.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback =
            if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) };
        address.set_ip(loopback);
    }
    address
}

//! The program as a process of its own, whose memory is its own.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dms_client::v1 as pb;
use dms_client::v1::message_service_client::MessageServiceClient;
use dms_client::v1::queue_service_client::QueueServiceClient;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic_types::StatusExt as _;

use crate::support::credentials::tokens;
use crate::support::postgres::TestDatabase;

pub(crate) const MIB: usize = 1 << 20;
/// Of a project of its own, beside which the others take all they can.
pub(crate) const QUIET: &str = "quiet";
pub(crate) const GREEDY: [&str; 3] = ["greedy0", "greedy1", "greedy2"];

/// A running program; it ends with this value.
pub(crate) struct Process {
    child: Child,
    pub grpc: Option<String>,
    pub rest: String,
    admin: String,
}

fn free_port() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Each token is its project's name.
fn credentials() -> String {
    let of = |name: &'static str| (name, vec![name], vec!["admin"]);
    let entries: Vec<_> = GREEDY.into_iter().chain([QUIET]).map(of).collect();
    let entries: Vec<_> = entries.iter().map(|(token, projects, roles)| (*token, &projects[..], &roles[..])).collect();
    tokens(&entries).to_string()
}

impl Process {
    /// `dms serve` with so much memory.
    pub(crate) async fn serve(database: &TestDatabase, memory_max: usize, more: &[&str]) -> Self {
        let (grpc, rest) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
        command.args(["serve", "--log=warn", "--auth=tokens", "--queues-per-project=100000"]);
        command.args([format!("--database-url={}", database.url()), format!("--memory-max={memory_max}")]);
        command.args([format!("--grpc-addr={grpc}"), format!("--rest-addr={rest}")]).args(more);
        Self::start(command.env("DMS_AUTH_TOKENS", credentials()), Some(grpc), rest).await
    }

    /// `dms gateway` in front of a service.
    pub(crate) async fn gateway(upstream: &str, memory_max: usize) -> Self {
        let rest = free_port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_dms"));
        command.args(["gateway", "--log=warn", &format!("--upstream={upstream}")]);
        command.args([format!("--memory-max={memory_max}"), format!("--rest-addr={rest}")]);
        Self::start(&mut command, None, rest).await
    }

    async fn start(command: &mut Command, grpc: Option<String>, rest: String) -> Self {
        let admin = free_port();
        command.arg(format!("--admin-addr={admin}"));
        let child = command.stdin(Stdio::null()).spawn().unwrap();
        let (grpc, rest) = (grpc.map(|address| format!("http://{address}")), format!("http://{rest}"));
        let process = Self { child, grpc, rest, admin };
        let begun = Instant::now();
        while !reqwest::get(format!("{}/readyz", process.rest)).await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(begun.elapsed() < Duration::from_secs(60), "the program does not start");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        process
    }

    /// A metric by its name and labels.
    pub(crate) async fn metric(&self, series: &str) -> usize {
        let text = reqwest::get(format!("http://{}/metrics", self.admin)).await.unwrap().text().await.unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{series}\n{text}")).parse().unwrap()
    }

    /// That this use of memory was driven to its bound.
    pub(crate) async fn was_refused(&self, name: &str) {
        let refusals = self.metric(&format!("dms_memory_refusals_total{{use=\"{name}\"}}")).await;
        let reserved = self.metric(&format!("dms_memory_reserved_bytes{{use=\"{name}\"}}")).await;
        let part = self.metric(&format!("dms_memory_part_bytes{{use=\"{name}\"}}")).await;
        let _shown = writeln!(std::io::stderr(), "{name}: {reserved} of {part} bytes reserved, {refusals} refused");
        assert!(refusals > 0, "{name}: {reserved} of {part} bytes, nothing was refused");
    }

    fn status(&self, field: &str) -> usize {
        let path = Path::new("/proc").join(self.child.id().to_string()).join("status");
        let text = std::fs::read_to_string(path).expect("the program runs");
        let line = text.lines().find_map(|line| line.strip_prefix(field)).expect("it has memory");
        line.trim_matches([':', ' ', '\t', 'k', 'B']).parse::<usize>().unwrap() * 1024
    }

    /// The most that was ever resident, with the program's own pages.
    pub(crate) fn peak(&self) -> usize {
        self.status("VmHWM")
    }

    /// What is resident now.
    pub(crate) fn resident(&self) -> usize {
        self.status("VmRSS")
    }

    /// Says what is resident, and that it is no more than 1.3 times the budget.
    pub(crate) fn check(&self, what: &str, memory_max: usize) {
        let (now, peak) = (self.resident() as f64 / MIB as f64, self.peak() as f64 / MIB as f64);
        let bound = 1.3 * memory_max as f64 / MIB as f64;
        let _shown =
            writeln!(std::io::stderr(), "{what}: resident {now:.0} MiB, peak {peak:.0} MiB, at most {bound:.0} MiB");
        assert!(peak <= bound, "{what}: resident {now:.0} MiB, peak {peak:.0} MiB, at most {bound:.0} MiB");
    }

    pub(crate) async fn client(&self, token: &'static str) -> Client {
        let channel = Channel::from_shared(self.grpc.clone().unwrap()).unwrap().connect().await.unwrap();
        Client { queues: QueueServiceClient::new(channel.clone()), messages: MessageServiceClient::new(channel), token }
    }
}

/// Waits as long as a refusal says.
async fn patience(status: &tonic::Status, refused: usize) -> usize {
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status:?}");
    let hint = status.get_details_retry_info().and_then(|info| info.retry_delay).expect("a time to come back");
    assert!(refused < 100, "refused again and again: {status:?}");
    tokio::time::sleep(hint.min(Duration::from_secs(1))).await;
    refused + 1
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A caller with a token, in the project of that name.
#[derive(Clone)]
pub(crate) struct Client {
    pub queues: QueueServiceClient<Channel>,
    pub messages: MessageServiceClient<Channel>,
    token: &'static str,
}

impl Client {
    pub(crate) fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        let value = MetadataValue::try_from(format!("Bearer {}", self.token)).unwrap();
        request.metadata_mut().insert("authorization", value);
        request
    }

    pub(crate) async fn queue(&self, name: &str) -> (String, String) {
        let (project_id, queues) = (self.token.to_owned(), self.queues.clone());
        let new = pb::CreateQueueRequest { project_id: project_id.clone(), name: name.into(), ..Default::default() };
        let queue = queues.clone().create_queue(self.request(new)).await.unwrap().into_inner().queue.unwrap().id;
        let names = vec!["group".to_owned()];
        let new = pb::CreateConsumerGroupsRequest { project_id, queue_id: queue.clone(), names };
        let groups = queues.clone().create_consumer_groups(self.request(new)).await.unwrap().into_inner().groups;
        (queue, groups[0].id.clone())
    }

    pub(crate) fn message(&self, queue: &str, body: String) -> pb::SendMessagesRequest {
        let message = pb::NewMessage { body: body.into(), ..Default::default() };
        let (project_id, queue_id) = (self.token.to_owned(), queue.to_owned());
        pb::SendMessagesRequest { project_id, queue_id, messages: vec![message], return_ids: false }
    }

    pub(crate) async fn send(&self, queue: &str, body: String) -> Result<(), tonic::Status> {
        let request = self.request(self.message(queue, body));
        self.messages.clone().send_messages(request).await.map(drop)
    }

    pub(crate) fn consume(&self, queue: &str, group: &str, seconds: i64) -> pb::ConsumeMessagesRequest {
        let wait = Some(prost_types::Duration { seconds, nanos: 0 });
        let options = pb::ConsumeOptions { max_messages: Some(10), wait, ..Default::default() };
        let (project_id, queue_id, group_id) = (self.token.to_owned(), queue.to_owned(), group.to_owned());
        pb::ConsumeMessagesRequest { project_id, queue_id, group_id, options: Some(options), ..Default::default() }
    }

    /// The same while everything is used up: what is refused is refused with the time to come back, and is let in before long. How often it
    /// was refused.
    pub(crate) async fn probe_patiently(&self, (queue, group): &(String, String)) -> usize {
        let mut refused = 0;
        while let Err(status) = self.send(queue, "17".into()).await {
            refused = patience(&status, refused).await;
        }
        let consume =
            async || self.messages.clone().consume_messages(self.request(self.consume(queue, group, 20))).await;
        loop {
            match consume().await {
                Ok(answer) => {
                    let messages = answer.into_inner().messages;
                    assert_eq!(messages[0].message.as_ref().unwrap().body, "17");
                    return refused;
                }
                Err(status) => refused = patience(&status, refused).await,
            }
        }
    }

    /// A message goes there and comes back while the others do what they do.
    pub(crate) async fn probe(&self, (queue, group): &(String, String)) {
        self.send(queue, "17".into()).await.unwrap();
        let request = self.request(self.consume(queue, group, 20));
        let messages = self.messages.clone().consume_messages(request).await.unwrap().into_inner().messages;
        assert_eq!(messages[0].message.as_ref().unwrap().body, "17");
    }
}

//! The service under load: a running one, or a private one with a throw-away Postgres.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use tonic::transport::{Channel, Endpoint};

use crate::broker::{BrokerOptions, Settings};
use crate::config::BenchArgs;
use crate::postgres::{Cluster, ClusterOptions};
use crate::proto::v1::queue_service_client::QueueServiceClient;
use crate::proto::v1::{
    CreateConsumerGroupsRequest, CreateQueueRequest, DeleteQueueRequest, GetQueueRequest, QueueMode,
};
use crate::server::{Server, ServerOptions};
use crate::store;

/// Longer than any call of the benchmark may take.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// A queue of the load and its groups.
#[derive(Debug, Clone)]
pub struct Topic {
    /// UUID.
    pub queue_id: String,
    /// Ids of the groups, in the order of their numbers.
    pub group_ids: Vec<String>,
}

/// Where the load goes.
pub struct Site {
    /// A project of this run alone.
    pub project_id: String,
    /// Connections that the clients share.
    pub channels: Vec<Channel>,
    /// The Postgres behind it, when known.
    pub database_url: Option<String>,
    private: Option<(Server, Option<Cluster>)>,
}

impl Site {
    /// Connects to the target, or starts a private service and connects to that.
    pub async fn open(args: &BenchArgs) -> Result<Self> {
        // An empty variable is how shells and compose files say "not set".
        let database_url = args.database_url.clone().filter(|url| !url.is_empty());
        if let Some(target) = &args.target {
            return Self::connect(target, args.connections, database_url).await;
        }
        let (cluster, database_url) = match database_url {
            Some(url) => (None, url),
            None => start_cluster(args).await?,
        };
        store::migrate(&database_url).await?;
        let server = Server::start(server_options(args, &database_url)).await?;
        let target = format!("http://{}", server.grpc_addr());
        let site = Self::connect(&target, args.connections, Some(database_url)).await?;
        Ok(Self { private: Some((server, cluster)), ..site })
    }

    /// Connects to a service that runs already.
    pub async fn connect(target: &str, connections: u32, database_url: Option<String>) -> Result<Self> {
        let endpoint = Endpoint::from_shared(target.to_owned())
            .with_context(|| format!("target: '{target}' is not a URL"))?
            .connect_timeout(Duration::from_secs(5))
            .timeout(CALL_LIMIT)
            .tcp_nodelay(true);
        let mut channels = Vec::new();
        for _ in 0..connections {
            channels.push(endpoint.connect().await.with_context(|| format!("cannot reach the service at {target}"))?);
        }
        let project_id = format!("bench-{:016x}", rand::random::<u64>());
        Ok(Self { project_id, channels, database_url, private: None })
    }

    /// Makes queues with groups.
    pub async fn create_topics(&self, queues: u32, groups: u32) -> Result<Vec<Topic>> {
        let mut topics = Vec::new();
        for index in 0..queues {
            topics
                .push(self.create_topic(index, groups).await.with_context(|| format!("cannot create queue {index}"))?);
        }
        Ok(topics)
    }

    async fn create_topic(&self, index: u32, groups: u32) -> Result<Topic> {
        let mut client = self.queue_client();
        let request = CreateQueueRequest {
            project_id: self.project_id.clone(),
            name: format!("bench-{index}"),
            queue_mode: QueueMode::Normal.into(),
            ..CreateQueueRequest::default()
        };
        let created = client.create_queue(request).await?.into_inner().queue;
        let queue_id = created.context("the answer has no queue")?.id;
        let request = CreateConsumerGroupsRequest {
            project_id: self.project_id.clone(),
            queue_id: queue_id.clone(),
            names: (0..groups).map(|group| format!("group-{group}")).collect(),
        };
        let created = client.create_consumer_groups(request).await?.into_inner().groups;
        Ok(Topic { queue_id, group_ids: created.into_iter().map(|group| group.id).collect() })
    }

    /// Messages that the service says were sent to these queues.
    pub async fn count_messages(&self, topics: &[Topic]) -> Result<u64> {
        let mut client = self.queue_client();
        let mut count = 0;
        for topic in topics {
            let request = GetQueueRequest { project_id: self.project_id.clone(), queue_id: topic.queue_id.clone() };
            let queue = client.get_queue(request).await?.into_inner().queue.context("the answer has no queue")?;
            count += u64::try_from(queue.produced_messages).context("a negative counter")?;
        }
        Ok(count)
    }

    /// Deletes what [`Site::create_topics`] made.
    pub async fn delete_topics(&self, topics: &[Topic]) -> Result<()> {
        let mut client = self.queue_client();
        for topic in topics {
            let request = DeleteQueueRequest { project_id: self.project_id.clone(), queue_id: topic.queue_id.clone() };
            client.delete_queue(request).await?;
        }
        Ok(())
    }

    /// Stops the private service and its Postgres.
    pub async fn close(self) -> Result<()> {
        drop(self.channels);
        if let Some((server, cluster)) = self.private {
            server.shutdown().await;
            if let Some(cluster) = cluster {
                tokio::task::spawn_blocking(|| cluster.stop()).await??;
            }
        }
        Ok(())
    }

    /// Whether the service runs in this process.
    pub fn is_private(&self) -> bool {
        self.private.is_some()
    }

    fn queue_client(&self) -> QueueServiceClient<Channel> {
        QueueServiceClient::new(self.channels[0].clone())
    }
}

/// A throw-away Postgres, as durable as one in production, and the URL of its database.
async fn start_cluster(args: &BenchArgs) -> Result<(Option<Cluster>, String)> {
    let postgres_bin = args.postgres.postgres_bin.clone();
    let options = ClusterOptions { durable: true, postgres_bin, ..ClusterOptions::default() };
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await??;
    let url = cluster.url("postgres");
    Ok((Some(cluster), url))
}

fn server_options(args: &BenchArgs, database_url: &str) -> ServerOptions {
    let defaults = Settings::from(&args.broker);
    let settings = Settings {
        queues_per_project: defaults.queues_per_project.max(args.queues.cast_signed()),
        groups_per_queue: defaults.groups_per_queue.max(args.groups.cast_signed()),
        ..defaults
    };
    ServerOptions {
        broker: BrokerOptions { database_url: database_url.to_owned(), settings, clock: None },
        grpc_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        rest_addr: None,
        shutdown_limit: Duration::from_secs(25),
    }
}

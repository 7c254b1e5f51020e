//! Whether the hot tables can be distributed by stream: their keys, and what the service's statements read of them.
//!
//! The statements are those that a service has sent to a Postgres that logs them all; whoever adds one meets this test.

use std::collections::BTreeSet;
use std::time::Duration;

use dms::broker::Settings;
use dms::store::session::connection::{Durability, LaneConnection};
use dms::store::{Store, StoreOptions};
use dms_client::v1 as pb;
use dms_postgres::{Cluster, ClusterOptions};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tokio::task::JoinSet;

use crate::support::calls::{delayed, tagged};
use crate::support::postgres::TestDatabase;
use crate::support::prepared::statement;
use crate::support::service::{PROJECT, TestService, bodies, handlers, message};

/// Distributed by `stream_id`.
const HOT: [&str; 6] = ["streams", "segments", "subscriptions", "leases", "retries", "delayed_messages"];
/// Copied to every node: small, read by all, written when queues and groups come and go, and the only ones with foreign keys.
const REFERENCE: [&str; 3] = ["queues", "queue_tags", "consumer_groups"];
/// What makes them so, on Citus.
const SCRIPT: &str = include_str!("../../../deploy/scale/citus.sql");

/// These look at all streams, by design: the upkeep, none of them on the way of a message.
const ACROSS: [&str; 4] = [
    "SELECT stream_id, subscription_id, lease_id, expires_at FROM leases WHERE expires_at <= $1",
    "SELECT min(due_at) FROM delayed_messages",
    "SELECT stream_id FROM delayed_messages WHERE due_at <= $1 AND stream_id <> ALL",
    "WITH RECURSIVE subscription AS ( (SELECT stream_id, subscription_id, appended_at FROM retries ORDER BY",
];

/// What must have been sent, or the workload is not what it was: by whom, and a part of it.
const EXPECTED: [(&str, &str); 13] = [
    ("dms-append", "INSERT INTO delayed_messages"),
    ("dms-append", "SELECT stream_id FROM streams WHERE stream_id = ANY ($1)"),
    ("dms-claim", "FROM segments WHERE stream_id = $1 AND appended_at >= $2"),
    ("dms-claim", "UPDATE subscriptions SET label_tags"),
    ("dms-settle", "INSERT INTO retries"),
    ("dms-settle", "UPDATE subscriptions SET skipped"),
    ("dms", "INSERT INTO streams"),
    ("dms", "INSERT INTO subscriptions"),
    ("dms", "WITH due AS"),
    ("dms", "WITH subscription AS"),
    ("dms", "FROM queues AS q JOIN streams AS s"),
    ("dms", "FROM subscriptions WHERE stream_id = ANY ($1)"),
    ("dms", "DELETE FROM streams WHERE stream_id = ANY ($1)"),
];

/// The same by name.
const EXPECTED_BY_NAME: [(&str, &str); 19] = [
    ("dms-append", "segments::APPEND"),
    ("dms-append", "segments::APPEND_AT"),
    ("dms-append", "segments::APPEND_ONE_AT"),
    ("dms-claim", "claims::CLAIM"),
    ("dms-claim", "claims::CLAIM_ONE"),
    ("dms-claim", "claims::CLAIM_ONE_FIFO"),
    ("dms-claim", "retries::READ"),
    ("dms-claim", "held_segments::READ_HOLDING"),
    ("dms-claim", "state::READ_STATES"),
    ("dms-settle", "held_segments::READ_HOLDING"),
    ("dms-settle", "leases::DELETE_WHOLE"),
    ("dms-settle", "leases::LOCK"),
    ("dms-settle", "leases::DELETE"),
    ("dms-settle", "leases::SHRINK"),
    ("dms-settle", "subscriptions::LOCK"),
    ("dms", "deletion::PURGE_LEASES_OF_SUBSCRIPTION"),
    ("dms", "deletion::PURGE_RETRIES_OF_SUBSCRIPTION"),
    ("dms", "deletion::PURGE_LEASES"),
    ("dms", "deletion::PURGE_DELAYED"),
];

/// Rows of many other streams, so that the planner has a choice to make.
const FILL: &str = "
    INSERT INTO streams SELECT s, 1, now(), gen_random_uuid(), 'normal' FROM generate_series(1000001, 1004000) AS s;
    INSERT INTO segments SELECT s, 0, now(), 1, 0, '' FROM generate_series(1000001, 1004000) AS s;
    INSERT INTO subscriptions (stream_id, subscription_id, cursor_offset, cursor_time)
        SELECT s, s, 0, now() FROM generate_series(1000001, 1004000) AS s;
    INSERT INTO leases (stream_id, subscription_id, lease_id, expires_at, offsets, attempts, appended_ats)
        SELECT s, s, gen_random_uuid(), 'infinity', '{0}', '{1}', '{now}' FROM generate_series(1000001, 1004000) AS s;
    INSERT INTO retries (stream_id, subscription_id, message_offset, attempts, appended_at)
        SELECT s, s, 0, 1, now() FROM generate_series(1000001, 1004000) AS s;
    INSERT INTO delayed_messages (stream_id, due_at, record)
        SELECT s, now() + interval '6 days', '' FROM generate_series(1000001, 1004000) AS s;
    ANALYZE streams, segments, subscriptions, leases, retries, delayed_messages";

#[tokio::test]
async fn every_key_of_a_hot_table_begins_with_its_stream() {
    let service = TestService::start().await;
    let mut sql = service.sql().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class
         WHERE relnamespace = 'dms'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
           AND relname <> 'dms_migrations'",
    )
    .fetch_all(&mut sql)
    .await
    .unwrap();
    let tables: BTreeSet<&str> = tables.iter().map(String::as_str).collect();
    assert_eq!(
        tables,
        HOT.into_iter().chain(REFERENCE).collect::<BTreeSet<_>>(),
        "each table is either hot or a reference table"
    );

    // The partitions of segments too.
    let keys: Vec<(String, String, String, bool)> = sqlx::query_as(
        "SELECT c.relname::text, i.relname::text, format('%s %s', a.attname, a.atttypid::regtype), x.indisprimary
         FROM pg_index AS x
         JOIN pg_class AS c ON c.oid = x.indrelid
         JOIN pg_class AS i ON i.oid = x.indexrelid
         JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]
         LEFT JOIN pg_inherits AS p ON p.inhrelid = c.oid
         WHERE x.indisunique AND coalesce(p.inhparent, c.oid) = ANY ($1::text[]::regclass[]::oid[])",
    )
    .bind(HOT.as_slice())
    .fetch_all(&mut sql)
    .await
    .unwrap();
    for (table, index, first, _) in &keys {
        assert_eq!(first, "stream_id bigint", "{index} of {table}");
    }
    let primary: BTreeSet<&str> =
        keys.iter().filter(|(.., primary)| *primary).map(|(table, ..)| table.as_str()).collect();
    assert!(HOT.iter().all(|table| primary.contains(table)), "{primary:?}");
    assert!(primary.iter().any(|table| table.starts_with("segments_d")), "{primary:?}");

    let ties: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s of %s', conname, conrelid::regclass) FROM pg_constraint
         WHERE contype = 'f' AND (conrelid = ANY ($1::text[]::regclass[]::oid[]) OR confrelid = ANY ($1::text[]::regclass[]::oid[]))
         UNION ALL
         SELECT format('%s of %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE tgrelid = ANY ($1::text[]::regclass[]::oid[])",
    )
    .bind(HOT.as_slice())
    .fetch_all(&mut sql)
    .await
    .unwrap();
    assert!(ties.is_empty(), "foreign keys and triggers tie rows of different nodes: {ties:?}");
}

#[test]
fn the_script_distributes_every_table() {
    for table in HOT {
        assert!(SCRIPT.contains(&format!("SELECT create_distributed_table('{table}', 'stream_id'")), "{table}");
    }
    for table in REFERENCE {
        assert!(SCRIPT.contains(&format!("SELECT create_reference_table('{table}')")), "{table}");
    }
}

#[tokio::test]
async fn every_statement_reads_the_streams_it_names_and_no_other() {
    let cluster = logging_cluster().await;
    let settings = Settings {
        append_lanes: 1,
        claim_lanes: 1,
        settle_lanes: 1,
        pool_connections: 4,
        // What is delivered is read from the log.
        cache_bytes: 0,
        sweep_interval: Duration::from_millis(100),
        ..Settings::default()
    };
    let service = TestService::on_with(TestDatabase::create_on(&cluster).await, settings).await;
    use_everything(&service).await;
    send_to_many_at_once(&service, &cluster).await;
    let sent = statements(&cluster.log());
    for (who, part) in EXPECTED {
        assert!(sent.iter().any(|(by, sql)| by == who && sql.contains(part)), "{who} has not sent {part}");
    }
    for (who, name) in EXPECTED_BY_NAME {
        let sql = in_one_line(statement(name).text);
        assert!(sent.contains(&(who.to_owned(), sql)), "{who} has not sent {name}");
    }

    service.sql().await.execute(FILL).await.unwrap();
    let mut lane = lane(service.database.url());
    let conn = lane.open().await.unwrap();
    let (mut across, mut looked_up) = (BTreeSet::new(), BTreeSet::new());
    for sql in sent.iter().map(|(_, sql)| sql).collect::<BTreeSet<_>>() {
        let plan = plan(conn, sql).await;
        let scans = scans(&plan);
        if scans.iter().any(|scan| !scan.by_stream) {
            let known = ACROSS.iter().find(|known| sql.starts_with(**known));
            across.insert(*known.unwrap_or_else(|| panic!("looks at all streams:\n{sql}\n{}", plan.join("\n"))));
        }
        looked_up.extend(scans.into_iter().filter(|scan| scan.by_stream).map(|scan| scan.table));
    }
    assert_eq!(across, BTreeSet::from(ACROSS), "these look at all streams");
    assert_eq!(looked_up, BTreeSet::from(HOT.map(str::to_owned)), "tables whose plans were seen");
    lane.close().await;
}

/// A server of its own that logs every statement, with who sent it.
async fn logging_cluster() -> Cluster {
    let settings = [
        ("log_statement", "all"),
        ("log_line_prefix", "@%a@"),
        ("log_parameter_max_length", "0"),
        ("log_parameter_max_length_on_error", "0"),
    ];
    let options = ClusterOptions {
        settings: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
        ..ClusterOptions::default()
    };
    tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap()
}

/// Everything that a message can go through, and the life of queues and groups.
async fn use_everything(service: &TestService) {
    let queue = service.redrive_queue("queue", pb::QueueMode::Normal, 2).await;
    let group = service.group(&queue, "group").await;
    let messages = ["1", "2", "3"].map(|body| tagged(body, &["a"])).to_vec();
    service.send_messages(&queue, messages).await.unwrap();
    // Bound to a rule; one is acknowledged, one fails, and with it the one behind it.
    let request = group.labelled_request(&["a"], pb::TagMatch::Any);
    let batch = group.waiting_at(&service.replica, request.clone()).await.unwrap().unwrap();
    assert_eq!(bodies(&batch), ["1", "2", "3"]);
    service.ack(&group, &handlers(&batch[..1], true)).await.unwrap();
    service.ack(&group, &handlers(&batch[1..], false)).await.unwrap();
    // They fail again, and are dead letters.
    let batch = group.waiting_at(&service.replica, request.clone()).await.unwrap().unwrap();
    assert_eq!(bodies(&batch), ["2", "3"]);
    service.ack(&group, &handlers(&batch, false)).await.unwrap();
    let dead = service.receive_dead_letters(&group, 10).await;
    assert_eq!(bodies(&dead), ["2", "3"]);
    service.ack_dead_letters(&group, &handlers(&dead, true)).await.unwrap();

    // A delay ends, and then a lease.
    service.send_messages(&queue, vec![pb::NewMessage { tags: vec!["a".into()], ..delayed("4", 1000) }]).await.unwrap();
    service.advance(2);
    let batch = group.waiting_at(&service.replica, request.clone()).await.unwrap().unwrap();
    assert_eq!(bodies(&batch), ["4"]);
    service.advance(301);
    let batch = group.waiting_at(&service.replica, request).await.unwrap().unwrap();
    assert_eq!(bodies(&batch), ["4"]);
    service.ack(&group, &handlers(&batch, true)).await.unwrap();

    let fifo = service.redrive_queue("fifo", pb::QueueMode::Fifo, 1).await;
    let reader = service.group(&fifo, "group").await;
    service.send(&fifo, &["1"]).await;
    service.send(&fifo, &["2"]).await;
    let batch = service.receive(&reader, 1).await;
    service.ack(&reader, &handlers(&batch, true)).await.unwrap();
    let batch = service.receive(&reader, 1).await;
    service.ack(&reader, &handlers(&batch, true)).await.unwrap();

    assert_eq!(service.counts(&group).await, [4, 2, 0, 2, 0]);
    service.show_queue(&queue).await;
    service.enforce_retention().await;
    service.delete_group(&reader).await.unwrap();
    let request = pb::DeleteQueueRequest { project_id: PROJECT.into(), queue_id: queue };
    service.replica.queues.clone().delete_queue(request).await.unwrap();
}

/// Sends to many queues at once until a flush has had several streams whose row locations are known: what arrives during a flush is the
/// next one.
async fn send_to_many_at_once(service: &TestService, cluster: &Cluster) {
    let mut queues = Vec::new();
    for number in 0..8 {
        queues.push(service.queue(&format!("many-{number}")).await);
    }
    let wanted = ("dms-append".to_owned(), in_one_line(statement("segments::APPEND_AT").text));
    for _ in 0..100 {
        let mut sends = JoinSet::new();
        for queue in &queues {
            let mut client = service.replica.messages.clone();
            let request = pb::SendMessagesRequest {
                project_id: PROJECT.into(),
                queue_id: queue.clone(),
                messages: vec![message("1")],
                return_ids: false,
            };
            sends.spawn(async move { client.send_messages(request).await.map(drop) });
        }
        while let Some(sent) = sends.join_next().await {
            sent.unwrap().unwrap();
        }
        if statements(&cluster.log()).contains(&wanted) {
            return;
        }
    }
    panic!("no flush of several streams");
}

/// The statements that read or write hot tables, each in one line, with the names of those who sent them.
fn statements(log: &str) -> BTreeSet<(String, String)> {
    let mut sent: Vec<(String, String)> = Vec::new();
    let mut goes_on = false;
    for line in log.lines() {
        if let Some(said) = line.strip_prefix('@') {
            let statement = said.split_once('@').and_then(|(who, text)| {
                let (_, sql) = text.strip_prefix("LOG:  execute ")?.split_once(": ")?;
                Some((who.to_owned(), sql.to_owned()))
            });
            goes_on = statement.is_some();
            sent.extend(statement);
        } else if let Some((_, sql)) = sent.last_mut().filter(|_| goes_on) {
            sql.push('\n');
            sql.push_str(line);
        }
    }
    let sent = sent.into_iter().map(|(who, sql)| (who, in_one_line(&sql)));
    sent.filter(|(who, sql)| who.starts_with("dms") && is_of_hot_tables(sql)).collect()
}

fn in_one_line(sql: &str) -> String {
    sql.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Questions about Postgres itself, and partitions that come and go, are no matter of streams.
fn is_of_hot_tables(sql: &str) -> bool {
    let planned = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "].iter().any(|verb| sql.starts_with(verb));
    let mut words = sql.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    planned && !sql.contains(" pg_") && words.any(|word| HOT.contains(&word))
}

fn lane(url: &str) -> LaneConnection {
    let statement_timeout = Duration::from_secs(15);
    let options = StoreOptions { database: url.into(), pool_connections: 1, statement_timeout };
    LaneConnection::new(&Store::new(&options).unwrap(), "test-lane", Durability::Synchronous)
}

/// The plan that a lane's connection has for a statement.
async fn plan(conn: &mut PgConnection, sql: &str) -> Vec<String> {
    conn.execute(AssertSqlSafe(format!("PREPARE looked_at AS {sql}"))).await.unwrap();
    let types: Vec<String> =
        sqlx::query_scalar("SELECT parameter_types::text[] FROM pg_prepared_statements WHERE name = 'looked_at'")
            .fetch_one(&mut *conn)
            .await
            .unwrap();
    let values: Vec<&str> = types.iter().map(|name| some_value(name)).collect();
    let values = if values.is_empty() { String::new() } else { format!("({})", values.join(", ")) };
    let explain = AssertSqlSafe(format!("EXPLAIN (COSTS OFF) EXECUTE looked_at {values}"));
    let plan = sqlx::query_scalar(explain).persistent(false).fetch_all(&mut *conn).await.unwrap();
    conn.execute("DEALLOCATE looked_at").await.unwrap();
    plan
}

/// Partitions that a time of NULL rules out would not be in the plan.
fn some_value(type_name: &str) -> &'static str {
    match type_name {
        "bigint" | "integer" | "smallint" => "1",
        "timestamp with time zone" => "now()",
        "boolean" => "true",
        "uuid" => "gen_random_uuid()",
        "tid" => "'(0,1)'",
        name if name.ends_with("[]") => "'{}'",
        _ => "NULL",
    }
}

/// One step of a plan that reads a hot table.
struct Scan {
    /// Partitions have the name of the whole.
    table: String,
    /// Whether it reads rows of streams that the statement names, and no others.
    by_stream: bool,
}

fn scans(plan: &[String]) -> Vec<Scan> {
    let scan = |(index, line): (usize, &String)| {
        let (step, rest) = line.split_once(" on ").filter(|(step, _)| step.contains("Scan"))?;
        let name = rest.split_whitespace().next()?;
        let table = if name.starts_with("segments_d") { "segments" } else { name };
        let details = plan[index + 1..].iter().map(|line| line.trim_start());
        let mut details = details.take_while(|line| !line.starts_with("->") && line.contains(": "));
        let by_stream = details.any(|detail| is_of_named_streams(step, detail));
        HOT.contains(&table).then(|| Scan { table: table.to_owned(), by_stream })
    };
    plan.iter().enumerate().filter_map(scan).collect()
}

/// By key; or by a location that is compared with the key; or by a location that a look-up by key in the same statement has found.
fn is_of_named_streams(step: &str, detail: &str) -> bool {
    if step.contains("Tid Scan") {
        let compared = detail.starts_with("Filter: ") && detail.contains("(stream_id + 0)");
        let found = ["TID Cond: (ctid = found.location)", "TID Cond: (ctid = f.ctid)"].contains(&detail);
        return compared || found || detail.starts_with("TID Cond: (ctid = ANY (");
    }
    let condition = detail.strip_prefix("Index Cond: ");
    condition.is_some_and(|condition| condition.trim_start_matches('(').starts_with("stream_id = "))
}

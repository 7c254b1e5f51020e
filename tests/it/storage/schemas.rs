//! The schema of an installation: beside an application, beside another installation, and moved there from an earlier version.

use std::process::Command;

use dms::broker::Settings;
use dms::store::{self, Database};
use dms_client::v1 as pb;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

use crate::support::calls::eventually;
use crate::support::postgres::TestDatabase;
use crate::support::service::{PROJECT, Replica, TestService, bodies, message};

/// What an application may have in `public`, which is none of our business.
const APPLICATION: &str = "
CREATE TABLE public._sqlx_migrations (
    version bigint PRIMARY KEY, description text NOT NULL, installed_on timestamptz NOT NULL DEFAULT now(),
    success boolean NOT NULL, checksum bytea NOT NULL, execution_time bigint NOT NULL);
INSERT INTO public._sqlx_migrations (version, description, success, checksum, execution_time)
VALUES (1, 'create shop', true, '\\x01', 0), (2, 'of the shop', true, '\\x02', 0);
CREATE TABLE public.queues (shop text);
INSERT INTO public.queues VALUES ('till');
CREATE TABLE public.messages (text text);
CREATE TABLE public.segments (base_offset bigint);
CREATE SEQUENCE public.stream_ids START 77";

/// What an installation of a version without a schema of its own looks like.
const AS_BEFORE: &str = "ALTER TABLE public.dms_migrations RENAME TO _sqlx_migrations;
                         ALTER INDEX public.dms_migrations_pkey RENAME TO _sqlx_migrations_pkey";

async fn run(sql: &mut PgConnection, statement: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(statement.into())).execute(sql).await.unwrap();
}

async fn texts(sql: &mut PgConnection, query: &'static str) -> Vec<String> {
    sqlx::query_scalar(query).fetch_all(sql).await.unwrap()
}

/// Everything in `public`, and what the application has noted there.
async fn public(sql: &mut PgConnection) -> Vec<String> {
    let relations = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1";
    texts(sql, relations).await
}

async fn refused(database: impl Into<Database>) -> String {
    store::migrate(database).await.unwrap_err().to_string()
}

/// A queue with a group, through a replica.
async fn queue_and_group(replica: &Replica) -> (String, String) {
    let request = pb::CreateQueueRequest { project_id: PROJECT.into(), name: "queue".into(), ..Default::default() };
    let queue = replica.queues.clone().create_queue(request).await.unwrap().into_inner().queue.unwrap().id;
    let request = pb::CreateConsumerGroupsRequest {
        project_id: PROJECT.into(),
        queue_id: queue.clone(),
        names: vec!["group".into()],
    };
    let groups = replica.queues.clone().create_consumer_groups(request).await.unwrap().into_inner().groups;
    (queue, groups[0].id.clone())
}

async fn send(replica: &Replica, queue: &str, body: &str) {
    let request = pb::SendMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: queue.into(),
        messages: vec![message(body)],
        return_ids: false,
    };
    replica.messages.clone().send_messages(request).await.unwrap();
}

async fn consume(replica: &Replica, queue: &str, group: &str) -> Vec<String> {
    let options = pb::ConsumeOptions {
        max_messages: Some(10),
        wait: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
        ..Default::default()
    };
    let request = pb::ConsumeMessagesRequest {
        project_id: PROJECT.into(),
        queue_id: queue.into(),
        group_id: group.into(),
        options: Some(options),
        ..Default::default()
    };
    bodies(&replica.messages.clone().consume_messages(request).await.unwrap().into_inner().messages)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_in_public_is_left_alone_whatever_it_has_there() {
    let database = TestDatabase::empty().await;
    let mut sql = database.sql().await;
    run(&mut sql, APPLICATION).await;
    // What the role finds by itself is not gone by.
    run(
        &mut sql,
        "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public', current_database()); END $$",
    )
    .await;
    let before = public(&mut sql).await;
    let migrated = store::migrate(database.url()).await.unwrap();
    assert_eq!((migrated.schema.as_str(), migrated.moved_from), ("dms", None));
    assert_eq!(migrated.applied.last(), Some(&migrated.version));
    let again = store::migrate(database.url()).await.unwrap();
    assert_eq!(again.to_string(), format!("schema dms is at version {}: nothing to apply", migrated.version));
    let service = TestService::on(database).await;
    let queue = service.queue("queue").await;
    let group = service.group(&queue, "group").await;
    service.send(&queue, &["1"]).await;
    assert_eq!(bodies(&service.take(&group, 1).await), ["1"]);
    assert_eq!(public(&mut sql).await, before);
    assert_eq!(texts(&mut sql, "SELECT shop FROM public.queues").await, ["till"]);
    let noted = "SELECT version || ' ' || description FROM public._sqlx_migrations ORDER BY version";
    assert_eq!(texts(&mut sql, noted).await, ["1 create shop", "2 of the shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_of_an_earlier_version_is_moved_with_its_data_once_nobody_uses_it() {
    let database = TestDatabase::empty().await;
    let mut sql = database.sql().await;
    store::migrate(database.in_schema("public")).await.unwrap();
    run(&mut sql, AS_BEFORE).await;
    // An application whose versions happen to fit between ours.
    run(&mut sql, "INSERT INTO public._sqlx_migrations SELECT 20260101, 'of the shop', now(), true, '\\x02', 0").await;
    run(&mut sql, "CREATE TABLE public.orders (id bigint)").await;
    // A replica of this version in `public` finds what the one before has left there, and takes the record over.
    store::migrate(database.in_schema("public")).await.unwrap();
    run(&mut sql, "DROP TABLE public.dms_migrations").await;
    let settings = || Settings { pool_connections: 2, ..Settings::default() };
    store::migrate(database.in_schema("public")).await.unwrap();
    let earlier = Replica::start(database.in_schema("public"), settings(), None).await;
    let (queue, group) = queue_and_group(&earlier).await;
    send(&earlier, &queue, "1").await;
    run(&mut sql, "DROP TABLE public.dms_migrations").await;

    let told = refused(database.url()).await;
    assert!(told.contains("stop all replicas") && told.contains("--schema public"), "{told}");
    earlier.shutdown().await;
    let mut migrated = store::migrate(database.url()).await;
    // The session of the one that led may end a moment later.
    eventually("nobody uses the tables", async || {
        if migrated.is_err() {
            migrated = store::migrate(database.url()).await;
        }
        migrated.is_ok()
    })
    .await;
    let migrated = migrated.unwrap();
    assert_eq!(migrated.moved_from.as_ref().map(|schema| schema.as_str()), Some("public"));
    assert!(migrated.to_string().starts_with("moved the tables and what is in them from the schema public to dms"));

    let later = Replica::start(database.url(), settings(), None).await;
    assert_eq!(consume(&later, &queue, &group).await, ["1"]);
    send(&later, &queue, "2").await;
    assert_eq!(consume(&later, &queue, &group).await, ["2"]);
    later.shutdown().await;
    assert_eq!(public(&mut sql).await, ["_sqlx_migrations", "_sqlx_migrations_pkey", "orders"]);
    let noted = "SELECT description FROM public._sqlx_migrations";
    assert_eq!(texts(&mut sql, noted).await, ["of the shop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_moved_when_it_is_not_clear_what_is_ours() {
    let database = TestDatabase::empty().await;
    let mut sql = database.sql().await;
    store::migrate(database.in_schema("public")).await.unwrap();
    run(&mut sql, AS_BEFORE).await;
    let before = public(&mut sql).await;
    // Somebody has moved a table by hand, and the application has made one of the same name.
    for (change, undo, part) in [
        (
            "ALTER TABLE public.queue_tags RENAME TO away",
            "ALTER TABLE public.away RENAME TO queue_tags",
            "lacks the table queue_tags",
        ),
        (
            "ALTER TABLE public.leases RENAME COLUMN appended_ats TO a",
            "ALTER TABLE public.leases RENAME COLUMN a TO appended_ats",
            "the table leases with a column appended_ats",
        ),
        (
            "UPDATE public._sqlx_migrations SET description = '?' WHERE version = 2",
            "UPDATE public._sqlx_migrations SET description = 'drop checks of busy tables' WHERE version = 2",
            "the record of migration 2",
        ),
        (
            "UPDATE public._sqlx_migrations SET success = false WHERE version = 3",
            "UPDATE public._sqlx_migrations SET success = true WHERE version = 3",
            "migration 3 of dms has stopped half way",
        ),
        (
            "CREATE SCHEMA dms; CREATE TABLE dms.queues (shop text)",
            "DROP SCHEMA dms CASCADE",
            "tables of somebody else where those of dms would go (queues)",
        ),
    ] {
        run(&mut sql, change).await;
        let told = refused(database.url()).await;
        assert!(told.contains(part), "{change}: {told}");
        run(&mut sql, undo).await;
        assert_eq!(public(&mut sql).await, before, "{change}");
    }
    assert!(store::migrate(database.url()).await.unwrap().moved_from.is_some(), "it is clear now");
    let source = "elsewhere".parse().unwrap();
    let told = store::schema::migrate_from(database.in_schema("other"), Some(&source)).await.unwrap_err().to_string();
    assert!(told.contains("--from elsewhere: there is no installation"), "{told}");
    let source = "dms".parse().unwrap();
    let moved = store::schema::migrate_from(database.in_schema("other"), Some(&source)).await.unwrap();
    assert_eq!(
        moved.to_string().lines().next(),
        Some("moved the tables and what is in them from the schema dms to other")
    );
    // Whatever the migrations make from now on has to go along.
    let left = "SELECT relname::text FROM pg_class WHERE relnamespace = 'dms'::regnamespace
                UNION ALL SELECT proname::text FROM pg_proc WHERE pronamespace = 'dms'::regnamespace
                UNION ALL SELECT typname::text FROM pg_type WHERE typnamespace = 'dms'::regnamespace";
    assert_eq!(texts(&mut sql, left).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_installations_in_one_database_know_nothing_of_each_other() {
    let database = TestDatabase::empty().await;
    let mut sql = database.sql().await;
    let mut replicas = Vec::new();
    for schema in ["one", "two", "public"] {
        store::migrate(database.in_schema(schema)).await.unwrap();
        let settings = Settings { pool_connections: 2, ..Settings::default() };
        replicas.push(Replica::start(database.in_schema(schema), settings, None).await);
    }
    let mut known = Vec::new();
    for replica in &replicas {
        known.push(queue_and_group(replica).await);
    }
    for (number, (replica, (queue, _))) in replicas.iter().zip(&known).enumerate() {
        send(replica, queue, &number.to_string()).await;
    }
    for (number, (replica, (queue, group))) in replicas.iter().zip(&known).enumerate() {
        assert_eq!(consume(replica, queue, group).await, [number.to_string()]);
        assert_eq!(consume_nothing_of(replica, &known[(number + 1) % 3].0).await, tonic::Code::NotFound);
    }
    // Each has a leader of its own, and a channel of its own.
    let leaders = "SELECT DISTINCT objid::text FROM pg_locks JOIN pg_stat_activity USING (pid)
                   WHERE locktype = 'advisory' AND application_name = 'dms-leader' AND datname = current_database()";
    eventually("each has a leader", async || texts(&mut sql, leaders).await.len() == 3).await;
    let listening = "SELECT DISTINCT query FROM pg_stat_activity WHERE application_name = 'dms-listen' AND datname = current_database()";
    let mut channels = texts(&mut sql, listening).await;
    channels.sort();
    assert_eq!(channels, [r#"LISTEN "dms""#, r#"LISTEN "dms_one""#, r#"LISTEN "dms_two""#]);
    // What one holds while it creates a queue holds nobody else up.
    let lock = "BEGIN; SET LOCAL search_path TO one;
                SELECT pg_advisory_xact_lock(hashtextextended('fdc60cfe407a4b2a96a498efda55c785', 'one.segments'::regclass::oid::bigint))";
    run(&mut sql, lock).await;
    let request = pb::CreateQueueRequest { project_id: PROJECT.into(), name: "another".into(), ..Default::default() };
    replicas[1].queues.clone().create_queue(request.clone()).await.unwrap();
    assert!(replicas[0].queues.clone().create_queue(request).await.is_err(), "the lock is the one that is taken");
    run(&mut sql, "ROLLBACK").await;
    for replica in replicas {
        replica.shutdown().await;
    }
}

async fn consume_nothing_of(replica: &Replica, queue: &str) -> tonic::Code {
    let request = pb::GetQueueRequest { project_id: PROJECT.into(), queue_id: queue.into() };
    replica.queues.clone().get_queue(request).await.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_make_schemas_is_told_what_an_operator_has_to_do() {
    let database = TestDatabase::empty().await;
    let mut sql = database.sql().await;
    let role = format!("plain_{}", uuid::Uuid::new_v4().simple());
    run(&mut sql, format!("CREATE ROLE {role} LOGIN PASSWORD 'plain'")).await;
    let url = format!("{}&user={role}&password=plain", database.url());
    let told = refused(&url).await;
    let advice = format!("CREATE SCHEMA dms AUTHORIZATION {role}");
    assert!(told.contains(&advice), "{told}");
    run(&mut sql, advice).await;
    store::migrate(&url).await.unwrap();
    // One that may not even look is not told that there is nothing.
    let stranger = format!("stranger_{}", uuid::Uuid::new_v4().simple());
    run(&mut sql, format!("CREATE ROLE {stranger} LOGIN PASSWORD 'plain'")).await;
    let options = dms::broker::BrokerOptions {
        database: format!("{}&user={stranger}&password=plain", database.url()).into(),
        settings: Settings::default(),
        clock: None,
    };
    let told = dms::broker::Broker::start(options).await.unwrap_err().to_string();
    assert!(told.contains("may not use the schema dms: GRANT USAGE"), "{told}");
    run(&mut sql, format!("DROP OWNED BY {role}; DROP ROLE {role}; DROP ROLE {stranger}")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_name_is_refused_with_the_setting_and_the_allowed_form() {
    for name in ["", "Dms", "pg_dms", "a b", &"a".repeat(49)] {
        for command in ["migrate", "serve", "doctor"] {
            let mut program = Command::new(env!("CARGO_BIN_EXE_dms"));
            program.args([command, "--database-url=postgres://127.0.0.1:1/none"]).env("DMS_SCHEMA", name);
            let output = tokio::task::spawn_blocking(move || program.output().unwrap()).await.unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(!output.status.success(), "{name}");
            assert!(text.contains("--schema") && text.contains("1 to 48 lower-case letters"), "{name}: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_tables_are_still_in_public_says_what_to_do() {
    let database = TestDatabase::empty().await;
    store::migrate(database.in_schema("public")).await.unwrap();
    database.sql().await.execute(AS_BEFORE).await.unwrap();
    let options =
        dms::broker::BrokerOptions { database: database.url().into(), settings: Settings::default(), clock: None };
    let told = dms::broker::Broker::start(options).await.unwrap_err().to_string();
    assert!(told.contains("run `dms migrate`, which moves them") && told.contains("DMS_SCHEMA"), "{told}");
}

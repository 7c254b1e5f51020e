//! A database of its own for each test, cloned from a template that is migrated once.
//!
//! The server is a throw-away one, shared by all tests of the process and gone with it. `DMS_TEST_DATABASE_URL` names another
//! server to use; each test then migrates its own database.

use std::thread;

use dms::store::{self, Database};
use dms_postgres::{Cluster, ClusterOptions};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

const TEMPLATE: &str = "template_dms";
/// Every test starts services with their own connections.
const CONNECTIONS_MAX: &str = "500";

static SERVER: OnceCell<TestServer> = OnceCell::const_new();

/// Never dropped: when the process ends, however it ends, the cluster's pipe closes and its folder is removed.
enum TestServer {
    Private(Cluster),
    Given(String),
}

impl TestServer {
    async fn start() -> Self {
        if let Ok(url) = std::env::var("DMS_TEST_DATABASE_URL") {
            return Self::Given(url);
        }
        let settings = vec![("max_connections".to_owned(), CONNECTIONS_MAX.to_owned())];
        let options = ClusterOptions {
            settings,
            postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
            ..ClusterOptions::default()
        };
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap();
        let template = cluster.url(TEMPLATE);
        store::schema::database::create_if_absent(&template).await.unwrap();
        store::migrate(&template).await.unwrap();
        Self::Private(cluster)
    }

    fn url(&self, database: &str) -> String {
        match self {
            Self::Private(cluster) => cluster.url(database),
            Self::Given(url) => with_database(url, database),
        }
    }

    async fn create(&self, name: &str) {
        let url = self.url(name);
        match self {
            Self::Private(_) => store::schema::database::create_from_template(&url, name, TEMPLATE).await.unwrap(),
            Self::Given(_) => {
                store::schema::database::create_if_absent(&url).await.unwrap();
                store::migrate(&url).await.unwrap();
            }
        }
    }
}

/// A migrated, empty database, dropped with this value.
pub(crate) struct TestDatabase {
    name: String,
    url: String,
}

impl TestDatabase {
    /// Makes it.
    pub(crate) async fn create() -> Self {
        let server = SERVER.get_or_init(TestServer::start).await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        server.create(&name).await;
        Self { url: server.url(&name), name }
    }

    /// Makes it on a server of its own, which has to outlive it.
    pub(crate) async fn create_on(cluster: &Cluster) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let url = cluster.url(&name);
        store::schema::database::create_if_absent(&url).await.unwrap();
        store::migrate(&url).await.unwrap();
        Self { name, url }
    }

    /// Makes one without a schema.
    pub(crate) async fn empty() -> Self {
        let server = SERVER.get_or_init(TestServer::start).await;
        let name = format!("test_{}", Uuid::new_v4().simple());
        let url = server.url(&name);
        store::schema::database::create_if_absent(&url).await.unwrap();
        Self { url, name }
    }

    /// Its URL.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The same for an installation in this schema.
    pub(crate) fn in_schema(&self, schema: &str) -> Database {
        Database { schema: schema.parse().unwrap(), ..self.url().into() }
    }

    /// A connection of the test, which finds the tables of the service.
    pub(crate) async fn sql(&self) -> PgConnection {
        let mut sql = PgConnection::connect(self.url()).await.unwrap();
        sql.execute("SET search_path TO dms, public").await.unwrap();
        sql
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let (url, name) = (self.url.clone(), self.name.clone());
        // The runtime of the test cannot be waited for from here.
        let dropping = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(store::schema::database::drop_database(&url, &name)).unwrap();
        });
        let dropped = dropping.join();
        if !thread::panicking() {
            dropped.unwrap();
        }
    }
}

/// The URL with another database.
fn with_database(url: &str, database: &str) -> String {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let authority = address.find("://").unwrap() + "://".len();
    let end = address[authority..].find('/').map_or(address.len(), |slash| authority + slash);
    format!("{}/{database}?{query}", &address[..end])
}

#[test]
fn the_database_of_a_url_can_be_replaced() {
    for (url, expected) in [
        ("postgres://u:p@h:5/old?sslmode=disable", "postgres://u:p@h:5/new?sslmode=disable"),
        ("postgres://h", "postgres://h/new?"),
        ("postgres:///old?host=/tmp", "postgres:///new?host=/tmp"),
    ] {
        assert_eq!(with_database(url, "new"), expected);
    }
}

#[tokio::test]
async fn test_databases_are_apart() {
    let (first, second) = tokio::join!(TestDatabase::create(), TestDatabase::create());
    assert_ne!(first.url(), second.url());
    // Both are there: a database can be dropped under its own name only once.
    store::schema::database::create_if_absent(first.url()).await.unwrap();
    store::migrate(second.url()).await.unwrap();
}

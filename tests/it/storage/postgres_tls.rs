//! TLS to Postgres: every connection of the service is encrypted, and a server that cannot prove who it is gets none.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use dms::broker::Settings;
use dms::store;
use dms_postgres::{Cluster, ClusterOptions};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use crate::net::tls::{Authority, Identified};
use crate::storage::cluster::Folder;
use crate::support::calls::eventually;
use crate::support::service::Replica;

const DATABASE: &str = "dms";

/// A server that listens on TCP too.
async fn started(folder: &Folder) -> (Cluster, SocketAddr) {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let settings = [("listen_addresses", "127.0.0.1".to_owned()), ("port", address.port().to_string())];
    let options = ClusterOptions {
        data_dir: Some(folder.0.clone()),
        postgres_bin: std::env::var_os("DMS_POSTGRES_BIN").map(Into::into),
        settings: settings.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        ..ClusterOptions::default()
    };
    (tokio::task::spawn_blocking(move || Cluster::start(&options)).await.unwrap().unwrap(), address)
}

/// Gives it a certificate and a key, in files that it writes itself: they must be its own.
async fn encrypt(plain: &str, identified: &Identified) {
    let mut sql = PgConnection::connect(plain).await.unwrap();
    let (data,): (String,) = sqlx::query_as("SHOW data_directory").fetch_one(&mut sql).await.unwrap();
    for (file, pem) in [("server.crt", &identified.certificate), ("server.key", &identified.key)] {
        let lines = format!("SELECT unnest(string_to_array($pem${pem}$pem$, E'\\n'))");
        let lines = format!("COPY ({lines}) TO PROGRAM 'umask 077; cat > {data}/{file}'");
        sql.execute(AssertSqlSafe(lines)).await.unwrap();
    }
    for command in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
        sql.execute(command).await.unwrap();
    }
    let encrypted = plain.replace("sslmode=disable", "sslmode=require");
    eventually("the server has its certificate", async || PgConnection::connect(&encrypted).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_connections_are_encrypted_and_the_server_is_verified() {
    let (folder, authority, stranger) = (Folder::new(), Authority::new(), Authority::new());
    let (cluster, address) = started(&folder).await;
    let plain = Cluster::url_at(address, DATABASE);
    store::schema::database::create_if_absent(&plain).await.unwrap();
    encrypt(&plain, &authority.sign()).await;

    let verified_by = |authority: &Authority, name: &str| {
        let file = folder.0.join(name);
        fs::write(&file, authority.pem()).unwrap();
        format!("postgres://postgres@{address}/{DATABASE}?sslmode=verify-full&sslrootcert={}", file.display())
    };
    let refused = store::migrate(&verified_by(&stranger, "stranger.pem")).await.unwrap_err().to_string();
    assert!(refused.contains("cannot be reached"), "{refused}");

    let url = verified_by(&authority, "authority.pem");
    store::migrate(&url).await.unwrap();
    let replica = Replica::start(&url, Settings::default(), None).await;
    let mut sql = PgConnection::connect(&plain).await.unwrap();
    let sessions = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                    WHERE application_name LIKE 'dms%'";
    let (all, encrypted): (i64, i64) = sqlx::query_as(sessions).fetch_one(&mut sql).await.unwrap();
    assert!(all > 0 && all == encrypted, "{encrypted} of {all}");
    replica.shutdown().await;
    tokio::task::spawn_blocking(move || cluster.stop()).await.unwrap().unwrap();
}

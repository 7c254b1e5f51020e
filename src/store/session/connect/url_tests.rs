//! What a URL is read as.

use super::url::{ConnectionUrl, ServerAddress, Wanted};

fn read(url: &str) -> Result<ConnectionUrl, String> {
    ConnectionUrl::parse(url, |_| None)
}

fn servers(url: &str) -> Vec<(String, u16)> {
    let named = |server: ServerAddress| (server.host.unwrap_or_default(), server.port);
    read(url).unwrap().servers.into_iter().map(named).collect()
}

#[test]
fn hosts_are_read_as_libpq_reads_them() {
    for (url, expected) in [
        ("postgres://", vec![("", 5432)]),
        ("postgresql://db.example/dms", vec![("db.example", 5432)]),
        ("postgres://u:p@h:5433/dms", vec![("h", 5433)]),
        ("postgres://u:p@[::1]:5633/db", vec![("::1", 5633)]),
        ("postgres://[2001:db8::1]/db", vec![("2001:db8::1", 5432)]),
        ("postgres://u@/db?host=/var/run/postgresql", vec![("/var/run/postgresql", 5432)]),
        ("postgres:///db?host=/a&port=6000", vec![("/a", 6000)]),
        ("postgres://%2Fvar%2Frun:6000/db", vec![("/var/run", 6000)]),
        ("postgres://a:1,b:2,[::1]:3/db", vec![("a", 1), ("b", 2), ("::1", 3)]),
        ("postgres://a,b/db?port=6432", vec![("a", 6432), ("b", 6432)]),
        ("postgres:///db?host=/a,/b&port=1,2", vec![("/a", 1), ("/b", 2)]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(host, port)| (host.to_owned(), port)).collect();
        assert_eq!(servers(url), expected, "{url}");
    }
}

#[test]
fn everything_may_be_percent_encoded() {
    let url = read("postgres://u%40x:p%3A%2F%25@h/d%62?application%5Fname=a%20b+c&user=v&ssl=true").unwrap();
    let expected = [
        ("application_name", "a b+c"),
        ("dbname", "db"),
        ("password", "p:/%"),
        ("sslmode", "require"),
        // The query wins.
        ("user", "v"),
    ];
    assert_eq!(url.parameters.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn a_service_wants_a_server_that_it_can_write_to() {
    for (url, expected) in [
        ("postgres://a/db", Wanted::Any),
        ("postgres://a,b/db", Wanted::ReadWrite),
        ("postgres://a,b/db?target_session_attrs=any", Wanted::Any),
        ("postgres://a/db?target_session_attrs=primary", Wanted::Primary),
    ] {
        assert_eq!(read(url).unwrap().wanted, expected, "{url}");
    }
}

#[test]
fn variables_of_libpq_fill_what_the_url_leaves_open() {
    let variable = |name: &str| {
        let value = match name {
            "PGHOST" => "a,b",
            "PGPORT" => "1,2",
            "PGTARGETSESSIONATTRS" => "primary",
            "PGCONNECT_TIMEOUT" => "7",
            _ => return None,
        };
        Some(value.to_owned())
    };
    let url = ConnectionUrl::parse("postgres:///db", variable).unwrap();
    assert_eq!((url.servers.len(), url.servers[1].port, url.wanted), (2, 2, Wanted::Primary));
    assert_eq!(url.connect_timeout.unwrap().as_secs(), 7);
    let url = ConnectionUrl::parse("postgres://c:9/db?connect_timeout=1", variable).unwrap();
    assert_eq!((url.servers.len(), url.servers[0].port), (1, 9));
    assert_eq!(url.connect_timeout.unwrap().as_secs(), 1);
}

#[test]
fn what_is_not_understood_is_named_with_what_is_allowed_and_never_the_password() {
    for (url, part) in [
        ("mysql://u:s3cret@h/db", "its scheme is mysql; give postgres://"),
        ("host=h password=s3cret", "it has no scheme; give postgres://"),
        (
            "postgres://u:s3cret@h/db?sslmod=require",
            "the parameter sslmod is not supported; supported are application_name,",
        ),
        ("postgres://u:s3cret@h/db?service=x", "give what the service file says in the URL"),
        ("postgres://u:s3cret@h/db?passfile=x", "PGPASSFILE"),
        ("postgres://u:s3cret@h/db?hostaddr=1.2.3.4", "give the address as host"),
        ("postgres://u:s3cret@h/db?sslmode=on", "sslmode: give one of disable, allow"),
        ("postgres://u:s3cret@h/db?channel_binding=require", "channel_binding: give one of disable, prefer"),
        (
            "postgres://u:s3cret@h/db?target_session_attrs=prefer-standby",
            "target_session_attrs = prefer-standby is not",
        ),
        ("postgres://u:s3cret@h/db?connect_timeout=soon", "connect_timeout: give seconds"),
        ("postgres://u:s3cret@h/db?sslrootcert=system&sslmode=require", "with sslrootcert=system, give verify-full"),
        ("postgres://u:s3cret@h:0/db", "port: give a number of 1 to 65535"),
        ("postgres://u:s3cret@h:99999/db", "port: give a number of 1 to 65535"),
        ("postgres://u:s3cret@[::1/db", "an IPv6 address ends with ]"),
        ("postgres://u:s3cret@[::1]5432/db", "after an IPv6 address comes :port"),
        ("postgres://u:s3cret%zz@h/db", "password: after % come two hexadecimal digits"),
        ("postgres://u:s3cret%ff@h/db", "password: after % come two hexadecimal digits"),
        ("postgres://a,b,c/db?port=1,2&password=s3cret", "3 hosts and 2 ports"),
        ("postgres://u:ab?s3cret@h:1/db", "percent-encoded"),
        ("postgres://u:ab/s3cret@h:1/db", "percent-encoded"),
        ("postgres://u:1?user=s3cret@h:1/db", "percent-encoded"),
    ] {
        let error = read(url).unwrap_err();
        assert!(error.contains(part) && !error.contains("s3cret"), "{url}: {error}");
    }
}

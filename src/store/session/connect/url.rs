//! `DATABASE_URL`, read as libpq reads it. The driver's own reader knows neither several servers nor IPv6 addresses, and passes over
//! parameters that it does not know.

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;

/// The parameters that a URL may have.
const PARAMETERS: [&str; 16] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "gssencmode",
    "host",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "target_session_attrs",
    "user",
];
/// Those that may only ask for what is done anyway.
const FIXED: [(&str, &[&str]); 3] = [
    ("channel_binding", &["disable", "prefer"]),
    ("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8", "auto"]),
    ("gssencmode", &["disable", "prefer"]),
];
const SSL_MODES: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];
/// The default of libpq.
const PORT: u16 = 5432;
/// As many servers as anybody has standbys.
const SERVERS_MAX: usize = 16;

/// Which servers will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The first one that answers.
    Any,
    /// One that accepts writes.
    ReadWrite,
    /// One that is no standby.
    Primary,
}

/// One server; without a host, where the driver looks by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServerAddress {
    pub host: Option<String>,
    pub port: u16,
}

/// What a URL, and the variables of libpq where it is silent, say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ConnectionUrl {
    pub(crate) servers: Vec<ServerAddress>,
    pub wanted: Wanted,
    /// For each server; 0 is no limit of one's own.
    pub(crate) connect_timeout: Option<Duration>,
    /// User, password, database and what else the driver understands, decoded.
    pub parameters: BTreeMap<&'static str, String>,
}

impl ConnectionUrl {
    /// Reads a URL; `variable` gives variables of the environment.
    ///
    /// # Errors
    /// What is wrong and what is allowed. Never the URL, which has a password in it.
    pub(super) fn parse(url: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let mut parameters = BTreeMap::new();
        let servers = Self::read(url, &mut parameters)?;
        check_values(&parameters, variable("PGSSLMODE"))?;
        trust_system(&mut parameters)?;
        let setting = |parameters: &mut BTreeMap<&'static str, String>, name: &'static str, from: &str| {
            parameters.remove(name).or_else(|| variable(from)).filter(|value| !value.is_empty())
        };
        let hosts = match setting(&mut parameters, "host", "PGHOST") {
            _ if servers.iter().any(|(host, _)| !host.is_empty()) => {
                list(servers.iter().map(|(host, _)| host.as_str()))
            }
            Some(hosts) => list(hosts.split(',')),
            None => vec![String::new()],
        };
        let given: Vec<&str> = servers.iter().map(|(_, port)| port.as_str()).collect();
        let ports = match setting(&mut parameters, "port", "PGPORT") {
            _ if given.iter().any(|port| !port.is_empty()) => list(given.into_iter()),
            Some(ports) => list(ports.split(',')),
            None => vec![String::new()],
        };
        let servers = addresses(&hosts, &ports)?;
        let wanted = setting(&mut parameters, "target_session_attrs", "PGTARGETSESSIONATTRS");
        let wanted = wanted_server(wanted.as_deref(), servers.len())?;
        let connect_timeout = setting(&mut parameters, "connect_timeout", "PGCONNECT_TIMEOUT");
        let connect_timeout = connect_timeout.as_deref().map(seconds).transpose()?;
        FIXED.iter().for_each(|(name, _)| drop(parameters.remove(name)));
        Ok(Self { servers, wanted, connect_timeout, parameters })
    }

    /// Takes the URL apart: hosts and ports as they stand in front of the path, everything else as parameters.
    fn read(url: &str, parameters: &mut BTreeMap<&'static str, String>) -> Result<Vec<(String, String)>, String> {
        let url = url.trim();
        let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")).ok_or_else(|| {
            let scheme =
                url.split_once("://").map(|(scheme, _)| scheme).filter(|scheme| scheme.len() <= 32 && is_word(scheme));
            let found = scheme.map_or("it has no scheme".to_owned(), |scheme| format!("its scheme is {scheme}"));
            format!("{found}; give postgres://user:password@host:port/database")
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // Behind the path or the query an @ is hardly ever meant, and then what stands before it must not be shown.
        if database.contains('@') || (!authority.is_empty() && !authority.contains('@') && query.contains('@')) {
            return Err(
                "an @ stands behind the first / or ?; write /, ?, # and @ of a user, a password or a parameter \
                        percent-encoded: %2F, %3F, %23, %40"
                    .to_owned(),
            );
        }
        let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) =
            credentials.split_once(':').map_or((credentials, None), |(user, word)| (user, Some(word)));
        for (name, value) in [("user", Some(user)), ("password", password), ("dbname", Some(database))] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                parameters.insert(name, decoded(name, value)?);
            }
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = parameter(pair)?;
            parameters.insert(name, value);
        }
        hosts.split(',').map(host_and_port).collect()
    }
}

/// One parameter of the query.
fn parameter(pair: &str) -> Result<(&'static str, String), String> {
    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
    let name = decoded("parameters", name)?;
    let value = decoded(&name, value)?;
    // What JDBC writes, and libpq reads.
    if name == "ssl" && value == "true" {
        return Ok(("sslmode", "require".to_owned()));
    }
    if let Some(known) = PARAMETERS.into_iter().find(|known| *known == name) {
        return Ok((known, value));
    }
    let instead = match name.as_str() {
        "passfile" => "; name the file in PGPASSFILE",
        "service" | "servicefile" => "; give what the service file says in the URL",
        "hostaddr" => "; give the address as host",
        _ => "",
    };
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    Err(format!("the parameter {shown} is not supported{instead}; supported are {}", PARAMETERS.join(", ")))
}

/// `host`, `host:port`, `[::1]:port`, `%2Fpath`.
fn host_and_port(text: &str) -> Result<(String, String), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(literal) => {
            let (host, rest) = literal.split_once(']').ok_or("host: an IPv6 address ends with ], as in [::1]:5432")?;
            match rest.strip_prefix(':') {
                Some(port) => (host, port),
                None if rest.is_empty() => (host, ""),
                None => return Err("host: after an IPv6 address comes :port, as in [::1]:5432".to_owned()),
            }
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    Ok((decoded("host", host)?, decoded("port", port)?))
}

/// Every host with its port; one port may do for all.
fn addresses(hosts: &[String], ports: &[String]) -> Result<Vec<ServerAddress>, String> {
    if hosts.len() > SERVERS_MAX || ports.len() > hosts.len() || ports.len() > 1 && ports.len() < hosts.len() {
        let (hosts, ports) = (hosts.len(), ports.len());
        return Err(format!(
            "{hosts} hosts and {ports} ports; give 1 to {SERVERS_MAX} hosts, and one port for all or one for each"
        ));
    }
    let one = |(index, host): (usize, &String)| {
        let port = ports.get(index).or(ports.first()).map_or("", String::as_str);
        let port = match port {
            "" => PORT,
            port => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| "port: give a number of 1 to 65535".to_owned())?,
        };
        Ok(ServerAddress { host: Some(host.clone()).filter(|host| !host.is_empty()), port })
    };
    hosts.iter().enumerate().map(one).collect()
}

/// libpq takes any server unless it is told; with several of them, one that accepts no writes can only be a standby.
fn wanted_server(text: Option<&str>, servers: usize) -> Result<Wanted, String> {
    match text {
        None if servers > 1 => Ok(Wanted::ReadWrite),
        None | Some("any") => Ok(Wanted::Any),
        Some("read-write") => Ok(Wanted::ReadWrite),
        Some("primary") => Ok(Wanted::Primary),
        Some(other) => {
            let shown: String = other.chars().filter(|c| !c.is_control()).take(32).collect();
            Err(format!(
                "target_session_attrs = {shown} is not supported, for the service writes: give read-write, primary or any"
            ))
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<u64> = text.parse().ok().filter(|seconds| *seconds <= 600);
    seconds.map(Duration::from_secs).ok_or_else(|| "connect_timeout: give seconds, 0 (no limit) to 600".to_owned())
}

/// `sslmode_variable` is read by the driver, which passes over values that it does not know.
fn check_values(parameters: &BTreeMap<&'static str, String>, sslmode_variable: Option<String>) -> Result<(), String> {
    if sslmode_variable.is_some_and(|mode| !SSL_MODES.contains(&mode.as_str())) {
        return Err(format!("PGSSLMODE: give one of {}", SSL_MODES.join(", ")));
    }
    let fixed = FIXED.iter().copied().chain([("sslmode", SSL_MODES.as_slice())]);
    for (name, allowed) in fixed {
        if parameters.get(name).is_some_and(|value| !allowed.contains(&value.as_str())) {
            return Err(format!("{name}: give one of {}", allowed.join(", ")));
        }
    }
    Ok(())
}

/// `sslrootcert=system` trusts whom this machine trusts, and so has to be sure of the name.
fn trust_system(parameters: &mut BTreeMap<&'static str, String>) -> Result<(), String> {
    if parameters.get("sslrootcert").is_some_and(|file| file == "system") {
        let mode = parameters.entry("sslmode").or_insert_with(|| "verify-full".to_owned());
        if mode != "verify-full" {
            return Err("sslmode: with sslrootcert=system, give verify-full".to_owned());
        }
    }
    Ok(())
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> Vec<String> {
    items.map(str::to_owned).collect()
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

fn decoded(name: &str, text: &str) -> Result<String, String> {
    let is_code = |code: &str| {
        let mut digits = code.bytes().take(2);
        digits.len() == 2 && digits.all(|digit| digit.is_ascii_hexdigit()) && !code.starts_with("00")
    };
    let broken = text.split('%').skip(1).any(|code| !is_code(code));
    let decoded = percent_decode_str(text).decode_utf8().ok().filter(|_| !broken);
    let decoded =
        decoded.ok_or_else(|| format!("{name}: after % come two hexadecimal digits of UTF-8; % itself is %25"))?;
    Ok(decoded.into_owned())
}

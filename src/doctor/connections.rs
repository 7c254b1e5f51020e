//! Findings about connections: whether Postgres lets in all that the replicas want.

use super::server::ServerSettings;
use super::{Finding, Verdict};
use crate::broker::Settings;
use crate::domain::{Error, Result};
use crate::store::health::diagnosis::{ConnectionLimits, Diagnosis};

/// Something that keeps connections from being made.
struct Bound {
    room: i64,
    /// How many of them are in use.
    used: i64,
    name: String,
    advice: &'static str,
}

/// The narrowest of the limits, and one that will bind others than who asks.
pub(super) fn findings(
    server: &ServerSettings,
    limits: &ConnectionLimits,
    settings: &Settings,
    replicas: u32,
) -> Vec<Finding> {
    let needed = needed(settings, replicas);
    let Bound { room, name, advice, .. } = narrowest(server, limits);
    let mut findings = vec![Finding::new(
        needed <= room,
        Verdict::Bad,
        format!(
            "{replicas} replicas need {needed} connections; the narrowest limit is {name}; {} are open on the server",
            limits.sessions
        ),
        advice,
    )];
    // Superusers may ask; services should run as something less.
    if let Some(room) = limits.database_limit.filter(|room| limits.superuser && needed > *room) {
        findings.push(Finding::new(
            false,
            Verdict::Warning,
            format!("the database lets in {room} connections of roles that are no superusers; {needed} are needed"),
            "ALTER DATABASE ... CONNECTION LIMIT: raise it, unless the service is to run as a superuser",
        ));
    }
    findings
}

/// Says in the log how many connections a replica takes and how many it can have, before they are missed.
///
/// # Errors
/// When the narrowest limit is less than what a replica cannot do without.
pub(crate) async fn say_at_start(diagnosis: &mut Diagnosis, settings: &Settings) -> Result<()> {
    let server = ServerSettings(diagnosis.settings().await?);
    let limits = diagnosis.connection_limits().await?;
    let (needed, least) = (needed(settings, 1), least(settings));
    // Less the session that has asked.
    let Bound { room, used, name, advice } = narrowest(&server, &limits);
    let free = (room - used + 1).max(0);
    if room < least {
        let limit = format!("cannot run with less than {least}; the narrowest limit is {name}: {advice}");
        return Err(Error::internal(format!("a replica takes {needed} connections, and {limit}")));
    }
    if free < needed {
        tracing::warn!(needed, free, limit = name, advice, "too few connections are free: calls will wait, and fail");
    } else {
        tracing::info!(needed, free, limit = name, "connections to Postgres");
    }
    Ok(())
}

/// One for each lane and one for the pool, for listening, notifying, the clock and the lead.
fn least(settings: &Settings) -> i64 {
    let lanes = settings.append_lanes + 1 + settings.claim_lanes + settings.settle_lanes + 5;
    i64::try_from(lanes).unwrap_or(i64::MAX)
}

fn needed(settings: &Settings, replicas: u32) -> i64 {
    // Three for a lane of sends, one each for KAFKA_HT, for listening, notifying, the clock and the lead.
    let lanes = 3 * settings.append_lanes + 1 + settings.claim_lanes + settings.settle_lanes + 4;
    (i64::try_from(lanes).unwrap_or(i64::MAX) + i64::from(settings.pool_connections)) * i64::from(replicas)
}

fn narrowest(server: &ServerSettings, limits: &ConnectionLimits) -> Bound {
    let most = server.number("max_connections");
    let reserved = server.number("superuser_reserved_connections") + server.number("reserved_connections");
    let of_server = Bound {
        room: most - reserved,
        used: limits.sessions,
        name: format!("max_connections = {most}, {reserved} of them reserved"),
        advice: "raise max_connections, or lower --pool-connections and the numbers of lanes",
    };
    if limits.superuser {
        return of_server;
    }
    let of_role = limits.role_limit.map(|room| Bound {
        room,
        used: limits.role_sessions,
        name: format!("that of the role {}: {room}", limits.role),
        advice: "ALTER ROLE ... CONNECTION LIMIT: raise it, or lower --pool-connections and the numbers of lanes",
    });
    let of_database = limits.database_limit.map(|room| Bound {
        room,
        used: limits.database_sessions,
        name: format!("that of the database: {room}"),
        advice: "ALTER DATABASE ... CONNECTION LIMIT: raise it, or lower --pool-connections and the numbers of lanes",
    });
    let others = of_role.into_iter().chain(of_database);
    others.fold(of_server, |least, next| if next.room < least.room { next } else { least })
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNLIMITED: ConnectionLimits = ConnectionLimits {
        role: String::new(),
        superuser: false,
        role_limit: None,
        database_limit: None,
        sessions: 1,
        role_sessions: 1,
        database_sessions: 1,
    };

    fn found(limits: ConnectionLimits, replicas: u32) -> Vec<Finding> {
        let settings =
            [("max_connections", "106"), ("superuser_reserved_connections", "3"), ("reserved_connections", "3")];
        let server = ServerSettings(settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec());
        findings(&server, &limits, &Settings::default(), replicas)
    }

    #[test]
    fn connections_are_counted_for_all_replicas() {
        let verdict = |replicas| found(UNLIMITED, replicas)[0].verdict;
        assert_eq!((verdict(4), verdict(5)), (Verdict::Good, Verdict::Bad), "six are reserved");
        let what = &found(UNLIMITED, 5)[0].what;
        assert!(what.contains("5 replicas need 115 connections"), "{what}");
    }

    #[test]
    fn the_narrowest_limit_counts() {
        for (role_limit, database_limit, verdict, name) in [
            (Some(200), Some(300), Verdict::Good, "max_connections = 106"),
            (Some(46), Some(50), Verdict::Good, "that of the role dms: 46"),
            (Some(45), None, Verdict::Bad, "that of the role dms: 45"),
            (Some(50), Some(45), Verdict::Bad, "that of the database: 45"),
            (None, Some(0), Verdict::Bad, "that of the database: 0"),
        ] {
            let limits = ConnectionLimits { role: "dms".to_owned(), role_limit, database_limit, ..UNLIMITED };
            let found = found(limits, 2);
            assert_eq!((found.len(), found[0].verdict), (1, verdict), "{found:?}");
            assert!(found[0].what.contains(name), "{found:?}");
        }
    }

    #[test]
    fn a_superuser_is_told_of_a_limit_that_binds_others() {
        let found = |replicas| {
            let limits =
                ConnectionLimits { superuser: true, role_limit: Some(1), database_limit: Some(45), ..UNLIMITED };
            found(limits, replicas).into_iter().map(|finding| finding.verdict).collect::<Vec<_>>()
        };
        assert_eq!(found(1), [Verdict::Good]);
        assert_eq!(found(2), [Verdict::Good, Verdict::Warning]);
        assert_eq!(found(5), [Verdict::Bad, Verdict::Warning]);
    }
}

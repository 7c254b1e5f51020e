//! Keeps the clock set by Postgres's, and leases consistent with it when that is put back.

use std::sync::Arc;
use std::time::Duration;

use crate::broker::clock::{DatabaseClock, Followed, Step, pause_after};
use crate::broker::core::Core;
use crate::domain::Result;
use crate::domain::limits::LEASE_SECONDS;
use crate::observe::metrics::ClockStep;
use crate::store::session::clock::ClockConnection;
use crate::store::subscriptions::leases;

/// Leases end within this, by any clock: what is further ahead was granted by one that has been put back since.
const LEASES_WITHIN: Duration = Duration::from_secs(LEASE_SECONDS.end().unsigned_abs() + 10);
/// Smaller steps are what a time service does to a clock.
const STEP_WARN_MIN: Duration = Duration::from_secs(1);

/// Sets the clock by Postgres's, on a connection of its own.
pub(crate) async fn set_clock(core: Arc<Core>, clock: DatabaseClock, mut connection: ClockConnection) {
    // Postgres's clock may have been put back while no replica ran.
    let mut put_back = Some(Duration::ZERO);
    let mut pause = pause_after(None);
    while core.until_stopped(tokio::time::sleep(pause)).await.is_some() {
        let Some(followed) = core.until_stopped(clock.refresh(&mut connection)).await else { break };
        pause = pause_after(followed.as_ref().ok().copied());
        match followed {
            Ok(followed) => put_back = note(&core, followed).or(put_back),
            Err(error) => tracing::debug!(%error, "clock not set"),
        }
        if let Some(by) = put_back {
            match bring_leases_back(&core, by).await {
                Ok(()) => put_back = None,
                Err(error) => tracing::warn!(%error, "leases not brought back to Postgres's clock; it is tried again"),
            }
        }
    }
    connection.close().await;
}

/// Counts and tells; how far the clock was put back, if it was.
fn note(core: &Core, followed: Followed) -> Option<Duration> {
    let metrics = core.metrics.clock();
    followed.offset.into_iter().for_each(|offset| metrics.set_offset(offset));
    match followed.step? {
        Step::Ahead(by) => {
            metrics.stepped(ClockStep::Ahead);
            told(by, "Postgres's clock went ahead: leases end that much sooner");
            None
        }
        Step::Back(by) => {
            metrics.stepped(ClockStep::Back);
            told(by, "Postgres's clock went back: time stands still here until it has caught up");
            None
        }
        Step::PutBack(by) => {
            metrics.stepped(ClockStep::Back);
            tracing::error!(by_ms = by.as_millis(), "Postgres's clock was put back, and time here with it");
            Some(by)
        }
    }
}

fn told(by: Duration, what: &'static str) {
    if by >= STEP_WARN_MIN {
        tracing::warn!(by_ms = by.as_millis(), "{what}");
    } else {
        tracing::info!(by_ms = by.as_millis(), "{what}");
    }
}

/// Leases granted before a long step back would run that much too long: they are moved back along with the clock. Whichever
/// replica does it first has done it for all.
async fn bring_leases_back(core: &Core, by: Duration) -> Result<()> {
    let limit = core.clock.now().plus(LEASES_WITHIN);
    let moved = leases::bring_back(&core.store.pool, by, limit).await?;
    core.timers.bring_back(by, limit);
    if moved > 0 {
        tracing::warn!(leases = moved, "leases were brought back to Postgres's clock");
    }
    Ok(())
}

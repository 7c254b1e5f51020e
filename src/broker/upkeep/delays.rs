//! Delayed messages: made available when their delay ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::in_time;
use crate::broker::core::Core;
use crate::domain::Result;
use crate::domain::clock::Timestamp;
use crate::domain::ids::StreamId;
use crate::observe::metrics::Upkeep;
use crate::store::log::delayed::{self, Due};

/// Messages made available at once, per stream.
const DELAYED_MAX: i64 = 500;
/// Streams with due messages looked after at once.
const DELAYED_STREAMS_MAX: i64 = 100;
/// Every replica tells of the delayed messages that it stores; this is for what was not heard of.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// A stream that cannot be served is left alone for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// Makes delayed messages available when their delay ends.
pub(crate) async fn end_delays(core: Arc<Core>) {
    let mut resting = Resting::default();
    loop {
        let begun = Instant::now();
        core.delays.looking();
        let ended = end_due(&core, &mut resting).await;
        core.metrics.replica().kept_up(Upkeep::Delays, begun.elapsed(), ended.is_ok());
        let well = ended.is_ok() && resting.is_empty();
        let pause = if well { LOOK_INTERVAL } else { core.settings.sweep_interval };
        let next = ended.unwrap_or_else(|error| {
            tracing::warn!(%error, "delayed messages not made available");
            None
        });
        let next = core.delays.found(next);
        let wait = async {
            let due = async {
                match next {
                    Some(due) => core.clock.sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = core.delays.earlier() => {}
                () = tokio::time::sleep(pause) => {}
            }
        };
        if core.until_stopped(wait).await.is_none() {
            return;
        }
    }
}

/// Streams that were locked or could not be served, and until when they are left alone.
type Resting = HashMap<StreamId, Instant>;

/// Ends the delays that are due, and says when the next one will be. When none is, that takes one statement.
async fn end_due(core: &Core, resting: &mut Resting) -> Result<Option<Timestamp>> {
    loop {
        let now = core.clock.now();
        let next = in_time(core, async { Ok(delayed::next_due(&core.store.pool).await?) }).await?;
        core.metrics.replica().late(Upkeep::Delays, next.map_or(Duration::ZERO, |due| now.since(due)));
        if next.is_none_or(|due| due > now) || core.stop.is_cancelled() {
            return Ok(next);
        }
        if !append_due(core, now, resting).await? {
            // What is due has to rest.
            return Ok(None);
        }
    }
}

/// Looks after streams in which something is due, but for those that rest: whether there were any.
async fn append_due(core: &Core, now: Timestamp, resting: &mut Resting) -> Result<bool> {
    resting.retain(|_, until| *until > Instant::now());
    let resting_now = resting.keys().copied();
    let due = async { Ok(delayed::due_streams(&core.store.pool, now, resting_now, DELAYED_STREAMS_MAX).await?) };
    let streams = in_time(core, due).await?;
    in_time(core, core.ensure_partitions(now)).await?;
    let mut failed = Ok(());
    for stream in &streams {
        // A stream that cannot be served holds back no other one, now or the next time.
        match append_due_of(core, *stream, now).await {
            Ok(true) => {}
            Ok(false) => drop(resting.insert(*stream, Instant::now() + PAUSE)),
            Err(error) => {
                tracing::warn!(stream = stream.0, %error, "delayed messages of a stream not made available");
                resting.insert(*stream, Instant::now() + PAUSE);
                failed = Err(error);
            }
        }
    }
    failed.map(|()| !streams.is_empty())
}

/// Appends what is due of a stream; false when somebody has locked it.
async fn append_due_of(core: &Core, stream: StreamId, now: Timestamp) -> Result<bool> {
    loop {
        let epoch = core.cache.epoch();
        let append = async { Ok(delayed::append_due(&core.store.pool, stream, now, DELAYED_MAX).await?) };
        match in_time(core, append).await? {
            Due::Appended(segment) => core.appended(epoch, segment),
            Due::Nothing => return Ok(true),
            Due::Locked => return Ok(false),
        }
    }
}

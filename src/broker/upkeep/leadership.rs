//! One replica does for all what needs to be done once: it ends leases of replicas that are gone, ends delays, keeps the log to its
//! retention, and reads the figures of groups for the metrics. That it leads it knows by an advisory lock of its session, which another
//! one takes within seconds when it goes. For a moment there may be two; everything they do may be done twice.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::broker::core::Core;
use crate::domain::{Error, Result};
use crate::store::Store;
use crate::store::session::leadership::{Candidate, IDLE_LIMIT_SECONDS};

const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(2);
const HEARTBEAT_LIMIT: Duration = Duration::from_secs(2);
/// Who has not heard from Postgres for this long does not lead any more, before Postgres lets another one.
const CONFIRMED_FOR: Duration = Duration::from_millis(IDLE_LIMIT_SECONDS * 1000 - 500);
const RECONNECT_INTERVAL: Duration = Duration::from_secs(1);

/// Whether this replica leads.
#[derive(Debug)]
pub(crate) struct Leadership {
    leads: watch::Sender<bool>,
    /// When the last heartbeat that was answered was sent.
    confirmed: Mutex<Option<Instant>>,
}

impl Default for Leadership {
    fn default() -> Self {
        Self { leads: watch::Sender::new(false), confirmed: Mutex::default() }
    }
}

impl Leadership {
    /// Whether it leads at this moment.
    pub(crate) fn leads(&self) -> bool {
        let confirmed = *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner);
        *self.leads.borrow() && confirmed.is_some_and(|sent| sent.elapsed() < CONFIRMED_FOR)
    }

    /// Waits until it leads, or does not.
    async fn becomes(&self, leading: bool) {
        // The sender lives as long as this does.
        let _ = self.leads.subscribe().wait_for(|leads| *leads == leading).await;
    }

    fn set(&self, leads: bool, sent: Instant) {
        if leads {
            *self.confirmed.lock().unwrap_or_else(PoisonError::into_inner) = Some(sent);
        }
        self.leads.send_if_modified(|before| std::mem::replace(before, leads) != leads);
    }
}

/// Does some work whenever this replica leads, until the service stops. What is under way when it leads no more is given up.
pub(crate) async fn lead<W: Future<Output = ()>>(core: Arc<Core>, work: impl Fn(Arc<Core>) -> W) {
    while core.until_stopped(core.leadership.becomes(true)).await.is_some() {
        tokio::select! {
            () = work(Arc::clone(&core)) => {}
            () = core.leadership.becomes(false) => {}
        }
    }
}

/// Connects and asks for the first time, so that a replica that is alone leads when it begins to serve.
pub(crate) async fn first(core: &Core) -> Option<Candidate> {
    let mut candidate = connect(&core.store).await.ok()?;
    beat(core, &mut candidate).await.ok()?;
    Some(candidate)
}

/// Stands for the lead until calls are taken no more, then gives it up at once.
pub(crate) async fn stand(core: Arc<Core>, mut candidate: Option<Candidate>) {
    while core.stop_waiting.run_until_cancelled(tokio::time::sleep(interval(candidate.as_ref()))).await.is_some() {
        let Some(beaten) = core.stop_waiting.run_until_cancelled(keep(&core, candidate.take())).await else { break };
        match beaten {
            Ok(alive) => candidate = Some(alive),
            Err(error) => {
                tracing::debug!(%error, "no session to lead with");
                show(&core, false, Instant::now());
            }
        }
    }
    show(&core, false, Instant::now());
    if let Some(candidate) = candidate {
        let _closed = timeout(HEARTBEAT_LIMIT, candidate.close()).await;
    }
}

fn interval(candidate: Option<&Candidate>) -> Duration {
    if candidate.is_some() { HEARTBEAT_INTERVAL } else { RECONNECT_INTERVAL }
}

/// One heartbeat, on a new session if there is none.
async fn keep(core: &Core, candidate: Option<Candidate>) -> Result<Candidate> {
    let mut candidate = match candidate {
        Some(candidate) => candidate,
        None => connect(&core.store).await?,
    };
    beat(core, &mut candidate).await?;
    Ok(candidate)
}

async fn connect(store: &Store) -> Result<Candidate> {
    timeout(HEARTBEAT_LIMIT, Candidate::connect(store)).await.unwrap_or_else(|_| Err(silent()))
}

async fn beat(core: &Core, candidate: &mut Candidate) -> Result<()> {
    let sent = Instant::now();
    let leads = timeout(HEARTBEAT_LIMIT, candidate.heartbeat()).await.unwrap_or_else(|_| Err(silent()))?;
    show(core, leads, sent);
    Ok(())
}

fn silent() -> Error {
    Error::unavailable("the database did not answer in time")
}

fn show(core: &Core, leads: bool, sent: Instant) {
    let before = *core.leadership.leads.borrow();
    if leads != before {
        let does = if leads { "leads" } else { "no longer leads" };
        tracing::info!("this replica {does}: one replica sweeps and counts for all");
        core.metrics.replica().set_leader(leads);
        if !leads {
            // Another one shows them from now on.
            core.metrics.groups().clear();
            core.metrics.replica().clear_figures();
        }
    }
    core.leadership.set(leads, sent);
}

//! Which guarantee each sabotage breaks, and how.

use anyhow::{Context, Result};

use super::checker::Rule;
use crate::chaos::args::Sabotage;
use crate::sql::sabotage as sql;

/// Installs it.
pub(super) async fn install(database_url: &str, sabotage: Sabotage) -> Result<()> {
    let script = match sabotage {
        Sabotage::SendsLost => sql::SENDS_LOST,
        Sabotage::AnsweredEarly => sql::ANSWERED_EARLY,
        Sabotage::CursorSkips => sql::CURSOR_SKIPS,
        Sabotage::LeaseShared => sql::LEASE_SHARED,
        Sabotage::LeaseOutlives => sql::LEASE_OUTLIVES,
        Sabotage::AckForgotten => sql::ACK_FORGOTTEN,
        Sabotage::FifoOvertaken => sql::FIFO_OVERTAKEN,
        Sabotage::FailedStarve => sql::FAILED_STARVE,
        Sabotage::FailureUncounted => sql::FAILURE_UNCOUNTED,
        Sabotage::DeadLetterDoubled => sql::DEAD_LETTER_DOUBLED,
        Sabotage::DeadLetterDropped => sql::DEAD_LETTER_DROPPED,
        Sabotage::GroupsCoupled => sql::GROUPS_COUPLED,
        Sabotage::CounterDrifts => sql::COUNTER_DRIFTS,
    };
    sql::install(database_url, script).await.context("the sabotage cannot be installed")
}

/// Undoes what would otherwise be reported as messages lost, once the load has ended.
pub(super) async fn lift(database_url: &str, sabotage: Sabotage) -> Result<()> {
    match sabotage {
        Sabotage::FailedStarve => {
            sql::install(database_url, sql::FAILED_STARVE_END).await.context("the sabotage cannot be lifted")
        }
        _ => Ok(()),
    }
}

/// Settings of Postgres that make it show.
pub(super) fn settings(sabotage: Sabotage) -> &'static [(&'static str, &'static str)] {
    if sabotage == Sabotage::AnsweredEarly { &sql::ANSWERED_EARLY_SETTINGS } else { &[] }
}

/// The guarantee that it breaks, others beside it perhaps.
pub(super) fn breaks(sabotage: Sabotage) -> Rule {
    match sabotage {
        Sabotage::SendsLost | Sabotage::AnsweredEarly | Sabotage::CursorSkips | Sabotage::GroupsCoupled => Rule::Lost,
        Sabotage::LeaseShared => Rule::Lease,
        Sabotage::LeaseOutlives => Rule::OldHandler,
        Sabotage::AckForgotten => Rule::AfterAck,
        Sabotage::FifoOvertaken => Rule::Fifo,
        Sabotage::FailedStarve => Rule::Starved,
        Sabotage::FailureUncounted => Rule::Attempts,
        Sabotage::DeadLetterDoubled | Sabotage::DeadLetterDropped => Rule::DeadLetter,
        Sabotage::CounterDrifts => Rule::Counters,
    }
}

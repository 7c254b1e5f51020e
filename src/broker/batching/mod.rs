//! How the calls of many callers share a transaction, and how one that fails does not take the others with it.

pub(super) mod apart;
pub(super) mod fair_queue;
pub(super) mod flush_cycle;
pub(super) mod isolation;
pub(super) mod lane;
pub(super) mod pool_shares;

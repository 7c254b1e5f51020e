//! What Postgres, the service and this process spent: CPU time from `/proc`, WAL and commits from Postgres itself. A figure that cannot be
//! had (another machine, no `/proc`, a standby) is absent, never guessed.

use std::time::Duration;

use super::testbed::Testbed;
use crate::harness::process::ProcessStat;
use crate::sql::instance::Instance;

/// Totals since some start, or the difference of two readings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// CPU time of the postmaster and all its children.
    pub postgres_cpu: Option<Duration>,
    /// CPU time of the service's processes.
    pub service_cpu: Option<Duration>,
    /// CPU time of this process, the load generator.
    pub client_cpu: Option<Duration>,
    /// Bytes of WAL.
    pub wal_bytes: Option<u64>,
    /// Committed transactions.
    pub commits: Option<u64>,
}

impl Usage {
    /// What was spent after `earlier`.
    pub(super) fn since(&self, earlier: &Usage) -> Usage {
        fn difference<T>(late: Option<T>, early: Option<T>, subtract: impl Fn(T, T) -> Option<T>) -> Option<T> {
            late.zip(early).and_then(|(late, early)| subtract(late, early))
        }
        Usage {
            postgres_cpu: difference(self.postgres_cpu, earlier.postgres_cpu, Duration::checked_sub),
            service_cpu: difference(self.service_cpu, earlier.service_cpu, Duration::checked_sub),
            client_cpu: difference(self.client_cpu, earlier.client_cpu, Duration::checked_sub),
            wal_bytes: difference(self.wal_bytes, earlier.wal_bytes, u64::checked_sub),
            commits: difference(self.commits, earlier.commits, u64::checked_sub),
        }
    }
}

/// Reads the usage. Without a database URL it knows only this process.
#[derive(Debug, Default)]
pub(super) struct UsageProbe {
    instance: Option<Instance>,
    postmaster: Option<u32>,
    services: Vec<u32>,
}

impl UsageProbe {
    /// Connects, and finds the postmaster when it is on this machine.
    pub(super) async fn connect(testbed: &Testbed) -> anyhow::Result<Self> {
        let services = testbed.addresses.iter().filter_map(|address| address.process).collect();
        let Some(database_url) = &testbed.database_url else {
            return Ok(Self { services, ..Self::default() });
        };
        let mut instance = Instance::connect(database_url).await?;
        let backend = instance.backend_pid().await?;
        let postmaster = u32::try_from(backend).ok().and_then(postmaster_of);
        Ok(Self { instance: Some(instance), postmaster, services })
    }

    /// Writes a checkpoint: what was done before is not charged to what comes. A role that may not is left alone.
    pub(super) async fn settle(&mut self) {
        if let Some(instance) = &mut self.instance
            && let Err(error) = instance.checkpoint().await
        {
            tracing::debug!(%error, "no checkpoint before measuring");
        }
    }

    /// The totals of now.
    pub(super) async fn read(&mut self) -> Usage {
        let own_cpu = |process: u32| ProcessStat::read(process).map(|stat| stat.own_cpu);
        let mut usage = Usage {
            postgres_cpu: self.postmaster.and_then(family_cpu),
            // The sum of none is not zero but unknown.
            service_cpu: self.services.iter().map(|process| own_cpu(*process)).reduce(|a, b| Some(a? + b?)).flatten(),
            client_cpu: own_cpu(std::process::id()),
            ..Usage::default()
        };
        if let Some(instance) = &mut self.instance {
            usage.wal_bytes = instance.wal_position().await.ok().and_then(|bytes| u64::try_from(bytes).ok());
            usage.commits = instance.commit_count().await.ok().and_then(|count| u64::try_from(count).ok());
        }
        usage
    }
}

/// The postmaster of a backend, if that process id is one of a Postgres on this machine.
fn postmaster_of(backend: u32) -> Option<u32> {
    let child = ProcessStat::read(backend)?;
    let parent = ProcessStat::read(child.parent)?;
    [&child, &parent].iter().all(|stat| stat.name.starts_with("postgres")).then_some(child.parent)
}

/// CPU time of a postmaster, of its children, and of those that have ended.
fn family_cpu(postmaster: u32) -> Option<Duration> {
    let own = ProcessStat::read(postmaster)?;
    let children: Duration = ProcessStat::children_of(postmaster)
        .into_iter()
        .filter_map(|child| Some(ProcessStat::read(child)?.own_cpu))
        .sum();
    Some(own.own_cpu + own.ended_children_cpu + children)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_need_both_readings() {
        let early = Usage { wal_bytes: Some(100), commits: Some(5), ..Usage::default() };
        let late = Usage { wal_bytes: Some(350), client_cpu: Some(Duration::from_millis(10)), ..Usage::default() };
        assert_eq!(late.since(&early), Usage { wal_bytes: Some(250), ..Usage::default() });
    }

    #[tokio::test]
    async fn without_a_database_only_this_process_is_known() {
        let usage = UsageProbe::connect(&Testbed::at(Vec::new(), None)).await.unwrap().read().await;
        assert_eq!((usage.postgres_cpu, usage.service_cpu, usage.wal_bytes, usage.commits), (None, None, None, None));
        assert_eq!(usage.client_cpu.is_some(), cfg!(target_os = "linux"));
    }
}

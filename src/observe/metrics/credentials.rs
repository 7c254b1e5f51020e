//! What the process keeps fresh from files and URLs: credentials of callers and certificates. Read when they are shown, for an age grows by itself.

use std::fmt::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

/// The time since a source was last read well, and how often it was not.
type Sample = Box<dyn Fn() -> (Duration, u64) + Send + Sync>;

/// The sources that are followed. Clones share them.
#[derive(Clone, Default)]
pub struct Credentials(Arc<Mutex<Vec<(&'static str, Sample)>>>);

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let credentials = Self::default();
        registry.register_collector(Box::new(credentials.clone()));
        credentials
    }

    /// Shows a source from now on. Each has a name of its own.
    pub(crate) fn follow(&self, source: &'static str, sample: impl Fn() -> (Duration, u64) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((source, Box::new(sample)));
    }

    fn samples(&self) -> Vec<(&'static str, (Duration, u64))> {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sources.iter().map(|(source, sample)| (*source, sample())).collect()
    }
}

impl Collector for Credentials {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let samples = self.samples();
        let help = "Time since a file or URL of credentials or certificates was last read and found good";
        let mut ages = encoder.encode_descriptor("credentials_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for (source, (age, _)) in &samples {
            ConstGauge::new(age.as_secs_f64()).encode(ages.encode_family(&[("source", *source)])?)?;
        }
        let help = "Looks at such a source that found it missing, hanging or malformed";
        let mut failures = encoder.encode_descriptor("credentials_failures", help, None, MetricType::Counter)?;
        for (source, (_, count)) in &samples {
            ConstCounter::new(*count).encode(failures.encode_family(&[("source", *source)])?)?;
        }
        Ok(())
    }
}

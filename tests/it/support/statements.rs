//! Counts what the lanes of a replica in this process ask of Postgres, by the spans of their statements.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// Statements, or transactions of several, since counting began. Everything has to run on the thread that began it: a test
/// of one thread.
pub(crate) struct Statements {
    counted: Arc<Mutex<BTreeMap<String, u64>>>,
    _guard: DefaultGuard,
}

impl Statements {
    /// Begins.
    pub(crate) fn count() -> Self {
        let counted = Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let layer = Counter(counted.clone()).with_filter(LevelFilter::DEBUG);
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        Self { counted, _guard }
    }

    /// All of them.
    pub(crate) fn total(&self) -> u64 {
        self.counted.lock().unwrap().values().sum()
    }

    /// Begins anew; what was counted until now, by function of the store.
    pub(crate) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.counted.lock().unwrap())
    }
}

struct Counter(Arc<Mutex<BTreeMap<String, u64>>>);

impl<S: Subscriber> Layer<S> for Counter {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        if attributes.metadata().name() == "statement" {
            attributes.record(&mut Function(&self.0));
        }
    }
}

/// Reads the name of the function.
struct Function<'a>(&'a Mutex<BTreeMap<String, u64>>);

impl Visit for Function<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        // Wake-ups of other replicas are sent by no lane.
        if field.name() == "function" && !value.starts_with("notifications::") {
            *self.0.lock().unwrap().entry(value.to_owned()).or_default() += 1;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

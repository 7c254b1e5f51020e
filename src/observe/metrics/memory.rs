//! The memory that a process may hold, by use.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::memory::{CALL_BYTES, Memory, Use};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    r#use: &'static str,
}

/// What is reserved of `--memory-max`, and how often there was not enough.
#[derive(Debug, Default)]
pub struct MemoryUse {
    max: Gauge,
    parts: Family<Of, Gauge>,
    reserved: Family<Of, Gauge>,
    refusals: Family<Of, Counter>,
}

impl MemoryUse {
    pub(super) fn registered(registry: &mut Registry) -> Self {
        let memory = Self::default();
        registry.register_with_unit("memory_max", "The setting --memory-max", Unit::Bytes, memory.max.clone());
        let help = "The part of it that each use of memory has";
        registry.register_with_unit("memory_part", help, Unit::Bytes, memory.parts.clone());
        let help = "What of its part each use of memory has reserved";
        registry.register_with_unit("memory_reserved", help, Unit::Bytes, memory.reserved.clone());
        let help = "Reservations refused because a part is used up or its owner has its share, by use";
        registry.register("memory_refusals", help, memory.refusals.clone());
        memory
    }

    /// Brings them up to date. Calls reserve nothing one by one: so many are in flight, if that is known.
    pub fn show(&self, memory: &Memory, calls: Option<usize>) {
        self.max.set(gauge(memory.max()));
        for of in Use::ALL.into_iter().filter(|of| memory.part(*of).max() > 0) {
            let (part, name) = (memory.part(of), Of { r#use: of.name() });
            let reserved = match of {
                Use::Calls => calls.map(|calls| calls * CALL_BYTES),
                _ => Some(part.reserved()),
            };
            let Some(reserved) = reserved else { continue };
            self.parts.get_or_create(&name).set(gauge(part.max()));
            self.reserved.get_or_create(&name).set(gauge(reserved));
            let refusals = self.refusals.get_or_create(&name);
            refusals.inc_by(part.refusals().saturating_sub(refusals.get()));
        }
    }
}

fn gauge(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_use_is_shown_with_its_part() {
        let (mut registry, memory) = (Registry::with_prefix("dms"), Memory::of_service(1 << 30, 0).unwrap());
        let shown = MemoryUse::registered(&mut registry);
        let answers = memory.part(Use::Answers);
        let _held = answers.reserve(None, 1000).unwrap();
        answers.reserve(None, answers.max()).unwrap_err();
        (0..2).for_each(|_| shown.show(&memory, Some(3)));
        let text = super::super::encoded(&registry);
        for line in [
            "dms_memory_max_bytes 1073741824",
            r#"dms_memory_reserved_bytes{use="answers"} 1000"#,
            r#"dms_memory_reserved_bytes{use="calls"} 43008"#,
            r#"dms_memory_refusals_total{use="answers"} 1"#,
            r#"dms_memory_refusals_total{use="lanes"} 0"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.contains(r#"dms_memory_part_bytes{use="rounds"} "#));
    }
}
